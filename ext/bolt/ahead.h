/* Asks for pages before they are read: most time is spent waiting for their beginnings, which are all over the
 * file. */
#ifndef BKM_BOLT_AHEAD_H
#define BKM_BOLT_AHEAD_H

#include "bolt/reader.h"

enum {
    BKM_AHEAD = 6, /* buckets whose root page is asked for */
    BKM_NEAR = 3,  /* of these, the ones whose page should be here: the buckets in it are asked for, too */
};

static inline void bkm_prefetch_page(const bkm_bolt *bolt, uint64_t id)
{
    enum { LINE = 64, LINES = 4 };
    if (id >= bolt->high_water)
        return;
    const uint8_t *page = bolt->data + id * bolt->page_size;
    for (int line = 0; line < LINES; line++)
        bkm_prefetch_at(page + line * LINE);
}

/* The child of a branch page after the one at `index`; NULL if there is none. */
static inline const uint8_t *bkm_next_child(const bkm_bolt *bolt, const bkm_page *branch, uint32_t index)
{
    uint64_t id = index + 1 < branch->count ? bkm_branch_child(branch, index + 1) : BKM_NO_PAGE;
    return id < bolt->high_water ? bolt->data + id * bolt->page_size : NULL;
}

/* Asks for the part of the page `ahead` that is as far from its beginning as `item` is on its own page: asking for
 * a whole page at once would stop the processor. The first item stands for all before it, too. */
static inline void bkm_prefetch_part(const bkm_bolt *bolt, const uint8_t *ahead, const bkm_page *page, uint32_t index,
                                     bkm_item item)
{
    enum { LINE = 64 };
    size_t begin = (size_t)(item.key.data - page->data), end = begin + item.key.size + item.value.size;
    if (ahead)
        for (size_t at = index ? begin : 0; at < end && at < bolt->page_size; at += LINE)
            bkm_prefetch_at(ahead + at);
}

/* The distance from a page to another one, in bytes; 0 if there is no such page: 0 is that of a bucket without one. */
static inline uint64_t bkm_distance(const bkm_bolt *bolt, uint64_t from, uint64_t to)
{
    return to && to < bolt->high_water ? (to - from) * bolt->page_size : 0;
}

/* Asks for what is as far from its page as this item on the page at the distance `ahead`. */
static inline void bkm_prefetch_like(bkm_item item, uint64_t ahead)
{
    if (ahead)
        bkm_prefetch_at((const void *)((uintptr_t)item.key.data + ahead));
}

/* The root pages of the buckets on a page, which may not have been checked yet. */
static inline void bkm_prefetch_nested(const bkm_bolt *bolt, uint64_t id)
{
    enum { MOST = 16 };
    if (id < 2 || id >= bolt->high_water)
        return;
    const uint8_t *page = bolt->data + id * bolt->page_size;
    uint32_t count = bkm_load16(page + 8) == BKM_PAGE_LEAF ? bkm_load16(page + 10) : 0;
    for (uint32_t i = 0; i < count && i < MOST; i++) {
        const uint64_t at = BKM_PAGE_HEADER + i * BKM_LEAF_ELEMENT;
        if (bkm_load32(page + at) != BKM_ELEMENT_BUCKET || bkm_load32(page + at + 12) != BKM_BUCKET_HEADER)
            continue;
        uint64_t value = at + bkm_load32(page + at + 4) + bkm_load32(page + at + 8);
        if (value + BKM_BUCKET_HEADER <= bolt->page_size)
            bkm_prefetch_page(bolt, bkm_load64(page + value));
    }
}

/* Number of the root page of a bucket on a checked leaf, 0 if it has none. */
static inline uint64_t bkm_root_page(const bkm_page *leaf, uint32_t index)
{
    if (index >= leaf->count)
        return 0;
    bkm_item item = bkm_leaf_item(leaf, index);
    return item.bucket && item.value.size == BKM_BUCKET_HEADER ? bkm_load64(item.value.data) : 0;
}

/* What a walk that is at `index` of a checked leaf reads next, below that leaf. */
static inline void bkm_prefetch_bucket(const bkm_bolt *bolt, const bkm_page *leaf, uint32_t index)
{
    uint64_t far = bkm_root_page(leaf, index + BKM_AHEAD), near = bkm_root_page(leaf, index + BKM_NEAR);
    if (far)
        bkm_prefetch_page(bolt, far);
    if (near)
        bkm_prefetch_nested(bolt, near);
}

#endif
