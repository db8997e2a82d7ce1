/* Digests of "<prefix> <text>", the one form of message that chain ids are made of, in batches.
 *
 * Prefix and text are nearly always ids "sha256:<64 hex>" of 71 bytes. Then the message has 143 bytes,
 * three blocks, and the first block lies within the prefix: its state is computed once per prefix and
 * shared by all texts that follow it. Prefixes and texts of other lengths are hashed on their own. */
#ifndef BKM_CHAIN_HASH_H
#define BKM_CHAIN_HASH_H

#include "sha256.h"

#define BKM_ID_SIZE 71 /* "sha256:" and 64 hex digits */

enum { BKM_HASH_BATCH = 64 }; /* messages; small enough for the first-level cache */

typedef struct {
    const bkm_sha256_kernel *kernel;
    size_t prefixes, texts; /* in use */
    bkm_span prefix[BKM_HASH_BATCH];
    const uint8_t *head[BKM_HASH_BATCH]; /* the first block of each prefix */
    uint32_t head_state[BKM_HASH_BATCH][8];
    uint8_t spelled[BKM_HASH_BATCH][BKM_ID_SIZE]; /* prefixes that were given as digests */
    size_t prefix_of[BKM_HASH_BATCH];
    const uint8_t *tail_data[BKM_HASH_BATCH];
    uint8_t tail[BKM_HASH_BATCH][2 * BKM_SHA256_BLOCK]; /* the second and third block of each message */
    uint32_t state[BKM_HASH_BATCH][8];
    uint8_t *digest[BKM_HASH_BATCH]; /* where each result goes */
} bkm_chain_hash;

/* Writes "sha256:" and the hex digits of a digest. */
void bkm_id_spell(uint8_t id[BKM_ID_SIZE], const uint8_t digest[BKM_SHA256_DIGEST], const bkm_hex_ways *hex);

/* The digest of an id. False: it is none, and `digest` is unspecified. */
bool bkm_id_read(uint8_t digest[BKM_SHA256_DIGEST], const uint8_t id[BKM_ID_SIZE], const bkm_hex_ways *hex);

void bkm_chain_hash_start(bkm_chain_hash *batch, const bkm_sha256_kernel *kernel);

/* Whether `messages` more fit, each with a prefix of its own. */
static inline bool bkm_chain_hash_fits(const bkm_chain_hash *batch, size_t messages)
{
    return batch->prefixes + messages <= BKM_HASH_BATCH && batch->texts + messages <= BKM_HASH_BATCH;
}

/* Add a prefix, as text (which must stay until the flush) or as the digest of an id (copied).
 * Returns its number, which is valid until the flush. */
size_t bkm_chain_hash_prefix(bkm_chain_hash *batch, bkm_span prefix);
size_t bkm_chain_hash_prefix_id(bkm_chain_hash *batch, const uint8_t prefix[BKM_SHA256_DIGEST]);

/* Add the message "<prefix> <text>", the text as above (copied); its digest is there after the flush. */
void bkm_chain_hash_text(bkm_chain_hash *batch, size_t prefix, bkm_span text, uint8_t *digest);
void bkm_chain_hash_text_id(bkm_chain_hash *batch, size_t prefix, const uint8_t text[BKM_SHA256_DIGEST],
                            uint8_t *digest);

/* Hashes what was added and empties the batch. */
void bkm_chain_hash_flush(bkm_chain_hash *batch);

/* The same for messages of two ids that have nothing in common: all three blocks in one run of the kernel. */
enum {
    BKM_PAIR_BATCH = 6, /* messages; few, so that fetches from memory go on evenly beside the hashing */
    BKM_PAIR_SIZE = 3 * BKM_SHA256_BLOCK,
};

typedef struct {
    const bkm_sha256_kernel *kernel;
    size_t count; /* in use */
    const uint8_t *data[BKM_PAIR_BATCH];
    uint8_t message[BKM_PAIR_BATCH][BKM_PAIR_SIZE];
    uint32_t state[BKM_PAIR_BATCH][8]; /* of the messages last hashed */
} bkm_pair_hash;

void bkm_pair_hash_start(bkm_pair_hash *batch, const bkm_sha256_kernel *kernel);

/* Adds "<prefix> <text>", both of BKM_ID_SIZE bytes (copied), to a batch that is not full. */
void bkm_pair_hash_add(bkm_pair_hash *batch, const uint8_t *prefix, const uint8_t *text);

/* Hashes what was added, into `state`, and empties the batch. */
void bkm_pair_hash_flush(bkm_pair_hash *batch);

/* One message of any prefix and text. */
void bkm_chain_hash_alone(const bkm_sha256_kernel *kernel, bkm_span prefix, bkm_span text, uint8_t *digest);

#endif
