"""core/spans.h"""

from libc.stdint cimport uint8_t

from core_span cimport bkm_span


cdef extern from "core/spans.h" nogil:
    ctypedef struct bkm_spans:
        const uint8_t *base
        size_t count

    bkm_span bkm_spans_get(const bkm_spans *spans, size_t at)
    bint bkm_spans_add(bkm_spans *spans, bkm_span span)
    bint bkm_spans_set(bkm_spans *spans, size_t at, bkm_span span)
    bint bkm_spans_fill(bkm_spans *spans, size_t count, const uint8_t *base)
    bint bkm_spans_adopt(bkm_spans *spans, bkm_span *array, size_t count, const uint8_t *base)
    uint8_t *bkm_spans_room(bkm_spans *spans, size_t size)
    void bkm_spans_free(bkm_spans *spans)
