/* The passes and checks, in the order of the oracle; each is a loop over the columns. */
#include "plan/plan.h"

#include <stdlib.h>

#include "core/column.h"
#include "core/hex.h"
#include "core/span_table.h"
#include "plan/names.h"

/* Working memory for making a plan. */
typedef struct {
    bkm_plan *plan;
    size_t count;
    bkm_span_table records_by_id;
    bkm_span_table blobs_by_digest;
    int32_t *target;    /* index of the stored equal-mutable target, or BKM_NO_INDEX */
    int32_t *links;     /* space for one link per record */
    int32_t *blob;      /* index of the record's blob in the survey, or BKM_NO_INDEX */
    uint32_t *walked;   /* space for find_cycles */
} maker;

static void refuse(bkm_plan *plan, size_t record, bkm_reason reason)
{
    if (!bkm_plan_dropped(plan, record))
        plan->reason[record] = reason;
}

bool bkm_is_digest(bkm_span text)
{
    static const struct {
        char name[8];
        uint32_t digits;
    } algorithms[] = {{"sha256:", 64}, {"sha384:", 96}, {"sha512:", 128}};
    for (size_t i = 0; i < sizeof algorithms / sizeof *algorithms; i++)
        if (text.size == 7 + algorithms[i].digits && memcmp(text.data, algorithms[i].name, 7) == 0)
            return bkm_hex_all(text.data + 7, algorithms[i].digits);
    return false;
}

/* Marks the records on cycles of links. Links are indexes, or negative for none. */
static void find_cycles(maker *m, const int32_t *links, bkm_reason reason)
{
    memset(m->walked, 0, m->count * sizeof *m->walked);
    for (size_t start = 0; start < m->count; start++) {
        uint32_t walk = (uint32_t)start + 1;
        int32_t at = (int32_t)start;
        while (at >= 0 && links[at] >= 0 && m->walked[at] == 0) {
            m->walked[at] = walk;
            at = links[at];
        }
        if (at < 0 || m->walked[at] != walk)
            continue;
        int32_t first = at;
        do {
            refuse(m->plan, (size_t)at, reason);
            at = links[at];
        } while (at != first);
    }
}

/* ---- checks before the passes ---- */

static void check_values(maker *m)
{
    const bkm_records *records = m->plan->records;
    for (size_t i = 0; i < m->count; i++) {
        bkm_prefetch_ahead(records->id, m->count, i);
        if (!bkm_utf8_valid(records->id[i]))
            refuse(m->plan, i, BKM_BAD_ID);
    }
    for (size_t i = 0; i < records->problem_count; i++) {
        const bkm_value_problem *problem = &records->problems[i];
        if (bkm_plan_minds(m->plan, problem))
            refuse(m->plan, problem->record,
                   problem->fault == BKM_VALUE_UNDECODABLE ? BKM_UNDECODABLE : BKM_KEY_IS_BUCKET);
    }
}

/* Checks links and targets as stored, whatever other problems these records have. */
static void check_equal_mutable(maker *m)
{
    bkm_plan *plan = m->plan;
    const bkm_span *equal_mutable = plan->records->equal_mutable;
    bkm_span_table_find_all(&m->records_by_id, equal_mutable, m->count, m->target);
    find_cycles(m, m->target, BKM_EQUAL_MUTABLE_CYCLE);

    for (size_t i = 0; i < m->count; i++) {
        int32_t target = m->target[i];
        if (equal_mutable[i].size == 0 || bkm_plan_dropped(plan, i))
            continue;
        if (target >= 0 && (equal_mutable[target].size || plan->snapshot[target] >= 0))
            continue;
        int32_t own = plan->snapshot[i];
        if (own >= 0 && plan->survey->snapshot_kind[own] == BKM_SNAPSHOT_COMMITTED) {
            plan->reason[i] = BKM_REPAIRED;
            plan->flags[i] |= BKM_CLEAR_EQUAL_MUTABLE;
        } else if (target < 0) {
            refuse(plan, i, BKM_NO_TARGET);
        }
    }
}

static void check_snapshots(maker *m)
{
    for (size_t i = 0; i < m->count; i++)
        if (bkm_plan_equal_mutable(m->plan, i).size == 0 && m->plan->snapshot[i] < 0)
            refuse(m->plan, i, BKM_NO_SNAPSHOT);
}

/* ---- passes 1 to 3 ---- */

