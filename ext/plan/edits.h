/* A plan as two streams of edits (see bolt/rewrite.h), produced in chunks. */
#ifndef BKM_PLAN_EDITS_H
#define BKM_PLAN_EDITS_H

#include "bolt/operations.h"
#include "plan/plan.h"

/* Writes the puts of a kept record's metadata keys, without entering its bucket. */
void bkm_write_puts(bkm_operations *out, const bkm_plan *plan, size_t record);

typedef struct bkm_store_edits bkm_store_edits;
typedef struct bkm_containerd_edits bkm_containerd_edits;

/* Edits of the root bucket of the v1 store `source` that turn it into a v2 store. NULL on failure;
 * source->rule is BKM_OK when out of memory. */
bkm_store_edits *bkm_store_edits_new(const bkm_plan *plan, bkm_bolt *source);
/* Replaces the content of `out` with the next chunk of whole operations; size 0 at the end. */
void bkm_store_edits_fill(bkm_store_edits *edits, bkm_operations *out);
void bkm_store_edits_free(bkm_store_edits *edits);

/* Edits of the root bucket of containerd's database. All spans must stay valid. `created`: the time in
 * binary form; `flat`: the time as text. NULL when out of memory. */
typedef struct {
    bkm_span name_space, snapshotter;
    bkm_span created, flat;
} bkm_containerd_terms;

bkm_containerd_edits *bkm_containerd_edits_new(const bkm_plan *plan, bkm_containerd_terms terms);
void bkm_containerd_edits_fill(bkm_containerd_edits *edits, bkm_operations *out);
void bkm_containerd_edits_free(bkm_containerd_edits *edits);

#endif
