"""columns/lookup.h"""

from libc.stdint cimport int32_t, int64_t, uint8_t

from core_span cimport bkm_span
from core_spans cimport bkm_spans


cdef extern from "columns/lookup.h" nogil:
    ctypedef struct bkm_lookup:
        pass

    bint bkm_lookup_make(bkm_lookup *lookup, const bkm_spans *keys)
    int32_t bkm_lookup_find(const bkm_lookup *lookup, bkm_span key)
    bint bkm_lookup_hash(bkm_lookup *lookup)
    bint bkm_lookup_find_all(bkm_lookup *lookup, const bkm_spans *entries, int32_t *rows)
    void bkm_lookup_free(bkm_lookup *lookup)
    bint bkm_find_pairs(const int32_t *left, const int32_t *right, size_t count, const int32_t *others_left,
                        const int32_t *others_right, size_t other_count, uint8_t *found)
    bint bkm_find_repeated(const int64_t *numbers, size_t count, uint8_t *found)