static bool pass1_committed_parent(maker *m)
{
    bkm_plan *plan = m->plan;
    const bkm_survey *survey = plan->survey;
    for (size_t i = 0; i < m->count; i++) {
        plan->parent[i] = bkm_records_stored(plan->records, BKM_STORED_PARENT, i);
        if (bkm_plan_dropped(plan, i))
            continue;
        if (bkm_plan_equal_mutable(plan, i).size) {
            plan->flags[i] |= BKM_PUT_COMMITTED;
            continue;
        }
        bkm_prefetch_ahead(survey->snapshot_parent, survey->snapshot_count, (size_t)plan->snapshot[i]);
        if (survey->snapshot_kind[plan->snapshot[i]] == BKM_SNAPSHOT_COMMITTED)
            plan->flags[i] |= BKM_PUT_COMMITTED;
        bkm_span parent = bkm_plan_snapshot_parent(plan, i);
        if (parent.size == 0)
            continue;
        if (!bkm_plan_text_as_read(plan, &parent))
            return false;
        plan->flags[i] |= BKM_PUT_PARENT;
        plan->parent[i] = parent;
    }
    return true;
}

/* Whether the record gets its parent from its target. */
static bool waits(const bkm_plan *plan, int32_t record)
{
    return record >= 0 && !bkm_plan_dropped(plan, (size_t)record) &&
           bkm_plan_equal_mutable(plan, (size_t)record).size && plan->parent[record].size == 0 &&
           !(plan->flags[record] & BKM_PUT_PARENT);
}

static void pass2_parent_of_equal_mutable(maker *m)
{
    bkm_plan *plan = m->plan;
    for (size_t i = 0; i < m->count; i++) {
        int32_t at = (int32_t)i;
        while (waits(plan, at))
            at = m->target[at];
        if (at == (int32_t)i)
            continue;
        /* A dropped target gives no parent; these records will be dropped as its descendants. */
        bkm_span parent = {NULL, 0};
        if (at >= 0 && !bkm_plan_dropped(plan, (size_t)at))
            parent = plan->parent[at];
        for (int32_t waiting = (int32_t)i; waiting != at; waiting = m->target[waiting]) {
            plan->parent[waiting] = parent;
            plan->flags[waiting] |= BKM_PUT_PARENT;
        }
    }
}

static void pass3_blob(maker *m)
{
    enum { AHEAD = 16 };
    bkm_plan *plan = m->plan;
    const bkm_records *records = plan->records;
    bkm_span_table_find_all(&m->blobs_by_digest, records->blobsum, m->count, m->blob);
    for (size_t i = 0; i < m->count; i++) {
        if (i + AHEAD < m->count && m->blob[i + AHEAD] >= 0)
            __builtin_prefetch(&plan->survey->blob_size[m->blob[i + AHEAD]]);
        if (m->blob[i] >= 0 && !bkm_plan_dropped(plan, i)) {
            plan->flags[i] |= BKM_PUT_BLOB;
            plan->diff_id[i] = records->diff_id[i];
            plan->blob[i] = records->blobsum[i];
            if (!plan->upstream_exact)
                plan->blob_size[i] = plan->survey->blob_size[m->blob[i]];
            continue;
        }
        plan->diff_id[i] = bkm_records_stored(records, BKM_STORED_DIFF_ID, i);
        plan->blob[i] = bkm_records_stored(records, BKM_STORED_BLOB, i);
        m->blob[i] = plan->blob[i].size ? bkm_span_table_find(&m->blobs_by_digest, plan->blob[i]) : BKM_NO_INDEX;
    }
}

/* ---- checks after pass 3 ---- */

static bool needs_chain_ids(const bkm_plan *plan, size_t record)
{
    bool has_chain_ids = bkm_records_stored(plan->records, BKM_STORED_CHAIN, record).size &&
                         bkm_records_stored(plan->records, BKM_STORED_BLOB_CHAIN, record).size;
    return plan->diff_id[record].size && plan->blob[record].size && !has_chain_ids;
}

/* Whether an index key for the record's chain ids would exceed the maximum key length. The chainID of a
 * record without a parent is its diffID, whatever that is; all other ids are digests. */
static bool index_key_too_long(const bkm_plan *plan, size_t record)
{
    size_t chain_id = plan->parent[record].size ? BKM_ID_SIZE : plan->diff_id[record].size;
    size_t chain = strlen(INDEX_CHAIN) + chain_id, blob_chain = strlen(INDEX_BLOB_CHAIN) + BKM_ID_SIZE;
    size_t longest = chain > blob_chain ? chain : blob_chain;
    return longest + strlen(INDEX_SEPARATOR) + plan->records->id[record].size > BKM_MAX_KEY;
}

