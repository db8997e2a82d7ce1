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
    /* Asked for one page, the system maps those of its block, too, if they are in memory; it takes twice as long to
     * ask for each of them. */
    enum { PAGE = 4096, BLOCK = 64 << 10, WINDOW = 64 << 20 };
    if (bolt->mapped || named_free(bolt) > bolt->high_water / 2)
        return true;
    bolt->mapped = true;
    uintptr_t start = (uintptr_t)bolt->data, end = start + bolt->high_water * bolt->page_size;
    for (uintptr_t at = start; at < end; at = (at + BLOCK) & -(uintptr_t)BLOCK) {
        if (madvise((void *)at, PAGE, MADV_POPULATE_READ))
            return true;
        if (at % WINDOW == 0 && bolt->go_on && !bolt->go_on(bolt->context))
            return bkm_bolt_fail(bolt, BKM_INTERRUPTED, BKM_NO_PAGE);
    }
    return true;
}
