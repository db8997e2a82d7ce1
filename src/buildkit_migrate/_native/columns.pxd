"""C face of the columns module, for the other extension modules."""

from cpython cimport array as c_array
from libc.stdint cimport uint8_t

from buildkit_migrate._native.bolt cimport Column
from buildkit_migrate._native.guard cimport Guarded


cdef class Mask(Guarded):
    cdef uint8_t *flags          # 0 or 1 for each row; owned
    cdef Py_ssize_t rows         # of the table

    cdef int put(self, Py_ssize_t row) except -1
    cdef Mask paired(self, Mask other)


cdef Mask new_mask(Py_ssize_t size)

# Of what may be a column, or a sequence of bytes and None.
cdef Column column_of(object values)

# Row numbers as an array of type code "i".
cdef c_array.array rows_of(object numbers)

# `made` of `given`: of an array that the caller has, a copy.
cdef c_array.array unshared(c_array.array made, object given)
