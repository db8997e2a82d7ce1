/* Recognizes what nearly all JSON values in cache.db are, so that only the rest must be decoded
 * (spec buildkit-v2-stores, section 5). */
#ifndef BKM_SOLVER_H
#define BKM_SOLVER_H

#include "core/spans.h"

/* Rows with {"CreatedAt":"<time>","ID":"<id>"}; the columns are of the same length. */
void bkm_plain_results(const bkm_spans *values, const bkm_spans *ids, uint8_t *found);
/* Rows with some of {"Input":1,"Output":2,"Digest":"...","Selector":"..."}, in this order. */
void bkm_plain_links(const bkm_spans *texts, uint8_t *found);

#endif
