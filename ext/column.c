#define _DEFAULT_SOURCE /* madvise */

#include "column.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

void *bkm_column(size_t count, size_t size)
{
    enum { LINE = 64 };
    const size_t huge = (size_t)2 << 20;
    const size_t alignment = count >= 2 * huge / size ? huge : LINE; /* little needs few pages anyway */

    if (count > SIZE_MAX / size - 2 * huge)
        return NULL;
    size_t bytes = (count * size + alignment) / alignment * alignment; /* never none */
    void *column = aligned_alloc(alignment, bytes);
#ifdef MADV_HUGEPAGE
    if (column != NULL && alignment == huge)
        (void)madvise(column, bytes, MADV_HUGEPAGE); /* a hint: all works without */
#endif
    return column;
}
