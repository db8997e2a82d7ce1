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
