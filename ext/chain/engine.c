/* Hashing of all chain ids, in two passes on one or more threads.
 *
 * A record's inputs, and its parent, may be anywhere in memory. The first pass takes the records in
 * storage order, which is good for caches, and hashes what needs no parent; it stores what the second pass
 * needs in the place of the results. The second pass takes the records in chain order, prefetching each
 * well ahead. */
#include "chain/chain.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "chain/order.h"
#include "core/bits.h"
#include "core/column.h"

/* After the first pass, the output ids hold the digests of (diffID, H(blob + " " + diffID)); after the
 * second, those of (chainID, blobChainID). For a root with diffID and blob these are the same. */
typedef struct {
    const bkm_chain_input *in;
    const bkm_chain_output *out;
    const bkm_sha256_kernel *kernel;
    bkm_chain_order order;
    uint8_t *odd; /* bit per record: the second pass needs a text that is not an id */
} engine;

/* How many records ahead to prefetch. */
enum {
    TEXTS_AHEAD = 32,
    PLACES_AHEAD = 8, /* few: prefetching faster than memory responds stalls the hashing */
};

/* ---- first pass: by record ---- */

typedef struct {
    bkm_pair_hash hash;
    uint32_t record[BKM_SHA256_MAX_BATCH];
} part_batch;

/* `part`: H(blob + " " + diffID) */
static void keep_part(const engine *e, size_t r, const uint8_t part[BKM_SHA256_DIGEST])
{
    bkm_chain_ids *own = &e->out->ids[r];
    bkm_span diff_id = e->in->diff_id[r];

    memcpy(own->blob_chain, part, BKM_SHA256_DIGEST);
    if (diff_id.size != BKM_ID_SIZE || !bkm_id_read(own->chain, diff_id.data, e->kernel->hex))
        bkm_bits_add(e->odd, r);
}

static void flush_parts(const engine *e, part_batch *batch)
{
    size_t count = batch->hash.count;

    bkm_pair_hash_flush(&batch->hash);
    for (size_t i = 0; i < count; i++) {
        uint8_t part[BKM_SHA256_DIGEST];
        bkm_sha256_store(part, batch->hash.state[i]);
        keep_part(e, batch->record[i], part);
    }
}

static void hash_parts(const engine *e, size_t begin, size_t end)
{
    const bkm_chain_input *in = e->in;
    part_batch batch;

    bkm_pair_hash_start(&batch.hash, e->kernel);
    for (size_t r = begin; r < end; r++) {
        bkm_chain_state state = bkm_chain_own_state(in, r);
        if (r + TEXTS_AHEAD < end) {
            bkm_prefetch(in->blob[r + TEXTS_AHEAD]);
            bkm_prefetch(in->diff_id[r + TEXTS_AHEAD]);
        }
        if (state == BKM_CHAIN_EMPTY || state == BKM_CHAIN_GIVEN) {
            bkm_bits_add(e->odd, r);
        } else if (state == BKM_CHAIN_BASE || state == BKM_CHAIN_COMPUTED) {
            if (in->blob[r].size == BKM_ID_SIZE && in->diff_id[r].size == BKM_ID_SIZE) {
                if (bkm_pair_hash_full(&batch.hash))
                    flush_parts(e, &batch);
                batch.record[batch.hash.count] = (uint32_t)r;
                bkm_pair_hash_add(&batch.hash, in->blob[r].data, in->diff_id[r].data);
            } else {
                uint8_t part[BKM_SHA256_DIGEST];
                bkm_chain_hash_alone(e->kernel, in->blob[r], in->diff_id[r], part);
                keep_part(e, r, part);
            }
        }
    }
    flush_parts(e, &batch);
}

/* ---- second pass: by place ---- */

typedef struct {
    size_t chain, blob_chain;
} prefixes;

