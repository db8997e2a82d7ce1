#define _DEFAULT_SOURCE /* madvise */
#include "bolt/mapping.h"

#include <sys/mman.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

/* How many pages the free list says it names; it may be wrong. */
static uint64_t named_free(const bkm_bolt *bolt)
{
    if (bolt->freelist == BKM_NO_FREELIST)
        return 0;
    const uint8_t *page = bolt->data + bolt->freelist * bolt->page_size;
    uint64_t count = bkm_load16(page + 10);
    return count == BKM_LONG_FREELIST ? bkm_load64(page + BKM_PAGE_HEADER) : count;
}

bool bkm_map_pages(bkm_bolt *bolt)
{
    enum { WINDOW = 64 << 20 };
    uint64_t size = bolt->high_water * bolt->page_size;
    if (bolt->mapped || named_free(bolt) > bolt->high_water / 2)
        return true;
    bolt->mapped = true;
    for (uint64_t at = 0; at < size; at += WINDOW) {
        if (madvise((void *)(uintptr_t)(bolt->data + at), size - at < WINDOW ? size - at : WINDOW,
                    MADV_POPULATE_READ))
            return true;
        if (bolt->go_on && !bolt->go_on(bolt->context))
            return bkm_bolt_fail(bolt, BKM_INTERRUPTED, BKM_NO_PAGE);
    }
    return true;
}
