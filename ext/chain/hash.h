/* Digests of "<prefix> <text>", the one form of message that chain ids are made of, in batches.
 *
 * Prefix and text are nearly always ids "sha256:<64 hex>" of 71 bytes. Then the message has 143 bytes,
 * three blocks, and the first block lies within the prefix: its state is computed once per prefix and
 * shared by all texts that follow it. Messages of anything but ids are hashed on their own. */
#ifndef BKM_CHAIN_HASH_H
#define BKM_CHAIN_HASH_H

#include "sha256/sha256.h"

#define BKM_ID_SIZE 71 /* "sha256:" and 64 hex digits */

enum {
    BKM_HASH_BATCH = 16, /* messages; fills 8 lanes; few, as each of them is fetched from a place of its own */
    BKM_PAIR_SIZE = 3 * BKM_SHA256_BLOCK,
};

typedef struct {
    const bkm_sha256_kernel *kernel;
    size_t prefixes, texts; /* in use */
    bool own;               /* each text has the prefix of the same number to itself */
    bkm_span odd_prefix[BKM_HASH_BATCH]; /* a prefix that is no id; else absent */
    const uint8_t *prefix_digest[BKM_HASH_BATCH];
    uint8_t read[BKM_HASH_BATCH][BKM_SHA256_DIGEST]; /* those of prefixes given as text */
    size_t prefix_of[BKM_HASH_BATCH];
    uint8_t *digest[BKM_HASH_BATCH]; /* of each text, then of the message */
    /* The first block is that of the prefix, the others those of the text, of the same number. */
    uint8_t message[BKM_HASH_BATCH][BKM_PAIR_SIZE];
    const uint8_t *head[BKM_HASH_BATCH], *tail[BKM_HASH_BATCH]; /* where these blocks begin */
    uint8_t rest[BKM_HASH_BATCH][8]; /* of each prefix: what lies behind its first block, the space */
    uint32_t head_state[BKM_HASH_BATCH][8];
    uint32_t state[BKM_HASH_BATCH][8];
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

/* Add a prefix, as text or as the digest of an id; either must stay as it is until the flush. Returns its
 * number, which is valid until then. */
size_t bkm_chain_hash_prefix(bkm_chain_hash *batch, bkm_span prefix);

static inline size_t bkm_chain_hash_prefix_id(bkm_chain_hash *batch, const uint8_t *prefix)
{
    size_t number = batch->prefixes++;

    batch->odd_prefix[number] = (bkm_span){NULL, 0};
    batch->prefix_digest[number] = prefix;
    return number;
}

/* The digest of "<prefix> <text>" for any text; and for one that is given as the digest of an id, in whose
 * place it is written. At once. */
void bkm_chain_hash_text(const bkm_chain_hash *batch, size_t prefix, bkm_span text, uint8_t *digest);
void bkm_chain_hash_id_alone(const bkm_chain_hash *batch, size_t prefix, uint8_t *digest);

/* The same as the latter, but not before the flush. */
static inline void bkm_chain_hash_id(bkm_chain_hash *batch, size_t prefix, uint8_t *digest)
{
    if (batch->odd_prefix[prefix].data != NULL) {
        bkm_chain_hash_id_alone(batch, prefix, digest);
        return;
    }
    batch->own &= prefix == batch->texts;
    batch->prefix_of[batch->texts] = prefix;
    batch->digest[batch->texts++] = digest;
}

/* Hashes what was added and empties the batch. */
void bkm_chain_hash_flush(bkm_chain_hash *batch);

/* The same for messages of two ids given as text that have nothing in common. */
enum { BKM_PAIR_BATCH = 6 }; /* messages; few, so that fetches from memory go on evenly beside the hashing */

typedef struct {
    const bkm_sha256_kernel *kernel;
    size_t count; /* in use */
    const uint8_t *data[BKM_PAIR_BATCH];
    uint8_t message[BKM_PAIR_BATCH][BKM_PAIR_SIZE];
    uint32_t state[BKM_PAIR_BATCH][8]; /* of the messages last hashed */
} bkm_pair_hash;

void bkm_pair_hash_start(bkm_pair_hash *batch, const bkm_sha256_kernel *kernel);

/* Adds "<prefix> <text>", both of BKM_ID_SIZE bytes (copied), to a batch that is not full. */
static inline void bkm_pair_hash_add(bkm_pair_hash *batch, const uint8_t *prefix, const uint8_t *text)
{
    uint8_t *message = batch->message[batch->count++];

    memcpy(message, prefix, BKM_ID_SIZE);
    memcpy(message + BKM_ID_SIZE + 1, text, BKM_ID_SIZE);
}

/* Hashes what was added, into `state`, and empties the batch. */
void bkm_pair_hash_flush(bkm_pair_hash *batch);

/* One message of any prefix and text. */
void bkm_chain_hash_alone(const bkm_sha256_kernel *kernel, bkm_span prefix, bkm_span text, uint8_t *digest);

#endif
