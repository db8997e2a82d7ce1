/* On-disk structures of bbolt, format version 2 (spec bbolt-format, sections 2 to 7). */
#ifndef BKM_BOLT_FORMAT_H
#define BKM_BOLT_FORMAT_H

#include <stdint.h>
#include <string.h>

enum {
    BKM_PAGE_HEADER = 16,
    BKM_LEAF_ELEMENT = 16,
    BKM_BRANCH_ELEMENT = 16,
    BKM_BUCKET_HEADER = 16,

    BKM_PAGE_BRANCH = 0x01,
    BKM_PAGE_LEAF = 0x02,
    BKM_PAGE_META = 0x04,
    BKM_PAGE_FREELIST = 0x10,

    BKM_ELEMENT_BUCKET = 1,
    BKM_MAX_ELEMENTS = 65534,
    BKM_LONG_FREELIST = 0xFFFF,
    BKM_MAX_KEY = 32768,

    BKM_MIN_PAGE_SIZE = 1024,
    BKM_MAX_PAGE_SIZE = 16 << 20,
    BKM_META_END = 80,      /* bytes of a meta page that carry data */
    BKM_MAX_TREE_DEPTH = 64,
    BKM_MAX_NESTING = 64,   /* of buckets; BuildKit's files have 3, containerd's 6 */
};

#define BKM_MAX_VALUE 0x7FFFFFFEu
#define BKM_META_MAGIC 0xED0CDAEDu
#define BKM_META_VERSION 2u
#define BKM_NO_FREELIST UINT64_MAX

/* Elements of inline pages are unaligned, so every access uses memcpy. */
#define BKM_LOAD_STORE(bits)                                                                                         \
    static inline uint##bits##_t bkm_load##bits(const uint8_t *at)                                                   \
    {                                                                                                                \
        uint##bits##_t value;                                                                                        \
        memcpy(&value, at, sizeof value);                                                                            \
        return value;                                                                                                \
    }                                                                                                                \
    static inline void bkm_store##bits(uint8_t *at, uint##bits##_t value)                                            \
    {                                                                                                                \
        memcpy(at, &value, sizeof value);                                                                            \
    }
BKM_LOAD_STORE(16)
BKM_LOAD_STORE(32)
BKM_LOAD_STORE(64)
#undef BKM_LOAD_STORE

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "bbolt files are read and written in the processor's byte order; only little-endian is supported"
#endif

/* FNV-1a over the meta structure, from the magic number up to the checksum. */
static inline uint64_t bkm_meta_checksum(const uint8_t *meta_page)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (unsigned i = 16; i < 72; i++)
        hash = (hash ^ meta_page[i]) * 0x100000001b3u;
    return hash;
}

#endif
