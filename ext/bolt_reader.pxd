"""bolt/reader.h"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from core_span cimport bkm_span


cdef extern from "<stdbool.h>" nogil:
    ctypedef bint c_bool "bool"

cdef extern from "bolt/reader.h" nogil:
    ctypedef int bkm_rule
    bkm_rule BKM_OK
    bkm_rule BKM_NO_MEMORY
    bkm_rule BKM_INTERRUPTED
    bkm_rule BKM_TOO_SHORT
    bkm_rule BKM_TRUNCATED
    bkm_rule BKM_WRONG_PAGE_FLAGS
    const uint64_t BKM_NO_PAGE
    const uint64_t BKM_NO_FREELIST

    ctypedef struct bkm_bolt:
        const uint8_t *data
        uint32_t page_size
        uint64_t high_water
        uint64_t root_sequence
        uint64_t freelist
        uint64_t transaction
        uint64_t pages_read
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

    const char *bkm_rule_text(bkm_rule rule)
    bint bkm_bolt_open(bkm_bolt *bolt, const uint8_t *data, uint64_t size)
    bint bkm_bolt_open_previous(bkm_bolt *bolt, const uint8_t *data, uint64_t size)
    void bkm_bolt_close(bkm_bolt *bolt)
    uint8_t *bkm_bolt_bitmap(bkm_bolt *bolt)
    bkm_bucket bkm_root_bucket(const bkm_bolt *bolt)
    bint bkm_bucket_decode(bkm_bolt *bolt, bkm_span value, uint64_t page, bkm_bucket *bucket)
    bint bkm_bucket_find(bkm_bolt *bolt, const bkm_bucket *bucket, bkm_span key, bkm_item *item,
                         c_bool *found)
    bint bkm_bucket_descend(bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_span *path, size_t depth,
                            bkm_bucket *inner, c_bool *found)
    bint bkm_cursor_first(bkm_cursor *cursor, bkm_bolt *bolt, const bkm_bucket *bucket, uint8_t *visited)
    bint bkm_cursor_seek(bkm_cursor *cursor, bkm_bolt *bolt, const bkm_bucket *bucket, bkm_span start)
    bint bkm_cursor_next(bkm_cursor *cursor)
    bint bkm_cursor_end(const bkm_cursor *cursor)
    bkm_item bkm_cursor_item(const bkm_cursor *cursor)
    uint64_t bkm_cursor_page(const bkm_cursor *cursor)
