/* Columns of spans, packed into eight bytes each. Most lie in one file; a few may lie elsewhere. */
#ifndef BKM_SPANS_H
#define BKM_SPANS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/span.h"

typedef struct bkm_memory bkm_memory;

typedef struct {
    const uint8_t *base;
    uint64_t *packed;    /* high bits: size; low bits: distance from base; see BKM_ABSENT, BKM_ELSEWHERE */
    size_t count, capacity;
    bkm_span *elsewhere; /* spans that are too long, or too far from base */
    size_t elsewhere_count, elsewhere_capacity;
    bkm_memory *blocks;   /* bytes that the column owns */
} bkm_spans;

enum { BKM_DISTANCE_BITS = 40 };
#define BKM_DISTANCE (((uint64_t)1 << BKM_DISTANCE_BITS) - 1)
#define BKM_ELSEWHERE ((uint64_t)0xFFFFFF) /* instead of a size: the distance is an index into `elsewhere` */
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

/* Prefetches the bytes of an entry that a loop will need later. */
static inline void bkm_spans_prefetch(const bkm_spans *spans, size_t at)
{
    if (at < spans->count)
        bkm_prefetch(bkm_spans_get(spans, at));
}

/* These return false when out of memory, and then change nothing. */
bool bkm_spans_add(bkm_spans *spans, bkm_span span);
/* Puts a number into the next place, to be read from `packed`. */
bool bkm_spans_add_number(bkm_spans *spans, uint64_t number);
bool bkm_spans_set(bkm_spans *spans, size_t at, bkm_span span);
/* Fills the column with `count` absent entries. */
bool bkm_spans_fill(bkm_spans *spans, size_t count, const uint8_t *base);
/* Takes over an array from malloc() and packs it. The array is gone even on failure. */
bool bkm_spans_adopt(bkm_spans *spans, bkm_span *array, size_t count, const uint8_t *base);
/* Allocates bytes that live as long as the column; NULL when out of memory. Unused bytes may be given back right
 * away. */
uint8_t *bkm_spans_room(bkm_spans *spans, size_t size);
void bkm_spans_give_back(bkm_spans *spans, size_t size);
void bkm_spans_free(bkm_spans *spans);

#endif
