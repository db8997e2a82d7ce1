"""core/span.h, and conversion between spans and Python bytes."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t


cdef extern from "core/span.h" nogil:
    ctypedef struct bkm_span:
        const uint8_t *data
        uint32_t size


cdef inline bytes to_bytes(bkm_span span):
    return PyBytes_FromStringAndSize(<const char *>span.data, span.size) if span.size else b""


cdef inline bkm_span to_span(bytes value) except *:
    """The span is valid as long as ``value`` lives. Raises ValueError if it is too long for any file."""
    cdef bkm_span span
    if len(value) > 0x7FFFFFFF:
        raise ValueError("keys and values must be shorter than 2 GiB")
    span.data = <const uint8_t *><const char *>value
    span.size = <uint32_t>len(value)
    return span
