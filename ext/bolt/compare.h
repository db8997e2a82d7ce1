/* Whether two files hold the same, however their pages are laid out. */
#ifndef BKM_BOLT_COMPARE_H
#define BKM_BOLT_COMPARE_H

#include "bolt/reader.h"

typedef enum {
    BKM_SAME = 0,
    BKM_DIFFERENT,
    BKM_LEFT_UNREADABLE,  /* see its rule */
    BKM_RIGHT_UNREADABLE,
} bkm_comparison;

/* Compares all buckets, keys, values and sequences, in one walk through both. Stops at a difference. */
bkm_comparison bkm_compare(bkm_bolt *left, bkm_bolt *right);

#endif
