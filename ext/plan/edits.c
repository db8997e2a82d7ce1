/* Both streams advance in steps. A step writes whole operations; steps run until a chunk is full. */
#include "plan/edits.h"

#include <inttypes.h>
#include <stdio.h>

#include "plan/index_keys.h"
#include "plan/names.h"

/* ---- puts of one record ---- */

#define MEDIA_TYPE "application/vnd.docker.image.rootfs.diff.tar.gzip"

static uint8_t *copy(uint8_t *at, bkm_span span)
{
    memcpy(at, span.data, span.size);
    return at + span.size;
}

static void refuse(bkm_operations *out, bkm_span key)
{
    out->failed = true;
    out->too_long = key;
}

/* PUT of {"value":"<text>"}, with ,"index":"<prefix><text>" unless the prefix is empty. */
static void put_string(bkm_operations *out, bkm_span key, bkm_span text, bkm_span index_prefix)
{
    size_t limit = 64 + key.size + index_prefix.size + 2 * bkm_json_string_limit(text.size);
    /* Escaping never shortens a text, so texts that are too long can be rejected without writing them. */
    if ((index_prefix.size ? 2 : 1) * (uint64_t)text.size > BKM_MAX_VALUE) {
        refuse(out, key);
        return;
    }
    uint8_t *start = bkm_operations_room(out, limit), *at = start;
    if (!start)
        return;
    *at++ = BKM_EDIT_PUT;
    at = bkm_write_span(at, key);
    uint8_t *value = at + 4;
    at = copy(value, BKM_NAME("{\"value\":"));
    uint8_t *string = at;
    at = bkm_json_write_string(at, text);
    if (index_prefix.size) {
        size_t inner = (size_t)(at - string) - 2; /* without quotes */
        at = copy(at, BKM_NAME(",\"index\":\""));
        at = copy(at, index_prefix);
        memcpy(at, string + 1, inner);
        at += inner;
        *at++ = '"';
    }
    *at++ = '}';
    if ((size_t)(at - value) > BKM_MAX_VALUE) {
        refuse(out, key);
        return;
    }
    bkm_store32(value - 4, (uint32_t)(at - value));
    out->size += (size_t)(at - start);
}

/* PUT of {"value":<number>}. */
static void put_number(bkm_operations *out, bkm_span key, int64_t number)
{
    char value[32];
    int size = snprintf(value, sizeof value, "{\"value\":%" PRId64 "}", number);
    bkm_put(out, key, (bkm_span){(const uint8_t *)value, (uint32_t)size});
}

void bkm_write_puts(bkm_operations *out, const bkm_plan *plan, size_t record)
{
    uint16_t flags = plan->flags[record];
    uint8_t space[BKM_ID_SIZE];
    bool chain = bkm_plan_writes_chain(plan, record);
    /* In key order. */
    if (flags & BKM_PUT_BLOB)
        put_string(out, BKM_NAME(KEY_BLOB), plan->blob[record], BKM_EMPTY);
    if (chain)
        put_string(out, BKM_NAME(KEY_BLOB_CHAIN), bkm_blob_chain_id(&plan->chain_input, &plan->chains, record, space),
                   BKM_NAME(INDEX_BLOB_CHAIN));
    if (plan->blob_size[record])
        put_number(out, BKM_NAME(KEY_BLOB_SIZE), plan->blob_size[record]);
    if (chain)
        put_string(out, BKM_NAME(KEY_CHAIN), bkm_chain_id(&plan->chain_input, &plan->chains, record, space),
                   BKM_NAME(INDEX_CHAIN));
    if (flags & BKM_PUT_BLOB)
        put_string(out, BKM_NAME(KEY_DIFF_ID), plan->diff_id[record], BKM_EMPTY);
    if (flags & BKM_CLEAR_EQUAL_MUTABLE)
        bkm_put(out, BKM_NAME(KEY_EQUAL_MUTABLE), BKM_EMPTY);
    if (flags & BKM_PUT_BLOB)
        bkm_put(out, BKM_NAME(KEY_MEDIA_TYPE), BKM_NAME("{\"value\":\"" MEDIA_TYPE "\"}"));
    if (flags & BKM_PUT_PARENT) {
        bkm_span own = bkm_plan_snapshot_parent(plan, record);
        put_string(out, BKM_NAME(KEY_PARENT), own.size ? own : plan->parent[record], BKM_EMPTY);
    }
    put_string(out, BKM_NAME(KEY_SNAPSHOT), plan->records->id[record], BKM_EMPTY);
    if (flags & BKM_PUT_COMMITTED)
        bkm_put(out, BKM_NAME(KEY_COMMITTED), BKM_NAME("{\"value\":true}"));
}

/* ---- the metadata store ---- */

typedef enum {
    STORE_EXTERNAL,
    STORE_INDEX,
    STORE_MAIN,
    STORE_END,
} store_bucket;

