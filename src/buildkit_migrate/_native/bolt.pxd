"""C face of the bolt module, for the other extension modules."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from buildkit_migrate._native.guard cimport Guarded


cdef extern from "<stdbool.h>" nogil:
    ctypedef bint c_bool "bool"


cdef extern from "core/span.h" nogil:
    ctypedef struct bkm_span:
        const uint8_t *data
        uint32_t size


cdef inline bytes to_bytes(bkm_span span):
    return PyBytes_FromStringAndSize(<const char *>span.data, span.size) if span.size else b""


cdef inline bkm_span to_span(bytes value) except *:
    """The span lives as long as ``value``. Raises ValueError for what is too long for any file."""
    cdef bkm_span span
    if len(value) > 0x7FFFFFFF:
        raise ValueError("keys and values must be shorter than 2 GiB")
    span.data = <const uint8_t *><const char *>value
    span.size = <uint32_t>len(value)
    return span


cdef extern from "bolt/reader.h" nogil:
    ctypedef int bkm_rule
    const uint64_t BKM_NO_PAGE
    const uint64_t BKM_NO_FREELIST

    ctypedef struct bkm_bolt:
        uint32_t page_size
        uint64_t high_water
        uint64_t freelist
        uint64_t transaction
        bkm_rule other_meta
        bkm_rule rule
        uint64_t rule_page
        c_bool (*go_on)(void *context)
        void *context

    ctypedef struct bkm_bucket:
        uint64_t root
        uint64_t sequence

    ctypedef struct bkm_item:
        bkm_span key
        bkm_span value
        c_bool bucket

    ctypedef struct bkm_cursor:
        bkm_bolt *bolt
        uint8_t *visited

cdef extern from "bolt/builder.h" nogil:
    ctypedef enum bkm_build_status:
        BKM_BUILD_OK
        BKM_BUILD_NO_MEMORY
        BKM_BUILD_SINK_FAILED
    ctypedef struct bkm_block:
        uint8_t *data
        size_t capacity
    ctypedef struct bkm_builder:
        pass
    bkm_build_status bkm_builder_status(const bkm_builder *builder)


cdef class Column(Guarded):
    cdef bkm_span *spans      # malloc'ed, owned
    cdef Py_ssize_t count
    cdef object owner         # keeps the bytes behind the spans alive

    @staticmethod
    cdef Column adopt(bkm_span *spans, Py_ssize_t count, object owner)


# Whatever may read pages asks whether the reader is idle, or enters it.
cdef class Reader(Guarded):
    cdef bkm_bolt bolt
    cdef const unsigned char[::1] view
    cdef readonly str path
    cdef object interrupt     # what a signal handler raised while pages were read

    cdef bint handle_signals(self)

    # Makes the exception for the rule that `bolt` holds.
    cdef object failure(self)


cdef class Bucket(Guarded):
    cdef readonly Reader reader
    cdef bkm_bucket handle


cdef class _Block:
    cdef bkm_block block      # owned


cdef class Builder(Guarded):
    cdef bkm_builder *builder
    cdef _Block block         # being filled
    cdef _Block other         # the one before
    cdef object sink
    cdef object sink_error
    cdef uint32_t page_size

    cdef bint give(self, bkm_block *block, size_t size, size_t wanted)
    # Makes the exception for the status of `builder`.
    cdef object failure(self)
