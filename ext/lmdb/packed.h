/* Packed buckets: a bucket and all in it as one run of bytes, the form of an entry in an LMDB store
 * (docs/format.md).
 *
 *     node    | 0 u8 | bytes of the value |
 *             | 1 u8 | sequence u64 | items |     a bucket
 *     items   | key size u32 | node size u32 | key | node |, in byte order of the keys
 */
#ifndef BKM_PACKED_H
#define BKM_PACKED_H

#include "bolt/builder.h"
#include "bolt/reader.h"
#include "core/array.h"

enum {
    BKM_NODE_VALUE = 0,
    BKM_NODE_BUCKET = 1,
    BKM_NODE_BUCKET_HEADER = 9,
    BKM_PACKED_ITEM = 8,
};

#define BKM_MAX_NODE 0x7FFFFFFFu /* in bytes: the limit of LMDB's Python binding and of bolt values */

typedef enum {
    BKM_PACK_OK = 0,
    BKM_PACK_READ,      /* the file is damaged: see the rule in bkm_bolt */
    BKM_PACK_NO_MEMORY,
    BKM_PACK_TOO_LARGE,
} bkm_pack_status;

bool bkm_buffer_append(bkm_buffer *out, const void *data, size_t size);

/* Appends the node of an item found on `page`. `visited`: bitmap of pages that must not be read again. */
bkm_pack_status bkm_pack(bkm_bolt *bolt, const bkm_item *item, uint64_t page, uint8_t *visited, bkm_buffer *out);
/* Appends an item with the node of `item` and the key `key`. */
bkm_pack_status bkm_pack_item(bkm_bolt *bolt, bkm_span key, const bkm_item *item, uint64_t page, uint8_t *visited,
                              bkm_buffer *out);

/* The rest of a sequence of items. `last`: the previous key. */
typedef struct {
    bkm_span rest;
    bkm_span last;
} bkm_unpacker;

typedef enum {
    BKM_UNPACK_ITEM,
    BKM_UNPACK_END,
    BKM_UNPACK_MALFORMED,
} bkm_unpack_status;

bkm_unpack_status bkm_unpack_next(bkm_unpacker *unpacker, bkm_span *key, bkm_span *node);

/* Splits a node into its parts; false if it is malformed. */
bool bkm_node_parts(bkm_span node, bool *bucket, uint64_t *sequence, bkm_span *content);

typedef enum {
    BKM_PUSH_OK = 0,
    BKM_PUSH_BUILD,     /* see the builder's status */
    BKM_PUSH_MALFORMED,
} bkm_push_status;

/* Adds a node under `key` to the builder's open bucket. */
bkm_push_status bkm_push(bkm_builder *builder, bkm_span key, bkm_span node);

#endif
