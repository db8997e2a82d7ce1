"""columns/lookup.h"""

from libc.stdint cimport int32_t, int64_t, uint8_t

from core_span cimport bkm_span
from core_spans cimport bkm_spans


cdef extern from "columns/lookup.h" nogil:
    ctypedef struct bkm_lookup:
        pass

    bint bkm_lookup_make(bkm_lookup *lookup, const bkm_spans *keys)
    int32_t bkm_lookup_find(const bkm_lookup *lookup, bkm_span key)
    void bkm_lookup_find_all(const bkm_lookup *lookup, const bkm_spans *entries, int32_t *rows)
    void bkm_lookup_free(bkm_lookup *lookup)
    bint bkm_find_pairs(const bkm_spans *left, const bkm_spans *right, const bkm_spans *others_left,
                        const bkm_spans *others_right, uint8_t *found)
    bint bkm_find_repeated(const int64_t *numbers, size_t count, uint8_t *found)
