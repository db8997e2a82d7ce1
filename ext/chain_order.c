/* Which records need which, and what becomes of those that never get what they need. */
#include "chain_order.h"

#include <stdlib.h>

#include "column.h"

/* States while the order is made; none is left at the end. */
enum { UNREACHED = BKM_CHAIN_STATES, WALKED };

static bool absent(bkm_span span)
{
    return span.data == NULL || span.size == 0;
}

static uint8_t first_state(const bkm_chain_input *in, size_t r)
{
    if (in->skip != NULL && in->skip[r])
        return BKM_CHAIN_SKIPPED;
    if (absent(in->diff_id[r]) || absent(in->blob[r]))
        return BKM_CHAIN_EMPTY;
    if (in->given_chain != NULL && !absent(in->given_chain[r]) && !absent(in->given_blob_chain[r]))
        return BKM_CHAIN_GIVEN;
    if (in->parent[r] == BKM_CHAIN_NONE)
        return BKM_CHAIN_BASE;
    return in->parent[r] == BKM_CHAIN_MISSING ? BKM_CHAIN_NO_PARENT : UNREACHED;
}

/* Whether children of a record in this state get their ids from it. */
static bool gives_ids(uint8_t state)
{
    return state == BKM_CHAIN_EMPTY || state == BKM_CHAIN_GIVEN || state == BKM_CHAIN_BASE;
}

/* Records come at random: the distance at which one is fetched before its turn. */
enum { AHEAD = 16 };

static void link_children(bkm_chain_order *order, const bkm_chain_input *in, const uint8_t *state)
{
    bkm_chain_link *link = order->link;

    for (size_t r = in->count; r-- > 0;) { /* downwards: each becomes the first of its siblings */
        if (r >= AHEAD && in->parent[r - AHEAD] >= 0)
            __builtin_prefetch(&link[in->parent[r - AHEAD]], 1);
        if (state[r] != UNREACHED)
            continue;
        link[r].place = link[in->parent[r]].first_child;
        link[in->parent[r]].first_child = (uint32_t)r;
    }
}

static void walk_down(bkm_chain_order *order, uint8_t *state)
{
    bkm_chain_link *link = order->link;
    bkm_chain_step *step = order->step;

    for (size_t i = 0; i < order->reached; i++) {
        if (i + AHEAD < order->reached && step[i + AHEAD].first_child != BKM_CHAIN_NOWHERE)
            __builtin_prefetch(&link[step[i + AHEAD].first_child], 1);
        uint32_t child = step[i].first_child;
        while (child != BKM_CHAIN_NOWHERE) {
            uint32_t sibling = link[child].place;
            state[child] = BKM_CHAIN_COMPUTED;
            link[child].place = (uint32_t)order->reached;
            step[order->reached++] = (bkm_chain_step){child, {link[child].first_child}};
            child = sibling;
        }
        step[i].end = (uint32_t)order->reached;
    }
}

/* Tells the members of cycles from what hangs below them or below a record without result, by walking up
 * from each record that was not reached. */
static void find_cycles(const bkm_chain_input *in, uint8_t *state)
{
    for (size_t r = 0; r < in->count; r++) {
        size_t at = r;
        while (state[at] == UNREACHED) {
            state[at] = WALKED;
            at = (size_t)in->parent[at];
        }
        while (state[at] == WALKED) { /* met itself: once round */
            state[at] = BKM_CHAIN_CYCLE;
            at = (size_t)in->parent[at];
        }
        for (at = r; state[at] == WALKED; at = (size_t)in->parent[at])
            state[at] = BKM_CHAIN_BLOCKED;
    }
}

bool bkm_chain_order_make(bkm_chain_order *order, const bkm_chain_input *input, uint8_t *state)
{
    size_t needy = 0; /* records that need a parent */

    order->roots = 0;
    order->step = bkm_column(input->count, sizeof *order->step);
    order->link = bkm_column(input->count, sizeof *order->link);
    if (order->step == NULL || order->link == NULL) {
        bkm_chain_order_free(order);
        return false;
    }
    for (size_t r = 0; r < input->count; r++) {
        state[r] = first_state(input, r);
        needy += state[r] == UNREACHED;
        order->link[r] = (bkm_chain_link){BKM_CHAIN_NOWHERE, BKM_CHAIN_NOWHERE};
    }
    link_children(order, input, state);
    for (size_t r = 0; r < input->count; r++) {
        bkm_chain_link *link = &order->link[r];
        if (link->first_child == BKM_CHAIN_NOWHERE || !gives_ids(state[r]))
            continue;
        link->place = (uint32_t)order->roots;
        order->step[order->roots++] = (bkm_chain_step){(uint32_t)r, {link->first_child}};
    }
    order->reached = order->roots;
    walk_down(order, state);
    if (order->reached - order->roots < needy)
        find_cycles(input, state);
    return true;
}

void bkm_chain_order_free(bkm_chain_order *order)
{
    free(order->step);
    free(order->link);
    order->step = NULL;
    order->link = NULL;
}
