/* What a migration will do, from records and survey alone (spec buildkit-metadata, sections 4 and 5). */
#ifndef BKM_PLAN_H
#define BKM_PLAN_H

#include "chain/chain.h"
#include "plan/records.h"
#include "plan/survey.h"

/* Why a record can't be migrated as it is; the first that applies in this order. All but REPAIRED drop it. */
typedef enum {
    BKM_SOUND,
    BKM_REPAIRED,
    BKM_BAD_ID,
    BKM_UNDECODABLE,
    BKM_KEY_IS_BUCKET,
    BKM_EQUAL_MUTABLE_CYCLE,
    BKM_NO_TARGET,
    BKM_NO_SNAPSHOT,
    BKM_BAD_DIGEST,
    BKM_KEY_TOO_LONG,
    BKM_NO_PARENT,
    BKM_PARENT_CYCLE,
    BKM_TARGET_DROPPED,
    BKM_PARENT_DROPPED,
} bkm_reason;

/* What is done for a kept record, or odd about it. */
enum {
    BKM_PUT_COMMITTED = 1,
    BKM_PUT_PARENT = 2,
    BKM_PUT_BLOB = 4,     /* diffID, blob and mediatype; blobsize is apart */
    BKM_CLEAR_EQUAL_MUTABLE = 8,
    BKM_CREATE_LEASE = 16,
    BKM_ADD_SNAPSHOT = 32,
    BKM_ADD_CONTENT = 64,
    BKM_PARENT_WITHOUT_RECORD = 128,
    BKM_KEEP_LEASE = 256, /* it has the label containerd.io/gc.expire, which goes */
};

enum { BKM_NO_INDEX = -1 };

typedef struct {
    uint64_t records, snapshots_needed, snapshots_found; /* needed: by records without an equal-mutable one */
    uint64_t kept, committed, blobs, blob_sizes, chains, leases_to_create, leases_to_keep, resources_to_add;
    uint64_t unlabel_snapshots, unlabel_blobs, views, labels_left_snapshots, labels_left_blobs;
} bkm_plan_counts;

/* Text that is in neither records nor survey. */
typedef struct bkm_plan_text bkm_plan_text;

typedef struct {
    const bkm_records *records;
    const bkm_survey *survey;
    bool upstream_exact; /* no blob gets its size, as in upstream's own migration */

    /* One for each record. Those after `flags` are of use for kept records only. */
    uint8_t *reason;
    uint16_t *flags;
    bkm_span *parent;       /* id of the parent after the passes; size 0: none */
    int32_t *parent_index;  /* BKM_CHAIN_NONE or BKM_CHAIN_MISSING where there is no such record */
    int32_t *snapshot;      /* the snapshot named like the record, or BKM_NO_INDEX */
    bkm_span *diff_id, *blob;
    int64_t *blob_size;     /* that is written; 0: none is */
    bkm_chain_input chain_input;
    bkm_chain_output chains;

    uint8_t *unlabel_snapshot, *unlabel_blob; /* one for each in the survey */
    bkm_plan_counts counts;
    bkm_plan_text *texts;
} bkm_plan;

/* Both inputs must stay as they are while the plan lives. False when out of memory. `threads` are for the
 * hashing of large plans. */
bool bkm_plan_make(bkm_plan *plan, const bkm_records *records, const bkm_survey *survey, bool upstream_exact,
                   const bkm_sha256_kernel *kernel, unsigned threads);
/* Steps of making it: room for all columns; the counts, in the end. */
bool bkm_plan_allocate(bkm_plan *plan);
void bkm_plan_count(bkm_plan *plan);
/* Makes `text` what a value written from it has when it is read: what is no UTF-8 is replaced. False when out of
 * memory. */
bool bkm_plan_text_as_read(bkm_plan *plan, bkm_span *text);
void bkm_plan_free(bkm_plan *plan);

static inline bool bkm_plan_dropped(const bkm_plan *plan, size_t record)
{
    return plan->reason[record] > BKM_REPAIRED;
}

static inline bool bkm_plan_minds(const bkm_plan *plan, const bkm_value_problem *problem)
{
    return problem->fault != BKM_BLOB_SIZE_IS_BUCKET || !plan->upstream_exact;
}

/* Whether the record gets a blob whose size containerd does not say. */
static inline bool bkm_plan_lacks_blob_size(const bkm_plan *plan, size_t record)
{
    return plan->flags[record] & BKM_PUT_BLOB && !plan->upstream_exact && plan->blob_size[record] == 0;
}

static inline bkm_span bkm_plan_equal_mutable(const bkm_plan *plan, size_t record)
{
    bool cleared = plan->flags[record] & BKM_CLEAR_EQUAL_MUTABLE;
    return cleared ? (bkm_span){NULL, 0} : plan->records->equal_mutable[record];
}

/* The parent as pass 1 gets it from the snapshotter, which may be no UTF-8; size 0: it gets none. */
static inline bkm_span bkm_plan_snapshot_parent(const bkm_plan *plan, size_t record)
{
    bool has_own = plan->snapshot[record] >= 0 && bkm_plan_equal_mutable(plan, record).size == 0;
    return has_own ? plan->survey->snapshot_parent[plan->snapshot[record]] : (bkm_span){NULL, 0};
}

static inline bool bkm_plan_writes_chain(const bkm_plan *plan, size_t record)
{
    uint8_t state = plan->chains.state[record];
    return state == BKM_CHAIN_BASE || state == BKM_CHAIN_COMPUTED;
}

/* A digest that containerd takes as a resource: sha256, sha384 or sha512 with lower-case hex. */
bool bkm_is_digest(bkm_span text);

#endif
