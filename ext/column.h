/* Memory for columns that are read and written in random order: on huge pages where the system has them,
 * because looking up a small page often costs more than the access itself. */
#ifndef BKM_COLUMN_H
#define BKM_COLUMN_H

#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Aligned to a cache line at least; for free(). NULL when out of memory. */
static inline void *bkm_column(size_t count, size_t size)
{
    enum { LINE = 64 };
    const size_t huge = (size_t)2 << 20;
    size_t alignment = count >= 2 * huge / size ? huge : LINE; /* smaller columns fit the cache of pages */

    if (count > SIZE_MAX / size - 2 * huge)
        return NULL;
    size_t bytes = (count * size + alignment) / alignment * alignment; /* one more than needed: never none */
    void *column = aligned_alloc(alignment, bytes);
#ifdef MADV_HUGEPAGE
    if (column != NULL && alignment == huge)
        (void)madvise(column, bytes, MADV_HUGEPAGE); /* a hint: all works without */
#endif
    return column;
}

#endif
