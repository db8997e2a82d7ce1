/* Which keys of a page are out of order. */
#ifndef BKM_BOLT_ASCENDING_H
#define BKM_BOLT_ASCENDING_H

#include <stdbool.h>

#include "core/span.h"

/* Removes (data = NULL) as few keys as possible so that the others ascend strictly; absent ones are skipped.
 * False when out of memory. */
bool bkm_keep_ascending(bkm_span *keys, uint32_t count);

#endif
