/* Asks for pages before they are read: most time is spent waiting for their beginnings, which are all over the
 * file. */
#ifndef BKM_BOLT_AHEAD_H
#define BKM_BOLT_AHEAD_H

#include "bolt/reader.h"

enum { BKM_AHEAD = 4 }; /* pages */

static inline void bkm_prefetch_page(const bkm_bolt *bolt, uint64_t id)
{
    enum { LINE = 64, LINES = 4 };
    if (id >= bolt->high_water)
        return;
    const uint8_t *page = bolt->data + id * bolt->page_size;
    for (int line = 0; line < LINES; line++)
        __builtin_prefetch(page + line * LINE);
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
            __builtin_prefetch(ahead + at);
}

/* The root page of a bucket on a leaf, if there is one. */
static inline void bkm_prefetch_bucket(const bkm_bolt *bolt, const bkm_page *leaf, uint32_t index)
{
    if (index >= leaf->count)
        return;
    bkm_item item = bkm_leaf_item(leaf, index);
    if (item.bucket && item.value.size == BKM_BUCKET_HEADER)
        bkm_prefetch_page(bolt, bkm_load64(item.value.data));
}

#endif
