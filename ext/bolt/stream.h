/* The stream of operations that edits of a database are. */
#ifndef BKM_BOLT_STREAM_H
#define BKM_BOLT_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include "core/span.h"

/* Operations. Each is its code (one byte), then, except for LEAVE, the key (its size as u32, its bytes); for
 * all that have a value also the value in the same form. Keys ascend within a bucket. */
enum {
    BKM_EDIT_END = 0,      /* of the stream; not stored */
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

typedef struct {
    int code;
    bkm_span key;
    bkm_span value;
    size_t bytes;
} bkm_edit;

typedef enum {
    BKM_STREAM_OK = 0,
    BKM_STREAM_REFILL,    /* refill failed */
    BKM_STREAM_MALFORMED,
} bkm_stream_status;

/* Decodes the next operation without consuming it. Its spans end with its chunk. */
bkm_stream_status bkm_edits_peek(bkm_edits *edits, bkm_edit *next);

static inline void bkm_edits_take(bkm_edits *edits, const bkm_edit *next)
{
    edits->at += next->bytes;
}

/* Whether the operations of the current bucket are over. */
static inline bool bkm_edit_ends(const bkm_edit *edit)
{
    return edit->code == BKM_EDIT_END || edit->code == BKM_EDIT_LEAVE;
}

/* The sequence of the bucket that is entered; `before`: what it is now, 0 if it is missing. */
uint64_t bkm_edit_sequence(const bkm_edit *edit, uint64_t before);

#endif
