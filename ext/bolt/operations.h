/* Writes edit operations (see bolt/stream.h) to memory. */
#ifndef BKM_OPERATIONS_H
#define BKM_OPERATIONS_H

#include "bolt/format.h"
#include "bolt/stream.h"
#include "core/array.h"

#define BKM_EMPTY BKM_NAME("")

enum { BKM_CHUNK = 256 << 10 }; /* a chunk ends with the step that makes it at least this large */

/* A buffer of consecutive operations. */
typedef struct {
    uint8_t *data;
    size_t size, capacity;
    bool failed; /* out of memory, or a value was too long; the buffer is incomplete then */
    bkm_span too_long; /* the key of that value; NULL data if there is none */
} bkm_operations;

/* Returns room for `size` more bytes; NULL when out of memory. */
static inline uint8_t *bkm_operations_room(bkm_operations *out, size_t size)
{
    size_t wanted = out->size + size;
    if (!bkm_array_room(&out->data, &out->capacity, wanted, 1, BKM_CHUNK + BKM_CHUNK / 4)) {
        out->failed = true;
        return NULL;
    }
    return out->data + out->size;
}

static inline uint8_t *bkm_write_span(uint8_t *at, bkm_span span)
{
    bkm_store32(at, span.size);
    if (span.size)
        memcpy(at + 4, span.data, span.size);
    return at + 4 + span.size;
}

/* DELETE or ENTER. */
static inline void bkm_write_key(bkm_operations *out, uint8_t operation, bkm_span key)
{
    size_t size = 5 + (size_t)key.size;
    uint8_t *at = bkm_operations_room(out, size);
    if (!at)
        return;
    *at++ = operation;
    bkm_write_span(at, key);
    out->size += size;
}

/* PUT or DEFAULT. */
static inline void bkm_write_pair(bkm_operations *out, uint8_t operation, bkm_span key, bkm_span value)
{
    size_t size = 9 + (size_t)key.size + value.size;
    uint8_t *at = bkm_operations_room(out, size);
    if (!at)
        return;
    *at++ = operation;
    at = bkm_write_span(at, key);
    bkm_write_span(at, value);
    out->size += size;
}

static inline void bkm_enter(bkm_operations *out, bkm_span name)
{
    bkm_write_key(out, BKM_EDIT_ENTER, name);
}

static inline void bkm_leave(bkm_operations *out, int levels)
{
    uint8_t *at = bkm_operations_room(out, (size_t)levels);
    if (!at)
        return;
    memset(at, BKM_EDIT_LEAVE, (size_t)levels);
    out->size += (size_t)levels;
}

static inline void bkm_put(bkm_operations *out, bkm_span key, bkm_span value)
{
    bkm_write_pair(out, BKM_EDIT_PUT, key, value);
}

#endif