static void check_digests_and_parents(maker *m)
{
    bkm_plan *plan = m->plan;
    bkm_span_table_find_all(&m->records_by_id, plan->parent, m->count, plan->parent_index);
    for (size_t i = 0; i < m->count; i++) {
        bkm_prefetch_ahead(plan->blob, m->count, i);
        if (bkm_plan_dropped(plan, i) || plan->parent[i].size == 0)
            plan->parent_index[i] = BKM_CHAIN_NONE;
        if (bkm_plan_dropped(plan, i))
            continue;
        if (plan->blob[i].size && !bkm_is_digest(plan->blob[i]))
            refuse(plan, i, BKM_BAD_DIGEST);
        if (needs_chain_ids(plan, i) && index_key_too_long(plan, i))
            refuse(plan, i, BKM_KEY_TOO_LONG);
        if (plan->parent[i].size == 0 || plan->parent_index[i] >= 0)
            continue;
        plan->parent_index[i] = BKM_CHAIN_MISSING;
        if (needs_chain_ids(plan, i))
            refuse(plan, i, BKM_NO_PARENT);
        else
            plan->flags[i] |= BKM_PARENT_WITHOUT_RECORD;
    }
}

static void check_parent_cycles(maker *m)
{
    for (size_t i = 0; i < m->count; i++)
        m->links[i] = bkm_plan_dropped(m->plan, i) ? BKM_NO_INDEX : m->plan->parent_index[i];
    find_cycles(m, m->links, BKM_PARENT_CYCLE);
}

/* Index of the record above by way 0 (equal-mutable) or 1 (parent), negative if there is none. */
static int32_t ancestor(const maker *m, size_t record, int way)
{
    if (way == 1)
        return m->plan->parent_index[record];
    return m->plan->flags[record] & BKM_CLEAR_EQUAL_MUTABLE ? BKM_NO_INDEX : m->target[record];
}

/* Drops all descendants of dropped records. */
static bool check_descendants(maker *m)
{
    bkm_plan *plan = m->plan;
    /* Linked list of each record's dependents; an element is 2 * record + way. */
    int64_t *next = malloc((2 * m->count + 1) * sizeof *next);
    int64_t *first_of = malloc((m->count + 1) * sizeof *first_of);
    uint32_t *dropped = m->walked;
    size_t known = 0, done = 0;
    bool ok = next && first_of;

    for (size_t i = 0; ok && i < m->count; i++) {
        first_of[i] = -1;
        if (bkm_plan_dropped(plan, i))
            dropped[known++] = (uint32_t)i;
    }
    for (size_t i = 0; ok && known && i < m->count; i++) {
        for (int way = 0; way < 2 && !bkm_plan_dropped(plan, i); way++) {
            int32_t above = ancestor(m, i, way);
            if (above < 0)
                continue;
            next[2 * i + (size_t)way] = first_of[above];
            first_of[above] = (int64_t)(2 * i) + way;
        }
    }
    for (; ok && done < known; done++) {
        for (int64_t edge = first_of[dropped[done]]; edge >= 0; edge = next[edge]) {
            size_t record = (size_t)edge / 2;
            if (bkm_plan_dropped(plan, record))
                continue;
            plan->reason[record] = BKM_PARENT_DROPPED;
            dropped[known++] = (uint32_t)record;
        }
    }
    for (size_t i = 0; ok && i < m->count; i++) {
        int32_t target = ancestor(m, i, 0);
        if (plan->reason[i] == BKM_PARENT_DROPPED && target >= 0 && bkm_plan_dropped(plan, (size_t)target))
            plan->reason[i] = BKM_TARGET_DROPPED;
    }
    free(next);
    free(first_of);
    return ok;
}

/* ---- passes 4 to 7 ---- */

static bool pass4_chain_ids(maker *m, const bkm_sha256_kernel *kernel, unsigned threads)
{
    bkm_plan *plan = m->plan;
    bkm_span *const *stored = plan->records->stored;
    uint8_t *skip = malloc(m->count + 1);
    if (!skip)
        return false;
    for (size_t i = 0; i < m->count; i++)
        skip[i] = bkm_plan_dropped(plan, i);
    bool some_given = stored[BKM_STORED_CHAIN] && stored[BKM_STORED_BLOB_CHAIN];
    plan->chain_input = (bkm_chain_input){
        .count = m->count,
        .parent = plan->parent_index,
        .diff_id = plan->diff_id,
        .blob = plan->blob,
        .given_chain = some_given ? stored[BKM_STORED_CHAIN] : NULL,
        .given_blob_chain = some_given ? stored[BKM_STORED_BLOB_CHAIN] : NULL,
        .skip = skip,
    };
    bkm_chain_status status = bkm_chain_run(&plan->chain_input, &plan->chains, kernel, threads);
    plan->chain_input.skip = NULL;
    free(skip);
    return status == BKM_CHAIN_OK;
}

