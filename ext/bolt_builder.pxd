"""bolt/builder.h"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from bolt_reader cimport c_bool
from core_span cimport bkm_span


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
    ctypedef c_bool (*bkm_sink)(void *context, bkm_block *block, size_t size, size_t wanted)
    const char *bkm_build_status_text(bkm_build_status status)
    bkm_builder *bkm_builder_new(uint32_t page_size, uint32_t fill, bkm_sink sink, void *context)
    void bkm_builder_free(bkm_builder *builder)
    bint bkm_builder_open(bkm_builder *builder, bkm_span key, uint64_t sequence)
    bint bkm_builder_put(bkm_builder *builder, bkm_span key, bkm_span value)
    bint bkm_builder_close(bkm_builder *builder)
    ctypedef struct bkm_ending:
        uint64_t transaction
        uint64_t sequence
        c_bool freelist
    bint bkm_builder_finish(bkm_builder *builder, uint8_t *metas, bkm_ending ending)
