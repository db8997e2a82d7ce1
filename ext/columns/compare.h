/* Which rows of a column have what: one byte for each row, 0 or 1. */
#ifndef BKM_COMPARE_H
#define BKM_COMPARE_H

#include "core/spans.h"

void bkm_present(const bkm_spans *column, uint8_t *found);
/* Columns of equal length. */
void bkm_equal(const bkm_spans *left, const bkm_spans *right, uint8_t *found);
void bkm_equal_to(const bkm_spans *column, bkm_span value, uint8_t *found);
void bkm_starting_with(const bkm_spans *column, bkm_span prefix, uint8_t *found);
/* Parts before and after the last separator; false when out of memory. Both start empty. */
bool bkm_split_last(const bkm_spans *column, bkm_span separator, bkm_spans *before, bkm_spans *after);
/* The entries of these rows, absent where a row is negative; false when out of memory. Rows must exist. */
bool bkm_take(const bkm_spans *column, const int32_t *rows, size_t count, bkm_spans *taken);

#endif
