/* The chainID engine: all chain ids of a store in one call (buildkit-metadata, section 4, pass 4).
 *
 * Pure C, re-entrant, no recursion; each record is computed once, after its parent. */
#ifndef BKM_CHAIN_H
#define BKM_CHAIN_H

#include "chain/hash.h"

enum {
    BKM_CHAIN_NONE = -1,    /* parent: the record has none */
    BKM_CHAIN_MISSING = -2, /* parent: it has one, but there is no such record */
};

/* Columns of `count` records. A span that is absent or of size 0 stands for "". */
typedef struct {
    size_t count; /* at most INT32_MAX */
    const int32_t *parent; /* index of the parent, or one of the above */
    const bkm_span *diff_id, *blob;
    const bkm_span *given_chain, *given_blob_chain; /* values in the store already; both NULL: none */
    const uint8_t *skip; /* non-zero: the record is left out; NULL: none is */
} bkm_chain_input;

typedef enum {
    BKM_CHAIN_EMPTY,     /* no diffID or no blob: both ids are "", nothing to write */
    BKM_CHAIN_GIVEN,     /* the values in the store stand, nothing to write */
    BKM_CHAIN_BASE,      /* no parent: the chainID is the diffID as it stands, the blobChainID is computed */
    BKM_CHAIN_COMPUTED,  /* both ids are computed */
    BKM_CHAIN_NO_PARENT, /* needs its parent, and there is no such record */
    BKM_CHAIN_CYCLE,     /* is its own ancestor, by records that all need their parents */
    BKM_CHAIN_BLOCKED,   /* needs a parent that has no result: one of the two above, skipped or blocked */
    BKM_CHAIN_SKIPPED,
    BKM_CHAIN_STATES
} bkm_chain_state;

/* The two digests of a record share a cache line, if the column is aligned to one (64 bytes). */
typedef struct {
    uint8_t chain[BKM_SHA256_DIGEST];
    uint8_t blob_chain[BKM_SHA256_DIGEST];
} bkm_chain_ids;

/* Columns to write, `count` each. Digests that no state above calls computed are unspecified. */
typedef struct {
    bkm_chain_ids *ids;
    uint8_t *state;
} bkm_chain_output;

typedef enum {
    BKM_CHAIN_OK,
    BKM_CHAIN_NO_MEMORY,
    BKM_CHAIN_BAD_INPUT, /* too many records, or a parent that is no index */
} bkm_chain_status;

enum {
    BKM_CHAIN_MAX_THREADS = 64,
    BKM_CHAIN_MANY = 8192, /* records; one thread does fewer in about the time that it takes to start others */
};

/* Runs on up to `threads` threads, the caller's among them; the results do not depend on how many.
 * Writes nothing unless it returns BKM_CHAIN_OK. */
bkm_chain_status bkm_chain_run(const bkm_chain_input *input, const bkm_chain_output *output,
                               const bkm_sha256_kernel *kernel, unsigned threads);

/* The two ids of a record as text, "" where it has none. An id that is only there as a digest is spelled
 * into `space`. */
bkm_span bkm_chain_id(const bkm_chain_input *input, const bkm_chain_output *output, size_t record,
                      uint8_t space[BKM_ID_SIZE]);
bkm_span bkm_blob_chain_id(const bkm_chain_input *input, const bkm_chain_output *output, size_t record,
                           uint8_t space[BKM_ID_SIZE]);

#endif
