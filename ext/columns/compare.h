/* Tests on all rows of a column. Results have one byte per row, 0 or 1. */
#ifndef BKM_COMPARE_H
#define BKM_COMPARE_H

#include "core/spans.h"

void bkm_present(const bkm_spans *column, uint8_t *found);
/* The columns must have the same length. */
void bkm_equal(const bkm_spans *left, const bkm_spans *right, uint8_t *found);
void bkm_equal_to(const bkm_spans *column, bkm_span value, uint8_t *found);
void bkm_starting_with(const bkm_spans *column, bkm_span prefix, uint8_t *found);
/* The parts before and after the last separator. Both columns must be empty. False when out of memory. */
bool bkm_split_last(const bkm_spans *column, bkm_span separator, bkm_spans *before, bkm_spans *after);
/* The entries of these rows, absent if a row is negative; others must exist. False when out of memory. */
bool bkm_take(const bkm_spans *column, const int32_t *rows, size_t count, bkm_spans *taken);

#endif
