/* A plan as two streams of edits (their form is in bolt/rewrite.h), made piece by piece. */
#ifndef BKM_PLAN_EDITS_H
#define BKM_PLAN_EDITS_H

#include "bolt/operations.h"
#include "plan/plan.h"

/* The puts of a kept record's metadata keys, without its bucket. */
void bkm_write_puts(bkm_operations *out, const bkm_plan *plan, size_t record);

typedef struct bkm_store_edits bkm_store_edits;
typedef struct bkm_containerd_edits bkm_containerd_edits;

/* Edits of the root bucket of a v1 store, `source`, that make it a v2 store. NULL on failure; with
 * source->rule == BKM_OK when out of memory. */
bkm_store_edits *bkm_store_edits_new(const bkm_plan *plan, bkm_bolt *source);
/* Replaces what is in `out` by the next chunk of whole operations; size 0: no more. */
void bkm_store_edits_fill(bkm_store_edits *edits, bkm_operations *out);
void bkm_store_edits_free(bkm_store_edits *edits);

/* Edits of the root bucket of containerd's database. All spans must stay. `created`: the time as stored;
 * `flat`: the time as text. NULL when out of memory. */
typedef struct {
    bkm_span name_space, snapshotter;
    bkm_span created, flat;
} bkm_containerd_terms;

bkm_containerd_edits *bkm_containerd_edits_new(const bkm_plan *plan, bkm_containerd_terms terms);
void bkm_containerd_edits_fill(bkm_containerd_edits *edits, bkm_operations *out);
void bkm_containerd_edits_free(bkm_containerd_edits *edits);

#endif
