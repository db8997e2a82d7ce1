/* What a migration will do, computed from records and survey alone (spec buildkit-metadata, sections 4 and
 * 5). */
#ifndef BKM_PLAN_H
#define BKM_PLAN_H

#include "chain/chain.h"
#include "plan/records.h"
#include "plan/survey.h"

/* Why a record can't be migrated as it is; the first reason in this order that applies. All but REPAIRED
 * drop the record. */
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

/* Actions for a kept record, and oddities. */
enum {
    BKM_PUT_COMMITTED = 1,
    BKM_PUT_PARENT = 2,
    BKM_PUT_BLOB = 4,     /* diffID, blob and mediatype; not blobsize */
    BKM_CLEAR_EQUAL_MUTABLE = 8,
    BKM_CREATE_LEASE = 16,
    BKM_ADD_SNAPSHOT = 32,
    BKM_ADD_CONTENT = 64,
    BKM_PARENT_WITHOUT_RECORD = 128,
    BKM_KEEP_LEASE = 256, /* its label containerd.io/gc.expire must be removed */
};

enum { BKM_NO_INDEX = -1 };

typedef struct {
    uint64_t records, snapshots_needed, snapshots_found; /* needed: for records without an equal-mutable target */
    uint64_t kept, committed, blobs, blob_sizes, chains, leases_to_create, leases_to_keep, resources_to_add;
    uint64_t unlabel_snapshots, unlabel_blobs, views, labels_left_snapshots, labels_left_blobs;
} bkm_plan_counts;

/* Text that is neither in the records nor in the survey. */
typedef struct bkm_plan_text bkm_plan_text;

typedef struct {
    const bkm_records *records;
    const bkm_survey *survey;
    bool upstream_exact; /* omit blob sizes, like upstream's own migration */

    /* One entry per record. Those after `flags` are only valid for kept records. */
    uint8_t *reason;
    uint16_t *flags;
    bkm_span *parent;       /* id of the final parent; size 0 if there is none */
    int32_t *parent_index;  /* BKM_CHAIN_NONE or BKM_CHAIN_MISSING if there is no such record */
    int32_t *snapshot;      /* the snapshot with the record's name, or BKM_NO_INDEX */
    bkm_span *diff_id, *blob;
    int64_t *blob_size;     /* size to write; 0 for none */
    bkm_chain_input chain_input;
    bkm_chain_output chains;

    uint8_t *unlabel_snapshot, *unlabel_blob; /* one entry for each in the survey */
    bkm_plan_counts counts;
    bkm_plan_text *texts;
} bkm_plan;

/* Both inputs must stay unchanged while the plan exists. False when out of memory. `threads` is for the
 * hashing of large plans. */
bool bkm_plan_make(bkm_plan *plan, const bkm_records *records, const bkm_survey *survey, bool upstream_exact,
                   const bkm_sha256_kernel *kernel, unsigned threads);
/* Steps of bkm_plan_make: allocating all columns, and finally the counts. */
bool bkm_plan_allocate(bkm_plan *plan);
void bkm_plan_count(bkm_plan *plan);
/* Replaces invalid UTF-8 in `text`, so that it is what a value written from it will read back as. False
 * when out of memory. */
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

/* Whether the record gets a blob whose size containerd does not know. */
static inline bool bkm_plan_lacks_blob_size(const bkm_plan *plan, size_t record)
{
    return plan->flags[record] & BKM_PUT_BLOB && !plan->upstream_exact && plan->blob_size[record] == 0;
}

static inline bkm_span bkm_plan_equal_mutable(const bkm_plan *plan, size_t record)
{
    bool cleared = plan->flags[record] & BKM_CLEAR_EQUAL_MUTABLE;
    return cleared ? (bkm_span){NULL, 0} : plan->records->equal_mutable[record];
}

/* The parent that pass 1 takes from the snapshotter, possibly invalid UTF-8; size 0 for none. */
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

/* Whether containerd accepts this digest as a resource: sha256, sha384 or sha512 in lower-case hex. */
bool bkm_is_digest(bkm_span text);

#endif
