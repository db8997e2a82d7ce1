/* Which records need which, in what order, and the hashing in that order. */
#include "chain.h"

#include <stdlib.h>

/* States while the order is made; none is left when bkm_chain_run returns. */
enum { UNREACHED = BKM_CHAIN_STATES, WALKED };

/* One place in the order. The parent is repeated here, so that the columns need not be asked. */
typedef struct {
    uint32_t record;
    uint32_t parent; /* NOTHING: there is nothing to chain, as the record is a root or blocked */
} chain_step;

#define NOTHING UINT32_MAX

/* Records in an order in which parents come before children and siblings side by side: the roots (which
 * need no parent) first, then the children of each record, in the order of the records. */
typedef struct {
    chain_step *step;
    size_t roots, reached; /* records that are neither are in or below a cycle */
} chain_order;

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

static uint8_t child_state(uint8_t parent)
{
    switch (parent) {
    case BKM_CHAIN_NO_PARENT:
    case BKM_CHAIN_BLOCKED:
    case BKM_CHAIN_SKIPPED:
        return BKM_CHAIN_BLOCKED;
    default:
        return BKM_CHAIN_COMPUTED;
    }
}

/* Sets all states but those of records in or below a cycle, and fills `order`. False: out of memory. */
static bool reach(const bkm_chain_input *in, uint8_t *state, chain_order *order)
{
    /* A counting sort by parent: the children of p are child[start[p]] up to child[start[p + 1]]. While
     * they are filled in, start[p + 1] is where the next child of p goes, hence the second extra place. */
    uint32_t *start = calloc(in->count + 2, sizeof *start);
    uint32_t *child = malloc((in->count + 1) * sizeof *child);
    bool enough = start != NULL && child != NULL;

    if (!enough)
        goto done;
    for (size_t r = 0; r < in->count; r++) {
        state[r] = first_state(in, r);
        if (state[r] == UNREACHED)
            start[in->parent[r] + 2]++;
        else
            order->step[order->roots++] = (chain_step){(uint32_t)r, NOTHING};
    }
    for (size_t p = 2; p < in->count + 2; p++)
        start[p] += start[p - 1];
    for (size_t r = 0; r < in->count; r++)
        if (state[r] == UNREACHED)
            child[start[in->parent[r] + 1]++] = (uint32_t)r;

    order->reached = order->roots;
    for (size_t i = 0; i < order->reached; i++) {
        uint32_t parent = order->step[i].record;
        uint8_t children = child_state(state[parent]);
        uint32_t needed = children == BKM_CHAIN_COMPUTED ? parent : NOTHING;
        for (uint32_t c = start[parent]; c < start[parent + 1]; c++) {
            state[child[c]] = children;
            order->step[order->reached++] = (chain_step){child[c], needed};
        }
    }
done:
    free(start);
    free(child);
    return enough;
}

/* Tells the members of cycles from what hangs below them, by walking up from each record. */
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

/* Records lie anywhere in the columns, and their ids anywhere in memory. The caches are told of a record twice
 * before its turn: of what its index leads to, then of what that leads to. */
enum { FAR = 32, NEAR = 16 };

static void prefetch_id(bkm_span id) /* which may lie across two cache lines */
{
    __builtin_prefetch(id.data);
    __builtin_prefetch((const void *)((uintptr_t)id.data + id.size)); /* an absent one has no end to point at */
}

static void prefetch_far(const bkm_chain_input *in, const bkm_chain_output *out, chain_step step)
{
    __builtin_prefetch(&in->diff_id[step.record]);
    __builtin_prefetch(&out->ids[step.record], 1);
}

static void prefetch_near(const bkm_chain_input *in, const bkm_chain_output *out, chain_step step)
{
    prefetch_id(in->diff_id[step.record]);
    if (step.parent != NOTHING)
        __builtin_prefetch(&out->ids[step.parent]);
}

/* H(blob + " " + diffID), which needs no parent, into the place of its blobChainID. */
static void hash_blobs(const bkm_chain_input *in, const bkm_chain_output *out, bkm_chain_hash *batch)
{
    for (size_t r = 0; r < in->count; r++) {
        if (r + NEAR < in->count) {
            prefetch_id(in->blob[r + NEAR]);
            prefetch_id(in->diff_id[r + NEAR]);
        }
        if (out->state[r] != BKM_CHAIN_BASE && out->state[r] != BKM_CHAIN_COMPUTED)
            continue;
        if (!bkm_chain_hash_fits(batch, 1))
            bkm_chain_hash_flush(batch);
        size_t prefix = bkm_chain_hash_prefix(batch, in->blob[r]);
        bkm_chain_hash_text(batch, prefix, in->diff_id[r], out->ids[r].blob_chain);
    }
    bkm_chain_hash_flush(batch);
}

