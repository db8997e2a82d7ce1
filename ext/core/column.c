#define _DEFAULT_SOURCE /* madvise */

#include "core/column.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { LINE = 64 };
#define HUGE_PAGE ((size_t)2 << 20)

static bool is_large(size_t bytes)
{
    return bytes >= 2 * HUGE_PAGE; /* small columns need few pages anyway */
}

static void ask_for_huge_pages(void *column, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    uintptr_t start = (uintptr_t)column, skip = -start & (HUGE_PAGE - 1);
    (void)madvise((uint8_t *)column + skip, (bytes - skip) & -HUGE_PAGE, MADV_HUGEPAGE); /* a hint */
#endif
}

void *bkm_column(size_t count, size_t size)
{
    if (count > SIZE_MAX / size - 2 * HUGE_PAGE)
        return NULL;
    size_t alignment = is_large(count * size) ? HUGE_PAGE : LINE;
    size_t bytes = (count * size + alignment) / alignment * alignment; /* never zero */
    void *column = aligned_alloc(alignment, bytes);
    if (column != NULL && alignment == HUGE_PAGE)
        ask_for_huge_pages(column, bytes);
    return column;
}

void *bkm_column_resize(void *column, size_t count, size_t size)
{
    if (count > SIZE_MAX / size)
        return NULL;
    void *resized = realloc(column, count * size);
    if (resized != NULL && is_large(count * size))
        ask_for_huge_pages(resized, count * size);
    return resized;
}

void bkm_column_give_back(void)
{
#ifdef M_MMAP_THRESHOLD
    enum { LARGE = 1 << 19 };
    (void)mallopt(M_MMAP_THRESHOLD, LARGE); /* once it is set glibc does not raise it */
#endif
}