struct bkm_store_edits {
    const bkm_plan *plan;
    bkm_index_keys index;
    store_bucket bucket;
    bool entered;
    size_t at;         /* record */
    bool has_external; /* the source has an `_external` bucket */
};

static const bkm_span external_name = BKM_NAME_SPAN(BUCKET_EXTERNAL);

bkm_store_edits *bkm_store_edits_new(const bkm_plan *plan, bkm_bolt *source)
{
    bkm_store_edits *edits = calloc(1, sizeof *edits);
    bkm_bucket root = bkm_root_bucket(source), bucket;
    source->rule = BKM_OK;
    if (!edits)
        return NULL;
    edits->plan = plan;
    if (!bkm_bucket_descend(source, &root, &external_name, 1, &bucket, &edits->has_external) ||
        !bkm_index_keys_make(&edits->index, plan, source)) {
        free(edits);
        return NULL;
    }
    return edits;
}

void bkm_store_edits_free(bkm_store_edits *edits)
{
    if (edits)
        bkm_index_keys_free(&edits->index);
    free(edits);
}

/* Enters the bucket on first use, so that buckets without changes are not entered. */
static void enter_once(bkm_store_edits *edits, bkm_operations *out, bkm_span name)
{
    if (!edits->entered)
        bkm_enter(out, name);
    edits->entered = true;
}

static void next_bucket(bkm_store_edits *edits, bkm_operations *out)
{
    if (edits->entered)
        bkm_leave(out, 1);
    edits->entered = false;
    edits->at = 0;
    edits->bucket++;
}

static void external_step(bkm_store_edits *edits, bkm_operations *out)
{
    if (!edits->has_external || edits->at == edits->plan->records->count) {
        next_bucket(edits, out);
        return;
    }
    if (bkm_plan_dropped(edits->plan, edits->at)) {
        enter_once(edits, out, external_name);
        bkm_write_key(out, BKM_EDIT_DELETE, edits->plan->records->id[edits->at]);
    }
    edits->at++;
}

static void index_step(bkm_store_edits *edits, bkm_operations *out)
{
    bkm_index_change change;
    if (!bkm_index_keys_next(&edits->index, &change)) {
        next_bucket(edits, out);
        return;
    }
    enter_once(edits, out, BKM_NAME(BUCKET_INDEX));
    if (change.is_put)
        bkm_put(out, change.key, BKM_EMPTY);
    else
        bkm_write_key(out, BKM_EDIT_DELETE, change.key);
}

static void main_step(bkm_store_edits *edits, bkm_operations *out)
{
    const bkm_plan *plan = edits->plan;
    if (edits->at == plan->records->count) {
        next_bucket(edits, out);
        return;
    }
    size_t record = edits->at++;
    enter_once(edits, out, BKM_NAME(BUCKET_MAIN));
    if (bkm_plan_dropped(plan, record)) {
        bkm_write_key(out, BKM_EDIT_DELETE, plan->records->id[record]);
        return;
    }
    bkm_enter(out, plan->records->id[record]);
    bkm_write_puts(out, plan, record);
    bkm_leave(out, 1);
}

void bkm_store_edits_fill(bkm_store_edits *edits, bkm_operations *out)
{
    static void (*const steps[])(bkm_store_edits *, bkm_operations *) = {external_step, index_step, main_step};
    out->size = 0;
    while (edits->bucket != STORE_END && out->size < BKM_CHUNK && !out->failed)
        steps[edits->bucket](edits, out);
}

/* ---- containerd's database ---- */

typedef enum {
    CONTAINERD_BLOBS,
    CONTAINERD_LEASES,
    CONTAINERD_SNAPSHOTS,
    CONTAINERD_END,
} containerd_part;

struct bkm_containerd_edits {
    const bkm_plan *plan;
    bkm_containerd_terms terms;
    containerd_part part;
    bool begun;   /* the namespace has been entered */
    bool entered; /* the buckets of this part have been entered */
    size_t at;    /* record, or index in the survey */
};

/* The buckets in the namespace where each part works. NULL stands for the snapshotter's name. */
static const struct {
    bkm_span names[2];
    int levels;
} containerd_buckets[] = {
    {{BKM_NAME_SPAN(BUCKET_CONTENT), BKM_NAME_SPAN(BUCKET_BLOB)}, 2},
    {{BKM_NAME_SPAN(BUCKET_LEASES), {NULL, 0}}, 1},
    {{BKM_NAME_SPAN(BUCKET_SNAPSHOTS), {NULL, 0}}, 2},
};

bkm_containerd_edits *bkm_containerd_edits_new(const bkm_plan *plan, bkm_containerd_terms terms)
{
    bkm_containerd_edits *edits = calloc(1, sizeof *edits);
    if (edits) {
        edits->plan = plan;
        edits->terms = terms;
    }
    return edits;
}

void bkm_containerd_edits_free(bkm_containerd_edits *edits)
{
    free(edits);
}

