"""C interface of the facts module, for the other extension modules."""

from buildkit_migrate._native.bolt cimport Reader
from buildkit_migrate._native.guard cimport Guarded
from core_span cimport bkm_span
from plan_records cimport bkm_records
from plan_survey cimport bkm_survey


cdef class Records(Guarded):
    cdef bkm_records records
    cdef readonly Reader reader
    cdef list owned           # decoded texts that are not in the file

    cdef bint settle(self, size_t odd, decode) except -1


cdef class Survey(Guarded):
    cdef bkm_survey survey
    cdef list owned           # owns the memory that the spans point to
    cdef str stated_snapshotter
    cdef str stated_namespace

    cdef bkm_span *pack(self, list values) except NULL
    cdef int fill_snapshots(self, list rows) except -1
    cdef int fill_blobs(self, list rows) except -1
    cdef int fill_leases(self, dict leases, frozenset expiring) except -1
