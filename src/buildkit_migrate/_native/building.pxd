"""C interface of the building module, for the other extension modules."""

from libc.stdint cimport uint32_t

from buildkit_migrate._native.guard cimport Guarded
from bolt_builder cimport bkm_block, bkm_builder


cdef class _Block:
    cdef bkm_block block      # owned


cdef class Builder(Guarded):
    cdef bkm_builder *builder
    cdef _Block block         # being filled
    cdef _Block last          # the previous one
    cdef _Block other         # the one before
    cdef object sink
    cdef object sink_error
    cdef uint32_t page_size

    cdef bint give(self, bkm_block *block, size_t size, size_t wanted)
    # Creates the exception for the status of `builder`.
    cdef object failure(self)