/* The parts of the ids, chained to those of the parents. A batch ends before the first record whose parent
 * is in it; parents come in the order of their children, so one cursor finds them. */
static void hash_chains(const bkm_chain_input *in, const bkm_chain_output *out, const chain_order *order,
                        bkm_chain_hash *batch)
{
    size_t parent_at = 0, batch_at = order->roots;
    size_t chain = 0, blob_chain = 0; /* prefixes of the parent at the cursor */
    bool have_prefixes = false;

    for (size_t i = order->roots; i < order->reached; i++) {
        if (i + FAR < order->reached)
            prefetch_far(in, out, order->step[i + FAR]);
        if (i + NEAR < order->reached)
            prefetch_near(in, out, order->step[i + NEAR]);

        uint32_t r = order->step[i].record, parent = order->step[i].parent;
        if (parent == NOTHING)
            continue;
        while (order->step[parent_at].record != parent) {
            parent_at++;
            have_prefixes = false;
        }
        if (parent_at >= batch_at || !bkm_chain_hash_fits(batch, 2)) {
            bkm_chain_hash_flush(batch);
            batch_at = i;
            have_prefixes = false;
        }
        if (!have_prefixes) {
            uint8_t unused[BKM_ID_SIZE];
            if (out->state[parent] == BKM_CHAIN_COMPUTED)
                chain = bkm_chain_hash_prefix_id(batch, out->ids[parent].chain);
            else /* text of the caller's */
                chain = bkm_chain_hash_prefix(batch, bkm_chain_id(in, out, parent, unused));
            if (out->state[parent] == BKM_CHAIN_COMPUTED || out->state[parent] == BKM_CHAIN_BASE)
                blob_chain = bkm_chain_hash_prefix_id(batch, out->ids[parent].blob_chain);
            else
                blob_chain = bkm_chain_hash_prefix(batch, bkm_blob_chain_id(in, out, parent, unused));
            have_prefixes = true;
        }
        bkm_chain_hash_text(batch, chain, in->diff_id[r], out->ids[r].chain);
        bkm_chain_hash_text_id(batch, blob_chain, out->ids[r].blob_chain, out->ids[r].blob_chain);
    }
    bkm_chain_hash_flush(batch);
}

static bool sound(const bkm_chain_input *in)
{
    if (in->count > INT32_MAX)
        return false;
    for (size_t r = 0; r < in->count; r++)
        if (in->parent[r] < BKM_CHAIN_MISSING || in->parent[r] >= (int32_t)in->count)
            return false;
    return true;
}

bkm_chain_status bkm_chain_run(const bkm_chain_input *input, const bkm_chain_output *output,
                               const bkm_sha256_kernel *kernel)
{
    chain_order order = {0};
    bkm_chain_hash batch;

    if (!sound(input))
        return BKM_CHAIN_BAD_INPUT;
    order.step = malloc((input->count + 1) * sizeof *order.step);
    if (order.step == NULL || !reach(input, output->state, &order)) {
        free(order.step);
        return BKM_CHAIN_NO_MEMORY;
    }
    if (order.reached < input->count)
        find_cycles(input, output->state);
    bkm_chain_hash_start(&batch, kernel);
    hash_blobs(input, output, &batch);
    hash_chains(input, output, &order, &batch);
    free(order.step);
    return BKM_CHAIN_OK;
}

static bkm_span spelled(const uint8_t digest[BKM_SHA256_DIGEST], uint8_t space[BKM_ID_SIZE])
{
    bkm_id_spell(space, digest);
    return (bkm_span){space, BKM_ID_SIZE};
}

bkm_span bkm_chain_id(const bkm_chain_input *input, const bkm_chain_output *output, size_t record,
                      uint8_t space[BKM_ID_SIZE])
{
    switch (output->state[record]) {
    case BKM_CHAIN_GIVEN:
        return input->given_chain[record];
    case BKM_CHAIN_BASE:
        return input->diff_id[record];
    case BKM_CHAIN_COMPUTED:
        return spelled(output->ids[record].chain, space);
    default:
        return (bkm_span){NULL, 0};
    }
}

bkm_span bkm_blob_chain_id(const bkm_chain_input *input, const bkm_chain_output *output, size_t record,
                           uint8_t space[BKM_ID_SIZE])
{
    switch (output->state[record]) {
    case BKM_CHAIN_GIVEN:
        return input->given_blob_chain[record];
    case BKM_CHAIN_BASE:
    case BKM_CHAIN_COMPUTED:
        return spelled(output->ids[record].blob_chain, space);
    default:
        return (bkm_span){NULL, 0};
    }
}
