/* Columns of spans in eight bytes each: those that lie in one file, and a few that lie elsewhere. */
#ifndef BKM_SPANS_H
#define BKM_SPANS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/span.h"

typedef struct bkm_memory bkm_memory;

typedef struct {
    const uint8_t *base;
    uint64_t *packed;    /* size above, distance from base below; see BKM_ABSENT and BKM_ELSEWHERE */
    size_t count, capacity;
    bkm_span *elsewhere; /* too long or too far from base */
    size_t elsewhere_count, elsewhere_capacity;
    bkm_memory *blocks;   /* bytes that the column owns */
} bkm_spans;

enum { BKM_DISTANCE_BITS = 40 };
#define BKM_DISTANCE (((uint64_t)1 << BKM_DISTANCE_BITS) - 1)
#define BKM_ELSEWHERE ((uint64_t)0xFFFFFF) /* in the place of a size: the distance is an index then */
#define BKM_ABSENT UINT64_MAX

static inline bkm_span bkm_spans_get(const bkm_spans *spans, size_t at)
{
    uint64_t packed = spans->packed[at], size = packed >> BKM_DISTANCE_BITS;
    if (size == BKM_ELSEWHERE)
        return packed == BKM_ABSENT ? (bkm_span){NULL, 0} : spans->elsewhere[packed & BKM_DISTANCE];
    return (bkm_span){spans->base + (packed & BKM_DISTANCE), (uint32_t)size};
}

static inline bool bkm_spans_has(const bkm_spans *spans, size_t at)
{
    return spans->packed[at] != BKM_ABSENT;
}

/* In a loop: asks for the bytes of an entry that comes later. */
static inline void bkm_spans_prefetch(const bkm_spans *spans, size_t at)
{
    if (at < spans->count)
        bkm_prefetch(bkm_spans_get(spans, at));
}

/* These are false when out of memory, and nothing has changed. */
bool bkm_spans_add(bkm_spans *spans, bkm_span span);
bool bkm_spans_set(bkm_spans *spans, size_t at, bkm_span span);
/* `count` absent entries. */
bool bkm_spans_fill(bkm_spans *spans, size_t count, const uint8_t *base);
/* Takes over an array from malloc(), and makes it smaller; on failure, too, it is gone. */
bool bkm_spans_adopt(bkm_spans *spans, bkm_span *array, size_t count, const uint8_t *base);
/* Room for bytes that live as long as the column; NULL when out of memory. What is not used may be given back
 * right away. */
uint8_t *bkm_spans_room(bkm_spans *spans, size_t size);
void bkm_spans_give_back(bkm_spans *spans, size_t size);
void bkm_spans_free(bkm_spans *spans);

#endif
