#include "lmdb/packed.h"

#include <stdlib.h>

/* ---- packing ---- */

bool bkm_buffer_append(bkm_buffer *out, const void *data, size_t size)
{
    if (!bkm_buffer_room(out, size, 4096))
        return false;
    if (size)
        memcpy(out->data + out->size, data, size);
    out->size += size;
    return true;
}

static bkm_pack_status pack_node(bkm_bolt *bolt, const bkm_item *item, uint64_t page, uint8_t *visited, int nesting,
                                 bkm_buffer *out);

static bkm_pack_status pack_item(bkm_bolt *bolt, bkm_span key, const bkm_item *item, uint64_t page, uint8_t *visited,
                                 int nesting, bkm_buffer *out)
{
    size_t header = out->size;
    uint8_t sizes[BKM_PACKED_ITEM] = {0};
    bkm_store32(sizes, key.size);
    if (!bkm_buffer_append(out, sizes, sizeof sizes) || !bkm_buffer_append(out, key.data, key.size))
        return BKM_PACK_NO_MEMORY;
    size_t start = out->size;
    bkm_pack_status status = pack_node(bolt, item, page, visited, nesting, out);
    if (status == BKM_PACK_OK) /* a node is never larger than this field can hold */
        bkm_store32(out->data + header + 4, (uint32_t)(out->size - start));
    return status;
}

static bkm_pack_status pack_bucket(bkm_bolt *bolt, const bkm_bucket *bucket, uint64_t page, uint8_t *visited,
                                   int nesting, bkm_buffer *out)
{
    uint8_t header[BKM_NODE_BUCKET_HEADER] = {BKM_NODE_BUCKET};
    bkm_store64(header + 1, bucket->sequence);
    size_t start = out->size;
    if (!bkm_buffer_append(out, header, sizeof header))
        return BKM_PACK_NO_MEMORY;
    bkm_cursor cursor;
    if (!bkm_cursor_first(&cursor, bolt, bucket, visited))
        return BKM_PACK_READ;
    while (!bkm_cursor_end(&cursor)) {
        bkm_item item = bkm_cursor_item(&cursor);
        uint64_t at = bucket->root ? bkm_cursor_page(&cursor) : page;
        bkm_pack_status status = pack_item(bolt, item.key, &item, at, visited, nesting, out);
        if (status != BKM_PACK_OK)
            return status;
        if (out->size - start > BKM_MAX_NODE)
            return BKM_PACK_TOO_LARGE;
        if (!bkm_cursor_next(&cursor))
            return BKM_PACK_READ;
    }
    return BKM_PACK_OK;
}

static bkm_pack_status pack_node(bkm_bolt *bolt, const bkm_item *item, uint64_t page, uint8_t *visited, int nesting,
                                 bkm_buffer *out)
{
    if (!item->bucket) {
        uint8_t kind = BKM_NODE_VALUE;
        if (item->value.size >= BKM_MAX_NODE)
            return BKM_PACK_TOO_LARGE;
        return bkm_buffer_append(out, &kind, 1) && bkm_buffer_append(out, item->value.data, item->value.size)
                   ? BKM_PACK_OK
                   : BKM_PACK_NO_MEMORY;
    }
    if (nesting == BKM_MAX_NESTING) {
        bkm_bolt_fail(bolt, BKM_NESTED_TOO_DEEP, page);
        return BKM_PACK_READ;
    }
    bkm_bucket bucket;
    if (!bkm_bucket_decode(bolt, item->value, page, &bucket))
        return BKM_PACK_READ;
    return pack_bucket(bolt, &bucket, page, visited, nesting + 1, out);
}

bkm_pack_status bkm_pack(bkm_bolt *bolt, const bkm_item *item, uint64_t page, uint8_t *visited, bkm_buffer *out)
{
    return pack_node(bolt, item, page, visited, 1, out);
}

bkm_pack_status bkm_pack_item(bkm_bolt *bolt, bkm_span key, const bkm_item *item, uint64_t page, uint8_t *visited,
                              bkm_buffer *out)
{
    return pack_item(bolt, key, item, page, visited, 1, out);
}

/* ---- unpacking ---- */

static bool take(bkm_span *rest, uint32_t size, bkm_span *part)
{
    if (rest->size < size)
        return false;
    *part = (bkm_span){rest->data, size};
    rest->data += size;
    rest->size -= size;
    return true;
}

bkm_unpack_status bkm_unpack_next(bkm_unpacker *unpacker, bkm_span *key, bkm_span *node)
{
    if (unpacker->rest.size == 0)
        return BKM_UNPACK_END;
    bkm_span sizes;
    if (!take(&unpacker->rest, BKM_PACKED_ITEM, &sizes) || !take(&unpacker->rest, bkm_load32(sizes.data), key) ||
        !take(&unpacker->rest, bkm_load32(sizes.data + 4), node) ||
        (unpacker->last.data && bkm_span_compare(unpacker->last, *key) >= 0))
        return BKM_UNPACK_MALFORMED;
    unpacker->last = *key;
    return BKM_UNPACK_ITEM;
}

bool bkm_node_parts(bkm_span node, bool *bucket, uint64_t *sequence, bkm_span *content)
{
    if (node.size == 0 || node.data[0] > BKM_NODE_BUCKET)
        return false;
    *bucket = node.data[0] == BKM_NODE_BUCKET;
    *sequence = 0;
    uint32_t header = *bucket ? BKM_NODE_BUCKET_HEADER : 1;
    if (node.size < header)
        return false;
    if (*bucket)
        *sequence = bkm_load64(node.data + 1);
    *content = (bkm_span){node.data + header, node.size - header};
    return true;
}

/* The builder limits nesting. */
bkm_push_status bkm_push(bkm_builder *builder, bkm_span key, bkm_span node)
{
    bool is_bucket;
    uint64_t sequence;
    bkm_span content;
    if (!bkm_node_parts(node, &is_bucket, &sequence, &content))
        return BKM_PUSH_MALFORMED;
    if (!is_bucket)
        return bkm_builder_put(builder, key, content) ? BKM_PUSH_OK : BKM_PUSH_BUILD;
    if (!bkm_builder_open(builder, key, sequence))
        return BKM_PUSH_BUILD;
    bkm_unpacker unpacker = {.rest = content};
    for (;;) {
        bkm_span inner_key, inner_node;
        bkm_unpack_status next = bkm_unpack_next(&unpacker, &inner_key, &inner_node);
        if (next == BKM_UNPACK_MALFORMED)
            return BKM_PUSH_MALFORMED;
        if (next == BKM_UNPACK_END)
            return bkm_builder_close(builder) ? BKM_PUSH_OK : BKM_PUSH_BUILD;
        bkm_push_status status = bkm_push(builder, inner_key, inner_node);
        if (status != BKM_PUSH_OK)
            return status;
    }
}
