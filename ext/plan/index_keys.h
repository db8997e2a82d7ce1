/* Changes of the `_index` bucket: new keys for chain ids, and keys of dropped records to delete. */
#ifndef BKM_INDEX_KEYS_H
#define BKM_INDEX_KEYS_H

#include "plan/plan.h"

typedef struct {
    const bkm_plan *plan;
    /* Kept records with new chain ids, in key order: first by blob chain id, then by chain id. */
    uint32_t *by_blob_chain, *by_chain;
    size_t count;
    bkm_span *gone; /* keys to delete, sorted */
    size_t gone_count, gone_capacity;

    size_t put_at, gone_at;
    uint8_t *next_key, *last_key; /* buffers for building keys */
    bkm_span put, last_put;       /* NULL data: not built yet */
} bkm_index_keys;

typedef struct {
    bkm_span key; /* valid until the next call */
    bool is_put;  /* otherwise delete it */
} bkm_index_change;

/* False on failure, with source->rule set; the rule is BKM_OK when out of memory. */
bool bkm_index_keys_make(bkm_index_keys *keys, const bkm_plan *plan, bkm_bolt *source);
/* The next change in key order, each key once; false at the end. */
bool bkm_index_keys_next(bkm_index_keys *keys, bkm_index_change *change);
void bkm_index_keys_free(bkm_index_keys *keys);

#endif
