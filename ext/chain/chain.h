/* The chainID engine: computes all chain ids of a store in one call (buildkit-metadata, section 4, pass
 * 4).
 *
 * Pure C, reentrant, without recursion; each record is computed once, after its parent. */
#ifndef BKM_CHAIN_H
#define BKM_CHAIN_H

#include "chain/hash.h"

enum {
    BKM_CHAIN_NONE = -1,    /* parent: the record has none */
    BKM_CHAIN_MISSING = -2, /* parent: the record names one that does not exist */
};

/* Columns of `count` records. An absent or empty span stands for "". */
typedef struct {
    size_t count; /* at most INT32_MAX */
    const int32_t *parent; /* index of the parent, or one of the above */
    const bkm_span *diff_id, *blob;
    const bkm_span *given_chain, *given_blob_chain; /* values already in the store; both NULL if there are none */
    const uint8_t *skip; /* non-zero: leave the record out; NULL: use all */
} bkm_chain_input;

typedef enum {
    BKM_CHAIN_EMPTY,     /* no diffID or no blob: both ids are "", nothing to write */
    BKM_CHAIN_GIVEN,     /* the values in the store are kept; nothing to write */
    BKM_CHAIN_BASE,      /* no parent: the chainID is the diffID, the blobChainID is computed */
    BKM_CHAIN_COMPUTED,  /* both ids are computed */
    BKM_CHAIN_NO_PARENT, /* needs its parent, but there is no such record */
    BKM_CHAIN_CYCLE,     /* is its own ancestor through records that all need their parents */
    BKM_CHAIN_BLOCKED,   /* its parent has no result: state no-parent, cycle, blocked or skipped */
    BKM_CHAIN_SKIPPED,
    BKM_CHAIN_STATES
} bkm_chain_state;

/* The two digests of a record share a cache line if the column is aligned to one (64 bytes). */
typedef struct {
    uint8_t chain[BKM_SHA256_DIGEST];
    uint8_t blob_chain[BKM_SHA256_DIGEST];
} bkm_chain_ids;

/* Output columns, `count` each. Digests that are not computed according to the state are unspecified. */
typedef struct {
    bkm_chain_ids *ids;
    uint8_t *state;
} bkm_chain_output;

typedef enum {
    BKM_CHAIN_OK,
    BKM_CHAIN_NO_MEMORY,
    BKM_CHAIN_BAD_INPUT, /* too many records, or an invalid parent index */
} bkm_chain_status;

enum {
    BKM_CHAIN_MAX_THREADS = 64,
    BKM_CHAIN_MANY = 8192, /* records; below this, starting threads takes about as long as the work itself */
};

/* Runs on at most `threads` threads, including the caller's; the results do not depend on their number.
 * Writes nothing unless it returns BKM_CHAIN_OK. */
bkm_chain_status bkm_chain_run(const bkm_chain_input *input, const bkm_chain_output *output,
                               const bkm_sha256_kernel *kernel, unsigned threads);

/* The ids of a record as text, "" if it has none. An id that exists only as a digest is spelled out in
 * `space`. */
bkm_span bkm_chain_id(const bkm_chain_input *input, const bkm_chain_output *output, size_t record,
                      uint8_t space[BKM_ID_SIZE]);
bkm_span bkm_blob_chain_id(const bkm_chain_input *input, const bkm_chain_output *output, size_t record,
                           uint8_t space[BKM_ID_SIZE]);

#endif
