"""bolt/entries.h"""

from libc.stdint cimport int32_t

from bolt_reader cimport bkm_bolt, bkm_bucket, c_bool
from core_spans cimport bkm_spans


cdef extern from "bolt/entries.h" nogil:
    ctypedef struct bkm_entries:
        int32_t *rows
        bkm_spans keys
        bkm_spans values
        c_bool keys_only

    bint bkm_entries_in(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *bucket)
    void bkm_entries_free(bkm_entries *entries)
