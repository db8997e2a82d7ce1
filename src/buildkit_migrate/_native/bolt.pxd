"""C interface of the bolt module, for the other extension modules."""

from buildkit_migrate._native.guard cimport Guarded
from bolt_reader cimport bkm_bolt, bkm_bucket
from core_spans cimport bkm_spans


cdef class Column(Guarded):
    cdef bkm_spans spans      # owned, unless shared
    cdef bint shared
    cdef object owner         # keeps the bytes behind the spans alive

    # `spans` stay the owner's, and as they are.
    @staticmethod
    cdef Column share(bkm_spans *spans, object owner)

    # What `spans` had is the column's.
    @staticmethod
    cdef Column adopt(bkm_spans *spans, object owner)


# Whatever may read pages must call `idle` or `enter` on the reader first.
cdef class Reader(Guarded):
    cdef bkm_bolt bolt
    cdef const unsigned char[::1] view
    cdef readonly str path
    cdef object interrupt     # raised by a signal handler while pages were read

    cdef bint handle_signals(self)

    # Creates the exception for the rule recorded in `bolt`.
    cdef object failure(self)


cdef class Bucket(Guarded):
    cdef readonly Reader reader
    cdef bkm_bucket handle
