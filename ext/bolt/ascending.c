#include "bolt/ascending.h"

#include <stdlib.h>

/* A longest ascending subsequence: ends[n] is the key with which one of n + 1 keys can end earliest, and
 * before[i] the key that precedes key i there. */
bool bkm_keep_ascending(bkm_span *keys, uint32_t count)
{
    const uint32_t nothing = UINT32_MAX;
    uint32_t *ends = malloc(2 * ((size_t)count + 1) * sizeof *ends), *before = ends + count + 1, length = 0;
    if (!ends)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        if (!keys[i].data)
            continue;
        uint32_t low = 0, high = length;
        if (length && bkm_span_compare(keys[ends[length - 1]], keys[i]) < 0)
            low = length; /* nearly always */
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            if (bkm_span_compare(keys[ends[middle]], keys[i]) < 0)
                low = middle + 1;
            else
                high = middle;
        }
        before[i] = low ? ends[low - 1] : nothing;
        ends[low] = i;
        if (low == length)
            length++;
    }
    uint32_t kept = length ? ends[length - 1] : nothing;
    for (uint32_t i = count; i-- > 0;) {
        if (i == kept)
            kept = before[i];
        else
            keys[i] = (bkm_span){NULL, 0};
    }
    free(ends);
    return true;
}