static prefixes add_prefixes(const engine *e, bkm_chain_hash *batch, size_t record)
{
    const bkm_chain_ids *above = &e->out->ids[record];
    uint8_t state = bkm_bits_have(e->odd, record) ? e->out->state[record] : BKM_CHAIN_COMPUTED;
    uint8_t unused[BKM_ID_SIZE]; /* unused, as ids that are not computed point to the caller's text */
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

static void prefetch_place(const engine *e, size_t place)
{
    __builtin_prefetch(&e->out->ids[e->order.step[place].record], 1);
}

/* Hashes all children of the places from `begin` to `end`; those places have their ids already, or are
 * children of earlier places in that range. A batch ends before the first child of a place in the same
 * batch. */
static void hash_children(const engine *e, bkm_chain_hash *batch, size_t begin, size_t end)
{
    const bkm_chain_step *step = e->order.step;
    size_t child = begin < end ? bkm_chain_first_child(&e->order, begin) : 0, batch_at = child;

    for (size_t parent = begin; parent < end; parent++) {
        bool have_prefixes = false;
        prefixes above;
        size_t later = parent + PLACES_AHEAD;
        if (later < end && step[later].end != step[later - 1].end)
            prefetch_place(e, later);
        for (size_t last = step[parent].end; child < last; child++) {
            size_t r = step[child].record;
            bkm_chain_ids *own = &e->out->ids[r];
            if (child + PLACES_AHEAD < e->order.reached)
                prefetch_place(e, child + PLACES_AHEAD);
            if (parent >= batch_at || !bkm_chain_hash_fits(batch, 2)) {
                bkm_chain_hash_flush(batch);
                batch_at = child;
                have_prefixes = false;
            }
            if (!have_prefixes)
                above = add_prefixes(e, batch, step[parent].record);
            have_prefixes = true;
            if (bkm_bits_have(e->odd, r))
                bkm_chain_hash_text(batch, above.chain, e->in->diff_id[r], own->chain);
            else
                bkm_chain_hash_id(batch, above.chain, own->chain);
            bkm_chain_hash_id(batch, above.blob_chain, own->blob_chain);
        }
    }
    bkm_chain_hash_flush(batch);
}

/* ---- work for several threads ----
 *
 * Each pass is divided into tasks that write to separate memory, so any thread can run any task. */

typedef struct work {
    engine *engine;
    void (*task)(const struct work *, size_t number);
    size_t tasks, begin, end; /* range that is divided among the tasks (but for special ones) */
    atomic_size_t next;
} work;

/* Start of piece `number` of `pieces`. */
static size_t cut(const work *w, size_t number, size_t pieces)
{
    return w->begin + (size_t)((uint64_t)(w->end - w->begin) * number / pieces);
}

static void *take_tasks(void *argument)
{
    work *w = argument;
    for (size_t i; (i = atomic_fetch_add(&w->next, 1)) < w->tasks;)
        w->task(w, i);
    return NULL;
}

/* Returns when all work is done. If a thread can't be started, the others do its work. */
static void do_work(work *w, unsigned threads)
{
    pthread_t helper[BKM_CHAIN_MAX_THREADS];
    unsigned helpers = 0;

    while (helpers + 1 < threads && helpers + 1 < w->tasks &&
           pthread_create(&helper[helpers], NULL, take_tasks, w) == 0)
        helpers++;
    take_tasks(w);
    while (helpers > 0)
        pthread_join(helper[--helpers], NULL);
}

/* Start of piece `number` of the first pass. Pieces share no byte of `odd`. Task 0 is not a piece. */
static size_t part_cut(const work *w, size_t number)
{
    size_t pieces = w->tasks - 1;
    return number == pieces ? w->end : cut(w, number, pieces) / 8 * 8;
}

/* Computes the order, which only the second pass needs, or runs a piece of the first pass. */
static void first_task(const work *w, size_t number)
{
    const engine *e = w->engine;
    if (number == 0)
        bkm_chain_order_make(&w->engine->order, e->in, e->out->state);
    else
        hash_parts(e, part_cut(w, number - 1), part_cut(w, number));
}

/* Hashes everything below a range of places of one level: their children, grandchildren and so on. The
 * places on each of these levels form a range, too. */
static void tree_task(const work *w, size_t number)
{
    const bkm_chain_order *order = &w->engine->order;
    size_t begin = cut(w, number, w->tasks), end = cut(w, number + 1, w->tasks);
    bkm_chain_hash batch;

    bkm_chain_hash_start(&batch, w->engine->kernel);
    while (begin < end) {
        hash_children(w->engine, &batch, begin, end);
        begin = bkm_chain_first_child(order, begin);
        end = order->step[end - 1].end;
    }
}

/* Finds the level at which the trees are divided: the first that has at least half as many places as the
 * widest. */
static void find_wide_level(const bkm_chain_order *order, size_t *begin, size_t *end)
{
    size_t widest = 0;

    for (size_t at = 0, last = order->roots; at < last;) {
        size_t next = order->step[last - 1].end;
        widest = last - at > widest ? last - at : widest;
        at = last, last = next;
    }
    *begin = 0, *end = order->roots;
    while (2 * (*end - *begin) < widest) {
        size_t next = order->step[*end - 1].end;
        *begin = *end, *end = next;
    }
}

static void hash_all(engine *e, unsigned threads)
{
    /* More tasks than threads even out their differences; but tasks that are too short leave lanes empty. */
    enum { TASKS = 16, PLACES = 16 };
    size_t most = threads > 1 ? (size_t)TASKS * threads : 1;
    work first = {.engine = e, .task = first_task, .tasks = 1 + most, .end = e->in->count};
    work trees = {.engine = e, .task = tree_task};
    bkm_chain_hash batch;

    do_work(&first, threads);
    if (e->order.reached == 0)
        return;
    find_wide_level(&e->order, &trees.begin, &trees.end);
    trees.tasks = (trees.end - trees.begin) / PLACES;
    trees.tasks = trees.tasks < most ? trees.tasks : most;
    if (trees.tasks < 2) { /* one thread, or no level is wide enough */
        trees.begin = e->order.reached;
        trees.tasks = 0;
    }
    bkm_chain_hash_start(&batch, e->kernel);
    hash_children(e, &batch, 0, trees.begin);
    do_work(&trees, threads);
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
                               const bkm_sha256_kernel *kernel, unsigned threads)
{
    engine e = {.in = input, .out = output, .kernel = kernel};

    if (!sound(input))
        return BKM_CHAIN_BAD_INPUT;
    e.odd = bkm_bits_new(input->count);
    bool enough = bkm_chain_order_start(&e.order, input->count) && e.odd != NULL;
    if (threads == 0 || input->count < BKM_CHAIN_MANY)
        threads = 1;
    if (enough)
        hash_all(&e, threads < BKM_CHAIN_MAX_THREADS ? threads : BKM_CHAIN_MAX_THREADS);
    free(e.odd);
    bkm_chain_order_free(&e.order);
    return enough ? BKM_CHAIN_OK : BKM_CHAIN_NO_MEMORY;
}

static bkm_span spelled(const uint8_t digest[BKM_SHA256_DIGEST], uint8_t space[BKM_ID_SIZE])
{
    bkm_id_spell(space, digest, &bkm_hex_plain);
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
