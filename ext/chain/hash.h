/* Digests of "<prefix> <text>", the only kind of message that chain ids are made of, in batches.
 *
 * Prefix and text are nearly always ids "sha256:<64 hex>" of 71 bytes. Then the message has 143 bytes,
 * three blocks, and the first block lies within the prefix: its state is computed once per prefix and
 * shared by all texts that follow it. Messages with anything but ids are hashed individually. */
#ifndef BKM_CHAIN_HASH_H
#define BKM_CHAIN_HASH_H

#include "sha256/sha256.h"

#define BKM_ID_SIZE 71 /* "sha256:" and 64 hex digits */

enum {
    BKM_HASH_BATCH = BKM_SHA256_MAX_BATCH, /* messages; few, as each is fetched from a different place */
    BKM_PAIR_SIZE = 3 * BKM_SHA256_BLOCK,
};

typedef struct {
    const bkm_sha256_kernel *kernel;
    size_t prefixes, texts; /* in use */
    bool own;               /* each text uses the prefix with the same number */
    bkm_span odd_prefix[BKM_HASH_BATCH]; /* a prefix that is not an id; absent otherwise */
    const uint8_t *prefix_digest[BKM_HASH_BATCH];
    uint8_t read[BKM_HASH_BATCH][BKM_SHA256_DIGEST]; /* digests of prefixes given as text */
    size_t prefix_of[BKM_HASH_BATCH];
    uint8_t *digest[BKM_HASH_BATCH]; /* digest of each text, replaced by that of its message */
    /* The first block holds the prefix, the others the text, with the same number. */
    uint8_t message[BKM_HASH_BATCH][BKM_PAIR_SIZE];
    const uint8_t *head[BKM_HASH_BATCH], *tail[BKM_HASH_BATCH]; /* start of these blocks */
    uint8_t rest[BKM_HASH_BATCH][8]; /* the end of each prefix, after its first block, and the space */
    uint32_t head_state[BKM_HASH_BATCH][8];
    uint32_t state[BKM_HASH_BATCH][8];
} bkm_chain_hash;

/* Writes "sha256:" and the hex digits of a digest. */
void bkm_id_spell(uint8_t id[BKM_ID_SIZE], const uint8_t digest[BKM_SHA256_DIGEST], const bkm_hex_ways *hex);

/* Reads the digest in an id. False if it is not an id; `digest` is unspecified then. */
bool bkm_id_read(uint8_t digest[BKM_SHA256_DIGEST], const uint8_t id[BKM_ID_SIZE], const bkm_hex_ways *hex);

void bkm_chain_hash_start(bkm_chain_hash *batch, const bkm_sha256_kernel *kernel);

/* Whether `messages` more fit, each with its own prefix. */
static inline bool bkm_chain_hash_fits(const bkm_chain_hash *batch, size_t messages)
{
    return batch->prefixes + messages <= BKM_HASH_BATCH && batch->texts + messages <= BKM_HASH_BATCH;
}

/* Adds a prefix, as text or as the digest of an id, which must not change until the flush. Returns its
 * number, valid until the flush. */
size_t bkm_chain_hash_prefix(bkm_chain_hash *batch, bkm_span prefix);

static inline size_t bkm_chain_hash_prefix_id(bkm_chain_hash *batch, const uint8_t *prefix)
{
    size_t number = batch->prefixes++;

    batch->odd_prefix[number] = (bkm_span){NULL, 0};
    batch->prefix_digest[number] = prefix;
    return number;
}

/* Hashes "<prefix> <text>" immediately: for any text, or for the id whose digest is in `digest`. `digest`
 * receives the result. */
void bkm_chain_hash_text(const bkm_chain_hash *batch, size_t prefix, bkm_span text, uint8_t *digest);
void bkm_chain_hash_id_alone(const bkm_chain_hash *batch, size_t prefix, uint8_t *digest);

/* The same for an id, but deferred until the flush. */
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

/* Hashes all messages added, and empties the batch. */
void bkm_chain_hash_flush(bkm_chain_hash *batch);

/* The same for messages of two ids given as text, without shared prefixes. */
typedef struct {
    const bkm_sha256_kernel *kernel;
    size_t count; /* in use, of as many as suit the kernel */
    const uint8_t *data[BKM_SHA256_MAX_BATCH];
    uint8_t message[BKM_SHA256_MAX_BATCH][BKM_PAIR_SIZE];
    uint32_t state[BKM_SHA256_MAX_BATCH][8]; /* of the messages hashed last */
} bkm_pair_hash;

void bkm_pair_hash_start(bkm_pair_hash *batch, const bkm_sha256_kernel *kernel);

static inline bool bkm_pair_hash_full(const bkm_pair_hash *batch)
{
    return batch->count == batch->kernel->batch;
}

/* Adds "<prefix> <text>", both of BKM_ID_SIZE bytes (copied), to a batch that is not full. */
static inline void bkm_pair_hash_add(bkm_pair_hash *batch, const uint8_t *prefix, const uint8_t *text)
{
    uint8_t *message = batch->message[batch->count++];

    memcpy(message, prefix, BKM_ID_SIZE);
    memcpy(message + BKM_ID_SIZE + 1, text, BKM_ID_SIZE);
}

/* Hashes all messages added, into `state`, and empties the batch. */
void bkm_pair_hash_flush(bkm_pair_hash *batch);

/* Hashes one message of any prefix and text. */
void bkm_chain_hash_alone(const bkm_sha256_kernel *kernel, bkm_span prefix, bkm_span text, uint8_t *digest);

#endif
