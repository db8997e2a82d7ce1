/* Copies a tree into a builder, applying sorted edits on the way. */
#ifndef BKM_BOLT_REWRITE_H
#define BKM_BOLT_REWRITE_H

#include "bolt/builder.h"
#include "bolt/reader.h"
#include "bolt/stream.h"

typedef enum {
    BKM_REWRITE_OK = 0,
    BKM_REWRITE_READ,      /* the source is damaged: see its rule */
    BKM_REWRITE_BUILD,     /* the builder failed: see its status */
    BKM_REWRITE_REFILL,    /* refill failed */
    BKM_REWRITE_MALFORMED, /* the stream is malformed */
    BKM_REWRITE_CONFLICT,  /* value where a bucket is, or vice versa: see key */
} bkm_rewrite_status;

typedef struct {
    bkm_rewrite_status status;
    bkm_span key;          /* of a conflict */
    uint64_t changes;      /* edits that changed something */
} bkm_rewrite_result;

/* `source` may be NULL (nothing to copy). The builder's current bucket stays open. */
bkm_rewrite_result bkm_rewrite(bkm_bolt *bolt, const bkm_bucket *source, bkm_builder *builder, bkm_edits *edits);

#endif