static void enter_part_once(bkm_containerd_edits *edits, bkm_operations *out)
{
    if (edits->entered)
        return;
    edits->entered = true;
    if (!edits->begun) {
        bkm_enter(out, BKM_NAME(BUCKET_SCHEMA));
        bkm_enter(out, edits->terms.name_space);
        edits->begun = true;
    }
    for (int i = 0; i < containerd_buckets[edits->part].levels; i++) {
        bkm_span name = containerd_buckets[edits->part].names[i];
        bkm_enter(out, name.data ? name : edits->terms.snapshotter);
    }
}

static void next_part(bkm_containerd_edits *edits, bkm_operations *out)
{
    if (edits->entered)
        bkm_leave(out, containerd_buckets[edits->part].levels);
    edits->entered = false;
    edits->at = 0;
    edits->part++;
    if (edits->part == CONTAINERD_END && edits->begun)
        bkm_leave(out, 2);
}

/* Removes the root label, with the same result as containerd's own update (spec containerd-metadata-db,
 * section 6). */
static void unlabel(bkm_containerd_edits *edits, bkm_operations *out, bkm_span name, bool has_size)
{
    enter_part_once(edits, out);
    bkm_enter(out, name);
    bkm_write_pair(out, BKM_EDIT_DEFAULT, BKM_NAME(FIELD_CREATED), BKM_NAME("\1\0\0\0\0\0\0\0\0\0\0\0\0\xFF\xFF"));
    bkm_enter(out, BKM_NAME(BUCKET_LABELS));
    bkm_write_key(out, BKM_EDIT_DELETE, BKM_NAME(LABEL_ROOT));
    bkm_leave(out, 1);
    if (has_size)
        bkm_write_pair(out, BKM_EDIT_DEFAULT, BKM_NAME(FIELD_SIZE), BKM_NAME("\0"));
    bkm_put(out, BKM_NAME(FIELD_UPDATED), edits->terms.created);
    bkm_leave(out, 1);
}

static void blob_step(bkm_containerd_edits *edits, bkm_operations *out)
{
    const bkm_survey *survey = edits->plan->survey;
    if (edits->at == survey->blob_count) {
        next_part(edits, out);
        return;
    }
    if (edits->plan->unlabel_blob[edits->at])
        unlabel(edits, out, survey->blob[edits->at], true);
    edits->at++;
}

static void snapshot_step(bkm_containerd_edits *edits, bkm_operations *out)
{
    const bkm_survey *survey = edits->plan->survey;
    if (edits->at == survey->snapshot_count) {
        next_part(edits, out);
        return;
    }
    if (edits->plan->unlabel_snapshot[edits->at])
        unlabel(edits, out, survey->snapshot[edits->at], false);
    edits->at++;
}

static void lease_step(bkm_containerd_edits *edits, bkm_operations *out)
{
    const bkm_plan *plan = edits->plan;
    if (edits->at == plan->records->count) {
        next_part(edits, out);
        return;
    }
    size_t record = edits->at++;
    uint16_t flags = plan->flags[record];
    if (!(flags & (BKM_CREATE_LEASE | BKM_KEEP_LEASE | BKM_ADD_SNAPSHOT | BKM_ADD_CONTENT)))
        return;
    enter_part_once(edits, out);
    bkm_enter(out, plan->records->id[record]);
    if (flags & BKM_ADD_CONTENT) {
        bkm_enter(out, BKM_NAME(BUCKET_CONTENT));
        bkm_put(out, plan->blob[record], BKM_EMPTY);
        bkm_leave(out, 1);
    }
    if (flags & BKM_CREATE_LEASE) {
        bkm_put(out, BKM_NAME(FIELD_CREATED), edits->terms.created);
        bkm_enter(out, BKM_NAME(BUCKET_LABELS));
        bkm_put(out, BKM_NAME(LABEL_FLAT), edits->terms.flat);
        bkm_leave(out, 1);
    } else if (flags & BKM_KEEP_LEASE) {
        bkm_enter(out, BKM_NAME(BUCKET_LABELS));
        bkm_write_key(out, BKM_EDIT_DELETE, BKM_NAME(LABEL_EXPIRE));
        bkm_leave(out, 1);
    }
    if (flags & BKM_ADD_SNAPSHOT) {
        bkm_enter(out, BKM_NAME(BUCKET_SNAPSHOTS));
        bkm_enter(out, edits->terms.snapshotter);
        bkm_put(out, plan->records->id[record], BKM_EMPTY);
        bkm_leave(out, 2);
    }
    bkm_leave(out, 1);
}

void bkm_containerd_edits_fill(bkm_containerd_edits *edits, bkm_operations *out)
{
    static void (*const steps[])(bkm_containerd_edits *, bkm_operations *) = {blob_step, lease_step, snapshot_step};
    out->size = 0;
    while (edits->part != CONTAINERD_END && out->size < BKM_CHUNK && !out->failed)
        steps[edits->part](edits, out);
}
