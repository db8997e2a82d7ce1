/* Which records need which, and what becomes of those that never get what they need. */
#include "chain_order.h"

#include "column.h"

/* States while the order is made; none is left at the end. */
enum { UNREACHED = BKM_CHAIN_STATES, WALKED };

/* Children of a record as a list through their siblings, in the order of the records. */
typedef struct {
    uint32_t first_child, sibling;
} links;

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

/* The distance at which a list's head is fetched before its turn. */
enum { AHEAD = 16 };

static void walk_down(bkm_chain_order *order, const links *of, uint8_t *state)
{
    for (size_t i = 0; i < order->reached; i++) {
        if (i + AHEAD < order->reached && order->step[i + AHEAD].first_child != BKM_CHAIN_NOWHERE)
            __builtin_prefetch(&of[order->step[i + AHEAD].first_child]);
        uint32_t child = order->step[i].first_child;
        while (child != BKM_CHAIN_NOWHERE) {
            state[child] = BKM_CHAIN_COMPUTED;
            order->place[child] = (uint32_t)order->reached;
            order->step[order->reached++] = (bkm_chain_step){child, {of[child].first_child}};
            child = of[child].sibling;
        }
        order->step[i].end = (uint32_t)order->reached;
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
    size_t unreached = 0;
    links *of = bkm_column(input->count, sizeof *of);

    order->roots = 0;
    order->step = bkm_column(input->count, sizeof *order->step);
    order->place = bkm_column(input->count, sizeof *order->place);
    if (of == NULL || order->step == NULL || order->place == NULL) {
        free(of);
        bkm_chain_order_free(order);
        return false;
    }
    for (size_t r = 0; r < input->count; r++) {
        state[r] = first_state(input, r);
        of[r].first_child = BKM_CHAIN_NOWHERE;
        order->place[r] = BKM_CHAIN_NOWHERE;
    }
    for (size_t r = input->count; r-- > 0;) { /* downwards: each becomes the first of its siblings */
        if (state[r] != UNREACHED)
            continue;
        unreached++;
        of[r].sibling = of[input->parent[r]].first_child;
        of[input->parent[r]].first_child = (uint32_t)r;
    }
    for (size_t r = 0; r < input->count; r++) {
        if (of[r].first_child == BKM_CHAIN_NOWHERE || !gives_ids(state[r]))
            continue;
        order->place[r] = (uint32_t)order->roots;
        order->step[order->roots++] = (bkm_chain_step){(uint32_t)r, {of[r].first_child}};
    }
    order->reached = order->roots;
    walk_down(order, of, state);
    free(of);
    if (order->reached - order->roots < unreached)
        find_cycles(input, state);
    return true;
}

void bkm_chain_order_free(bkm_chain_order *order)
{
    free(order->step);
    free(order->place);
    order->step = NULL;
    order->place = NULL;
}
