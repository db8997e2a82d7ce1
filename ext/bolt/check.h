/* Consistency check of a whole bbolt file (spec bbolt-format, sections 5, 7, 12 and 14). */
#ifndef BKM_BOLT_CHECK_H
#define BKM_BOLT_CHECK_H

#include "bolt/reader.h"

/* What a finding is about. */
typedef enum {
    BKM_IN_META,
    BKM_IN_FREELIST,   /* the list itself: the trees may be whole */
    BKM_IN_TREE,
    BKM_USED_AND_FREE, /* a page that is in use and named by the list */
    BKM_LEAKED,        /* a page that nothing names */
    BKM_PARTS
} bkm_part;

/* What was counted, with the findings that were left out. */
typedef struct {
    uint64_t findings[BKM_PARTS];
    uint64_t used;    /* pages of the trees and of the list */
    uint64_t content; /* bytes of the trees' pages that are headers, keys and values */
} bkm_counts;

/* Receives a finding. `page` is BKM_NO_PAGE if it concerns the whole file. Returning false ends the check. */
typedef bool (*bkm_report)(void *context, bkm_part part, uint64_t page, const char *text);

/* Reports everything that bbolt's own check would report, and what it misses: branch pages with one child,
 * branch keys that differ from their child's first key, uneven depth, empty leaves. Continues after a
 * finding, up to ten thousand. Returns false if `report` did, or with bolt->rule set when out of memory or
 * interrupted. */
bool bkm_check(bkm_bolt *bolt, bkm_report report, void *context, bkm_counts *counts);

#endif
