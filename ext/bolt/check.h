/* Consistency check of a whole bbolt file (spec bbolt-format, sections 5, 7, 12 and 14). */
#ifndef BKM_BOLT_CHECK_H
#define BKM_BOLT_CHECK_H

#include "bolt/reader.h"

/* Takes one finding. `page` is BKM_NO_PAGE if it is about the file. False ends the check. */
typedef bool (*bkm_report)(void *context, uint64_t page, const char *text);

/* Reports everything that bbolt's own check would, and what it misses: branch pages with one child, branch
 * keys that differ from their child's first key, uneven depth, empty leaves. Goes on after a finding, up to
 * ten thousand of them. False when `report` says so, else with bolt->rule set: out of memory or interrupted. */
bool bkm_check(bkm_bolt *bolt, bkm_report report, void *context);

#endif