static bool lease_has(const bkm_survey *survey, size_t lease, bool is_content, bkm_span id)
{
    if (survey->lease_complete && survey->lease_complete[lease])
        return true;
    size_t at = lease ? survey->lease_end[lease - 1] : 0;
    for (; at < survey->lease_end[lease]; at++)
        if (survey->resource_is_content[at] == is_content && bkm_span_compare(survey->resource[at], id) == 0)
            return true;
    return false;
}

static void pass5_leases(maker *m)
{
    bkm_plan *plan = m->plan;
    const bkm_survey *survey = plan->survey;
    size_t lease = 0;
    for (size_t i = 0; i < m->count; i++) {
        if (bkm_plan_dropped(plan, i))
            continue;
        bkm_span id = plan->records->id[i];
        while (lease < survey->lease_count && bkm_span_compare(survey->lease[lease], id) < 0)
            lease++;
        bool exists = lease < survey->lease_count && bkm_span_compare(survey->lease[lease], id) == 0;
        if (!exists)
            plan->flags[i] |= BKM_CREATE_LEASE;
        else if (survey->lease_expires && survey->lease_expires[lease])
            plan->flags[i] |= BKM_KEEP_LEASE;
        if (!exists || !lease_has(survey, lease, false, id))
            plan->flags[i] |= BKM_ADD_SNAPSHOT;
        if (plan->blob[i].size && (!exists || !lease_has(survey, lease, true, plan->blob[i])))
            plan->flags[i] |= BKM_ADD_CONTENT;
    }
}

static void pass6_and_7_labels(maker *m)
{
    bkm_plan *plan = m->plan;
    const bkm_survey *survey = plan->survey;
    for (size_t i = 0; i < m->count; i++) {
        if (bkm_plan_dropped(plan, i) || bkm_plan_equal_mutable(plan, i).size)
            continue;
        plan->unlabel_snapshot[plan->snapshot[i]] = survey->snapshot_root[plan->snapshot[i]];
        if (m->blob[i] >= 0)
            plan->unlabel_blob[m->blob[i]] = survey->blob_root[m->blob[i]];
    }
    for (size_t i = 0; i < survey->snapshot_count; i++)
        if (survey->snapshot_kind[i] == BKM_SNAPSHOT_VIEW)
            plan->unlabel_snapshot[i] = survey->snapshot_root[i];
}

/* ---- putting it together ---- */

static void find_snapshots(maker *m)
{
    const bkm_survey *survey = m->plan->survey;
    size_t at = 0;
    for (size_t i = 0; i < m->count; i++) {
        bkm_span id = m->plan->records->id[i];
        bkm_prefetch_ahead(m->plan->records->id, m->count, i);
        bkm_prefetch_ahead(survey->snapshot, survey->snapshot_count, at);
        int order = -1;
        while (at < survey->snapshot_count && (order = bkm_span_compare(survey->snapshot[at], id)) < 0)
            at++;
        m->plan->snapshot[i] = at < survey->snapshot_count && order == 0 ? (int32_t)at : BKM_NO_INDEX;
    }
}

static bool run(maker *m, const bkm_sha256_kernel *kernel, unsigned threads)
{
    find_snapshots(m);
    check_values(m);
    check_equal_mutable(m);
    check_snapshots(m);
    if (!pass1_committed_parent(m))
        return false;
    pass2_parent_of_equal_mutable(m);
    pass3_blob(m);
    check_digests_and_parents(m);
    check_parent_cycles(m);
    if (!check_descendants(m) || !pass4_chain_ids(m, kernel, threads))
        return false;
    pass5_leases(m);
    pass6_and_7_labels(m);
    bkm_plan_count(m->plan);
    return true;
}

bool bkm_plan_make(bkm_plan *plan, const bkm_records *records, const bkm_survey *survey, bool upstream_exact,
                   const bkm_sha256_kernel *kernel, unsigned threads)
{
    *plan = (bkm_plan){.records = records, .survey = survey, .upstream_exact = upstream_exact};
    maker m = {.plan = plan, .count = records->count};
    m.target = bkm_column(m.count + 1, sizeof *m.target);
    m.links = bkm_column(m.count + 1, sizeof *m.links);
    m.blob = bkm_column(m.count + 1, sizeof *m.blob);
    m.walked = bkm_column(m.count + 1, sizeof *m.walked);
    bool ok = m.target && m.links && m.blob && m.walked && bkm_plan_allocate(plan) &&
              bkm_span_table_make(&m.records_by_id, records->id, m.count) &&
              bkm_span_table_make(&m.blobs_by_digest, survey->blob, survey->blob_count) && run(&m, kernel, threads);
    free(m.target);
    free(m.links);
    free(m.blob);
    free(m.walked);
    bkm_span_table_free(&m.records_by_id);
    bkm_span_table_free(&m.blobs_by_digest);
    if (!ok)
        bkm_plan_free(plan);
    return ok;
}
