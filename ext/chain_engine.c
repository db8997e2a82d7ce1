/* The hashing of all chain ids, in two passes on one or more threads.
 *
 * A record's inputs may lie anywhere, and so may its parent. The first pass takes the records as they come,
 * which the caches like, hashes what needs no parent, and leaves all that the second pass needs in a table in
 * the order of the chain. The second pass reads and writes that table from one end to the other. */
#include "chain.h"

#include <pthread.h>
#include <stdatomic.h>

#include "chain_order.h"
#include "column.h"
#include "hex.h"

/* What a place in the order holds: the digests of (diffID, H(blob + " " + diffID)) after the first pass, and
 * of (chainID, blobChainID) after the second. For a root with diffID and blob these are the same. */
typedef bkm_chain_ids entry;

typedef struct {
    const bkm_chain_input *in;
    const bkm_chain_output *out;
    const bkm_sha256_kernel *kernel;
    bkm_chain_order order;
    entry *entries;
    uint8_t *odd; /* non-zero: a text of the record that the entry should hold is no id; see the columns */
} engine;

/* Records ahead of their turn at which the caches are told of places in random order. */
enum { AHEAD = 32 };

/* ---- first pass: by record ---- */

typedef struct {
    bkm_pair_hash hash;
    uint32_t record[BKM_PAIR_BATCH];
} part_batch;

/* `part`: H(blob + " " + diffID) */
static void place_part(const engine *e, size_t r, const uint8_t part[BKM_SHA256_DIGEST])
{
    uint32_t place = e->order.place[r];
    bkm_span diff_id = e->in->diff_id[r];

    if (e->out->state[r] == BKM_CHAIN_BASE)
        memcpy(e->out->ids[r].blob_chain, part, BKM_SHA256_DIGEST);
    if (place == BKM_CHAIN_NOWHERE)
        return;
    entry *entry = &e->entries[place];
    memcpy(entry->blob_chain, part, BKM_SHA256_DIGEST);
    e->odd[place] = diff_id.size != BKM_ID_SIZE || !bkm_id_read(entry->chain, diff_id.data);
}

static void flush_parts(const engine *e, part_batch *batch)
{
    size_t count = batch->hash.count;

    bkm_pair_hash_flush(&batch->hash);
    for (size_t i = 0; i < count; i++) {
        uint8_t part[BKM_SHA256_DIGEST];
        bkm_sha256_store(part, batch->hash.state[i]);
        place_part(e, batch->record[i], part);
    }
}

static void hash_parts(const engine *e, size_t begin, size_t end)
{
    const bkm_chain_input *in = e->in;
    part_batch batch;

    bkm_pair_hash_start(&batch.hash, e->kernel);
    for (size_t r = begin; r < end; r++) {
        uint8_t state = e->out->state[r];
        if (r + AHEAD < end && e->order.place[r + AHEAD] != BKM_CHAIN_NOWHERE)
            __builtin_prefetch(&e->entries[e->order.place[r + AHEAD]], 1);
        if (state != BKM_CHAIN_BASE && state != BKM_CHAIN_COMPUTED) {
            if (e->order.place[r] != BKM_CHAIN_NOWHERE)
                e->odd[e->order.place[r]] = 1; /* a parent with ids that were not computed */
        } else if (in->blob[r].size == BKM_ID_SIZE && in->diff_id[r].size == BKM_ID_SIZE) {
            if (batch.hash.count == BKM_PAIR_BATCH)
                flush_parts(e, &batch);
            batch.record[batch.hash.count] = (uint32_t)r;
            bkm_pair_hash_add(&batch.hash, in->blob[r].data, in->diff_id[r].data);
        } else {
            uint8_t part[BKM_SHA256_DIGEST];
            bkm_chain_hash_alone(e->kernel, in->blob[r], in->diff_id[r], part);
            place_part(e, r, part);
        }
    }
    flush_parts(e, &batch);
}

/* ---- second pass: by place ---- */

typedef struct {
    size_t chain, blob_chain;
} prefixes;

static prefixes add_prefixes(const engine *e, bkm_chain_hash *batch, size_t parent)
{
    const entry *above = &e->entries[parent];
    size_t record = e->order.step[parent].record;
    uint8_t state = e->odd[parent] ? e->out->state[record] : BKM_CHAIN_COMPUTED;
    uint8_t unused[BKM_ID_SIZE]; /* what is not computed is text of the caller's */
    prefixes added;

    if (state == BKM_CHAIN_COMPUTED)
        added.chain = bkm_chain_hash_prefix_id(batch, above->chain);
    else
        added.chain = bkm_chain_hash_prefix(batch, bkm_chain_id(e->in, e->out, record, unused));
    if (state == BKM_CHAIN_COMPUTED || state == BKM_CHAIN_BASE)
        added.blob_chain = bkm_chain_hash_prefix_id(batch, above->blob_chain);
    else
        added.blob_chain = bkm_chain_hash_prefix(batch, bkm_blob_chain_id(e->in, e->out, record, unused));
    return added;
}

static void flush_chains(const engine *e, bkm_chain_hash *batch, size_t begin, size_t end)
{
    bkm_chain_hash_flush(batch);
    for (size_t place = begin; place < end; place++)
        e->out->ids[e->order.step[place].record] = e->entries[place];
}

/* The ids of all children of the places from `begin` to `end`, which have theirs or are children of places
 * before them in that range. A batch ends before the first child of a place that is in it. */
static void hash_children(const engine *e, bkm_chain_hash *batch, size_t begin, size_t end)
{
    size_t child = bkm_chain_first_child(&e->order, begin), batch_at = child;

    for (size_t parent = begin; parent < end; parent++) {
        bool have_prefixes = false;
        prefixes above;
        for (size_t last = e->order.step[parent].end; child < last; child++) {
            if (child + AHEAD < e->order.reached)
                __builtin_prefetch(&e->out->ids[e->order.step[child + AHEAD].record], 1);
            if (parent >= batch_at || !bkm_chain_hash_fits(batch, 2)) {
                flush_chains(e, batch, batch_at, child);
                batch_at = child;
                have_prefixes = false;
            }
            if (!have_prefixes)
                above = add_prefixes(e, batch, parent);
            have_prefixes = true;
            entry *own = &e->entries[child];
            if (e->odd[child])
                bkm_chain_hash_text(batch, above.chain, e->in->diff_id[e->order.step[child].record], own->chain);
            else
                bkm_chain_hash_text_id(batch, above.chain, own->chain, own->chain);
            bkm_chain_hash_text_id(batch, above.blob_chain, own->blob_chain, own->blob_chain);
        }
    }
    flush_chains(e, batch, batch_at, child);
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
    engine e = {.in = input, .out = output, .kernel = kernel};
    bkm_chain_hash batch;

    if (!sound(input))
        return BKM_CHAIN_BAD_INPUT;
    if (!bkm_chain_order_make(&e.order, input, output->state))
        return BKM_CHAIN_NO_MEMORY;
    e.entries = bkm_column(e.order.reached, sizeof *e.entries);
    e.odd = bkm_column(e.order.reached, sizeof *e.odd);
    bool enough = e.entries != NULL && e.odd != NULL;
    if (enough) {
        hash_parts(&e, 0, input->count);
        bkm_chain_hash_start(&batch, kernel);
        hash_children(&e, &batch, 0, e.order.reached);
    }
    free(e.entries);
    free(e.odd);
    bkm_chain_order_free(&e.order);
    return enough ? BKM_CHAIN_OK : BKM_CHAIN_NO_MEMORY;
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
