/* Bytes owned by somebody else. `data == NULL` means absent; an empty span that is present has a non-NULL
 * pointer and `size == 0`. */
#ifndef BKM_SPAN_H
#define BKM_SPAN_H

#include <stdint.h>
#include <string.h>

#include "core/prefetch.h"

typedef struct {
    const uint8_t *data;
    uint32_t size;
} bkm_span;

/* The span of a string literal; the first macro can also initialise objects with static storage. */
#define BKM_NAME_SPAN(text) {(const uint8_t *)(text), sizeof(text) - 1}
#define BKM_NAME(text) ((bkm_span)BKM_NAME_SPAN(text))

/* Compares as unsigned bytes; on a common prefix the shorter span comes first (bbolt-format, section 4). */
static inline int bkm_span_compare(bkm_span a, bkm_span b)
{
    uint32_t common = a.size < b.size ? a.size : b.size;
    int order = common ? memcmp(a.data, b.data, common) : 0;
    if (order != 0)
        return order;
    return (a.size > b.size) - (a.size < b.size);
}

/* Prefetches a span that is about to be read. Any span will do, even an absent one. */
static inline void bkm_prefetch(bkm_span span)
{
    bkm_prefetch_at(span.data);
    /* Computed as an integer, because an absent span has no end to point to. */
    bkm_prefetch_at((const void *)((uintptr_t)span.data + span.size));
}

#endif
