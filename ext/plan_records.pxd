"""plan/records.h"""

from libc.stdint cimport uint8_t, uint32_t

from bolt_reader cimport bkm_bolt
from core_span cimport bkm_span


cdef extern from "plan/records.h" nogil:
    enum:
        BKM_STORED_TEXTS
        BKM_KEY_WRITTEN
        BKM_KEY_BLOB_SIZE
        BKM_KEY_BLOB_MAPPING
        BKM_KEY_ANY

    ctypedef struct bkm_value_problem:
        uint32_t record
        bkm_span key

    ctypedef struct bkm_odd_value:
        uint32_t kind
        bkm_span value

    ctypedef struct bkm_records:
        size_t count
        bkm_span *id
        bkm_span *equal_mutable
        uint8_t *empty_mapping
        bkm_value_problem *problems
        size_t problem_count
        bkm_odd_value *odd
        size_t odd_count

    bint bkm_records_read(bkm_records *records, bkm_bolt *bolt)
    void bkm_records_free(bkm_records *records)
    bint bkm_records_refuse(bkm_records *records, size_t odd)
    bint bkm_records_accept(bkm_records *records, size_t odd, bkm_span text, bkm_span diff_id)
    void bkm_records_finish(bkm_records *records)
