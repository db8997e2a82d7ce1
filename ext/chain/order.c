/* Dependencies between records, and the fate of records that never get what they need. */
#include "chain/order.h"

#include <stdlib.h>

#include "core/column.h"

/* States during the search for cycles; none remains at the end. */
enum { UNREACHED = BKM_CHAIN_STATES, WALKED };

static const uint32_t NOWHERE = UINT32_MAX; /* no record */

/* Whether a record in this state is a root: it needs no parent, but its children get their ids from it. */
static bool is_root(uint8_t state)
{
    return state == BKM_CHAIN_EMPTY || state == BKM_CHAIN_GIVEN || state == BKM_CHAIN_BASE;
}

/* Records are visited in random order: prefetch distance. */
enum { AHEAD = 32 };

/* Links each record that needs its parent to it. Returns their number. */
static size_t link_children(bkm_chain_order *order, const bkm_chain_input *in, uint8_t *state)
{
    bkm_chain_link *link = order->link;
    size_t needy = 0;

    memset(link, 0xff, in->count * sizeof *link); /* NOWHERE */
    for (size_t r = in->count; r-- > 0;) { /* downwards: each is inserted before its siblings */
        if (r >= AHEAD && in->parent[r - AHEAD] >= 0)
            __builtin_prefetch(&link[in->parent[r - AHEAD]], 1);
        state[r] = bkm_chain_own_state(in, r);
        if (state[r] != BKM_CHAIN_COMPUTED)
            continue;
        needy++;
        link[r].sibling = link[in->parent[r]].first_child;
        link[in->parent[r]].first_child = (uint32_t)r;
    }
    return needy;
}

static void walk_down(bkm_chain_order *order)
{
    const bkm_chain_link *link = order->link;
    bkm_chain_step *step = order->step;

    for (size_t i = 0; i < order->reached; i++) {
        if (i + AHEAD < order->reached && step[i + AHEAD].first_child != NOWHERE)
            __builtin_prefetch(&link[step[i + AHEAD].first_child]);
        if (i + AHEAD / 2 < order->reached && step[i + AHEAD / 2].first_child != NOWHERE) {
            uint32_t second =
                link[step[i + AHEAD / 2].first_child].sibling; /* prefetched above in an earlier round */
            if (second != NOWHERE)
                __builtin_prefetch(&link[second]);
        }
        for (uint32_t child = step[i].first_child; child != NOWHERE; child = link[child].sibling)
            step[order->reached++] = (bkm_chain_step){child, {link[child].first_child}};
        step[i].end = (uint32_t)order->reached;
    }
}

/* Distinguishes the members of cycles from records below them, or below a record without a result, by
 * walking up from each record that was not reached. */
static void explain_unreached(const bkm_chain_order *order, const bkm_chain_input *in, uint8_t *state)
{
    for (size_t r = 0; r < in->count; r++)
        if (state[r] == BKM_CHAIN_COMPUTED)
            state[r] = UNREACHED;
    for (size_t i = order->roots; i < order->reached; i++)
        state[order->step[i].record] = BKM_CHAIN_COMPUTED;
    for (size_t r = 0; r < in->count; r++) {
        size_t at = r;
        while (state[at] == UNREACHED) {
            state[at] = WALKED;
            at = (size_t)in->parent[at];
        }
        while (state[at] == WALKED) { /* closed a cycle: mark it once round */
            state[at] = BKM_CHAIN_CYCLE;
            at = (size_t)in->parent[at];
        }
        for (at = r; state[at] == WALKED; at = (size_t)in->parent[at])
            state[at] = BKM_CHAIN_BLOCKED;
    }
}

bool bkm_chain_order_start(bkm_chain_order *order, size_t count)
{
    *order = (bkm_chain_order){
        .step = bkm_column(count, sizeof *order->step),
        .link = bkm_column(count, sizeof *order->link),
    };
    return order->step != NULL && order->link != NULL;
}

void bkm_chain_order_make(bkm_chain_order *order, const bkm_chain_input *input, uint8_t *state)
{
    size_t needy = link_children(order, input, state);

    for (size_t r = 0; r < input->count; r++)
        if (order->link[r].first_child != NOWHERE && is_root(state[r]))
            order->step[order->roots++] = (bkm_chain_step){(uint32_t)r, {order->link[r].first_child}};
    order->reached = order->roots;
    walk_down(order);
    free(order->link);
    order->link = NULL;
    if (order->reached - order->roots < needy)
        explain_unreached(order, input, state);
}

void bkm_chain_order_free(bkm_chain_order *order)
{
    free(order->step);
    free(order->link);
    *order = (bkm_chain_order){0};
}
