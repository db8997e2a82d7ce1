/* Batches of "<prefix> <text>" on the lanes of a SHA-256 kernel. */
#include "chain/hash.h"

#define NAME "sha256:"

enum { NAME_SIZE = sizeof NAME - 1 };

/* Layout of a message of two ids: prefix, space, text, padding. */
enum {
    TEXT_AT = BKM_ID_SIZE + 1,
    MESSAGE_SIZE = BKM_ID_SIZE + 1 + BKM_ID_SIZE,
};

void bkm_id_spell(uint8_t id[BKM_ID_SIZE], const uint8_t digest[BKM_SHA256_DIGEST], const bkm_hex_ways *hex)
{
    memcpy(id, NAME, NAME_SIZE);
    hex->write(id + NAME_SIZE, 0, &digest, 1);
}

bool bkm_id_read(uint8_t digest[BKM_SHA256_DIGEST], const uint8_t id[BKM_ID_SIZE], const bkm_hex_ways *hex)
{
    return memcmp(id, NAME, NAME_SIZE) == 0 && hex->read(digest, id + NAME_SIZE);
}

/* The space and the padding are the same in all messages, so they are written only once. */
static void write_frame(uint8_t message[BKM_PAIR_SIZE])
{
    uint8_t last[2 * BKM_SHA256_BLOCK];

    memset(message, 0, 2 * (size_t)BKM_SHA256_BLOCK);
    message[BKM_ID_SIZE] = ' ';
    bkm_sha256_pad(last, message, MESSAGE_SIZE - 2 * BKM_SHA256_BLOCK, MESSAGE_SIZE);
    memcpy(message + 2 * BKM_SHA256_BLOCK, last, BKM_SHA256_BLOCK);
}

static void empty(bkm_chain_hash *batch)
{
    batch->prefixes = batch->texts = 0;
    batch->own = true;
}

void bkm_chain_hash_start(bkm_chain_hash *batch, const bkm_sha256_kernel *kernel)
{
    batch->kernel = kernel;
    empty(batch);
    for (size_t i = 0; i < BKM_HASH_BATCH; i++) {
        uint8_t *message = batch->message[i];
        write_frame(message);
        memcpy(message, NAME, NAME_SIZE);
        memcpy(message + TEXT_AT, NAME, NAME_SIZE);
        batch->head[i] = message;
        batch->tail[i] = message + BKM_SHA256_BLOCK;
    }
}

size_t bkm_chain_hash_prefix(bkm_chain_hash *batch, bkm_span prefix)
{
    static const uint8_t nothing; /* target for odd prefixes without data */
    uint8_t *digest = batch->read[batch->prefixes];
    size_t number = bkm_chain_hash_prefix_id(batch, digest);

    if (prefix.size != BKM_ID_SIZE || !bkm_id_read(digest, prefix.data, batch->kernel->hex)) {
        memset(digest, 0, BKM_SHA256_DIGEST);
        batch->odd_prefix[number] = (bkm_span){prefix.data != NULL ? prefix.data : &nothing, prefix.size};
    }
    return number;
}

void bkm_chain_hash_alone(const bkm_sha256_kernel *kernel, bkm_span prefix, bkm_span text, uint8_t *digest)
{
    bkm_sha256_stream stream;
    bkm_sha256_start(&stream, kernel);
    bkm_sha256_update(&stream, prefix.data, prefix.size);
    bkm_sha256_update(&stream, (const uint8_t *)" ", 1);
    bkm_sha256_update(&stream, text.data, text.size);
    bkm_sha256_finish(&stream, digest);
}

void bkm_chain_hash_text(const bkm_chain_hash *batch, size_t prefix, bkm_span text, uint8_t *digest)
{
    uint8_t id[BKM_ID_SIZE];
    bkm_span before = batch->odd_prefix[prefix];

    if (before.data == NULL) {
        bkm_id_spell(id, batch->prefix_digest[prefix], batch->kernel->hex);
        before = (bkm_span){id, BKM_ID_SIZE};
    }
    bkm_chain_hash_alone(batch->kernel, before, text, digest);
}

void bkm_chain_hash_id_alone(const bkm_chain_hash *batch, size_t prefix, uint8_t *digest)
{
    uint8_t id[BKM_ID_SIZE];

    bkm_id_spell(id, digest, batch->kernel->hex);
    bkm_chain_hash_text(batch, prefix, (bkm_span){id, BKM_ID_SIZE}, digest);
}

static void hash_shared_prefixes(bkm_chain_hash *batch)
{
    for (size_t i = 0; i < batch->prefixes; i++) {
        memcpy(batch->rest[i], batch->tail[i], sizeof batch->rest[i]);
        memcpy(batch->head_state[i], bkm_sha256_initial, sizeof batch->head_state[i]);
    }
    for (size_t i = 0; i < batch->texts; i++)
        memcpy(batch->message[i] + BKM_SHA256_BLOCK, batch->rest[batch->prefix_of[i]], sizeof batch->rest[i]);
    batch->kernel->compress(batch->head_state, batch->head, batch->prefixes, 1);
    for (size_t i = 0; i < batch->texts; i++)
        memcpy(batch->state[i], batch->head_state[batch->prefix_of[i]], sizeof batch->state[i]);
    batch->kernel->compress(batch->state, batch->tail, batch->texts, 2);
}

static void hash_own_prefixes(bkm_chain_hash *batch)
{
    for (size_t i = 0; i < batch->texts; i++)
        memcpy(batch->state[i], bkm_sha256_initial, sizeof batch->state[i]);
    batch->kernel->compress(batch->state, batch->head, batch->texts, 3);
}

void bkm_chain_hash_flush(bkm_chain_hash *batch)
{
    const bkm_hex_ways *hex = batch->kernel->hex;

    hex->write(batch->message[0] + NAME_SIZE, BKM_PAIR_SIZE, batch->prefix_digest, batch->prefixes);
    hex->write(batch->message[0] + TEXT_AT + NAME_SIZE, BKM_PAIR_SIZE, (const uint8_t *const *)batch->digest,
               batch->texts);
    if (batch->own)
        hash_own_prefixes(batch);
    else
        hash_shared_prefixes(batch);
    for (size_t i = 0; i < batch->texts; i++)
        bkm_sha256_store(batch->digest[i], batch->state[i]);
    empty(batch);
}

void bkm_pair_hash_start(bkm_pair_hash *batch, const bkm_sha256_kernel *kernel)
{
    batch->kernel = kernel;
    batch->count = 0;
    for (size_t i = 0; i < kernel->batch; i++) {
        write_frame(batch->message[i]);
        batch->data[i] = batch->message[i];
    }
}

void bkm_pair_hash_flush(bkm_pair_hash *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        memcpy(batch->state[i], bkm_sha256_initial, sizeof batch->state[i]);
    batch->kernel->compress(batch->state, batch->data, batch->count, BKM_PAIR_SIZE / BKM_SHA256_BLOCK);
    batch->count = 0;
}
