/* The order in which chain ids are computed. */
#ifndef BKM_CHAIN_ORDER_H
#define BKM_CHAIN_ORDER_H

#include "chain/chain.h"

/* A place in the order. Its children follow those of the previous place, and end before place `end`. */
typedef struct {
    uint32_t record;
    union {
        uint32_t first_child; /* a record; only while the order is being made */
        uint32_t end;
    };
} bkm_chain_step;

typedef struct {
    uint32_t first_child, sibling; /* records */
} bkm_chain_link;

/* Records that have a parent or children, parents before children and siblings side by side: first the
 * roots (which need no parent) in record order, then their children, then the children of those. */
typedef struct {
    bkm_chain_step *step;
    bkm_chain_link *link; /* of each record; only while the order is being made */
    size_t roots, reached;
} bkm_chain_order;

/* Allocates an order of `count` records. False when out of memory. */
bool bkm_chain_order_start(bkm_chain_order *order, size_t count);

/* Sets all states and fills `order`. */
void bkm_chain_order_make(bkm_chain_order *order, const bkm_chain_input *input, uint8_t *state);
void bkm_chain_order_free(bkm_chain_order *order);

static inline bool bkm_chain_absent(bkm_span span)
{
    return span.data == NULL || span.size == 0;
}

/* The state that follows from a record's own columns. COMPUTED is only final if the parent has a result. */
static inline bkm_chain_state bkm_chain_own_state(const bkm_chain_input *in, size_t r)
{
    if (in->skip != NULL && in->skip[r])
        return BKM_CHAIN_SKIPPED;
    if (bkm_chain_absent(in->diff_id[r]) || bkm_chain_absent(in->blob[r]))
        return BKM_CHAIN_EMPTY;
    if (in->given_chain != NULL && !bkm_chain_absent(in->given_chain[r]) &&
        !bkm_chain_absent(in->given_blob_chain[r]))
        return BKM_CHAIN_GIVEN;
    if (in->parent[r] == BKM_CHAIN_NONE)
        return BKM_CHAIN_BASE;
    return in->parent[r] == BKM_CHAIN_MISSING ? BKM_CHAIN_NO_PARENT : BKM_CHAIN_COMPUTED;
}

static inline size_t bkm_chain_first_child(const bkm_chain_order *order, size_t place)
{
    return place == 0 ? order->roots : order->step[place - 1].end;
}

#endif
