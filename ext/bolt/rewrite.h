/* Copies a tree into a builder, applying sorted edits on the way. */
#ifndef BKM_BOLT_REWRITE_H
#define BKM_BOLT_REWRITE_H

#include "bolt/builder.h"
#include "bolt/reader.h"

/* Operations of an edit stream. Each is its code (one byte), then, except for LEAVE, the key (its size as
 * u32, its bytes); for all that have a value also the value in the same form. Keys ascend within a bucket. */
enum {
    BKM_EDIT_PUT = 1,      /* set the key */
    BKM_EDIT_DELETE = 2,   /* remove the key or bucket if it exists */
    BKM_EDIT_ENTER = 3,    /* enter the bucket, creating it if missing */
    BKM_EDIT_LEAVE = 4,    /* return to the bucket above */
    BKM_EDIT_DEFAULT = 5,  /* set the key if it is missing */
    BKM_EDIT_SEQUENCE = 6, /* like ENTER; the value is the bucket's new sequence (u64) */
};

typedef struct bkm_edits bkm_edits;
struct bkm_edits {
    const uint8_t *data;
    size_t size;
    size_t at;
    /* Replaces data and size with the next chunk of whole operations; size 0 at the end. False on failure. */
    bool (*refill)(bkm_edits *edits);
    void *context;
};

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
