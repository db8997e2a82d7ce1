"""C face of the columns module, for the other extension modules."""

from libc.stdint cimport uint8_t

from buildkit_migrate._native.guard cimport Guarded


cdef class Mask(Guarded):
    cdef uint8_t *flags          # 0 or 1 for each row; owned
    cdef readonly Py_ssize_t size

    cdef int put(self, Py_ssize_t row) except -1
    cdef Mask paired(self, Mask other)


cdef Mask new_mask(Py_ssize_t size)
