/* Whether two files hold the same, or one what edits make of the other, however their pages are laid out. */
#ifndef BKM_BOLT_COMPARE_H
#define BKM_BOLT_COMPARE_H

#include "bolt/reader.h"
#include "bolt/stream.h"

typedef enum {
    BKM_SAME = 0,
    BKM_DIFFERENT,
    BKM_LEFT_UNREADABLE,  /* see its rule */
    BKM_RIGHT_UNREADABLE,
    BKM_MALFORMED_EDITS,  /* or they put a value where a bucket is, or vice versa */
} bkm_comparison;

/* Compares all buckets, keys, values and sequences, in one walk through both. Stops at a difference. `edits`: a
 * whole stream; `right` is compared with what these make of `left`. */
bkm_comparison bkm_compare(bkm_bolt *left, bkm_bolt *right, bkm_span edits);

#endif
