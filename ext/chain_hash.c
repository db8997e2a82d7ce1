/* Batches of "<prefix> <text>" on the lanes of a SHA-256 kernel. */
#include "chain_hash.h"

#define NAME "sha256:"

enum { NAME_SIZE = sizeof NAME - 1 };

/* The tail of a message of two ids: what the first block leaves of the prefix, a space, the text, padding. */
enum {
    PREFIX_REST = BKM_ID_SIZE - BKM_SHA256_BLOCK,
    TEXT_AT = PREFIX_REST + 1,
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

/* The space and the padding are the same in all messages: they are written only at the start. */
static void write_frame(uint8_t message[BKM_PAIR_SIZE])
{
    uint8_t last[2 * BKM_SHA256_BLOCK];

    memset(message, 0, 2 * (size_t)BKM_SHA256_BLOCK);
    message[BKM_ID_SIZE] = ' ';
    bkm_sha256_pad(last, message, MESSAGE_SIZE - 2 * BKM_SHA256_BLOCK, MESSAGE_SIZE);
    memcpy(message + 2 * BKM_SHA256_BLOCK, last, BKM_SHA256_BLOCK);
}

void bkm_chain_hash_start(bkm_chain_hash *batch, const bkm_sha256_kernel *kernel)
{
    uint8_t frame[BKM_PAIR_SIZE];

    write_frame(frame);
    memcpy(frame + BKM_SHA256_BLOCK + TEXT_AT, NAME, NAME_SIZE);
    batch->kernel = kernel;
    batch->prefixes = batch->texts = 0;
    for (size_t i = 0; i < BKM_HASH_BATCH; i++) {
        memcpy(batch->spelled[i], NAME, NAME_SIZE);
        memcpy(batch->tail[i], frame + BKM_SHA256_BLOCK, sizeof batch->tail[i]);
        batch->tail_data[i] = batch->tail[i];
    }
}

/* An odd prefix keeps its place in the lanes, unused, and so does one without digest in their spelling. */
static const uint8_t nothing[BKM_SHA256_BLOCK];

size_t bkm_chain_hash_prefix(bkm_chain_hash *batch, bkm_span prefix)
{
    size_t number = batch->prefixes++;

    batch->prefix[number] = prefix;
    batch->prefix_digest[number] = nothing;
    batch->head[number] = prefix.size == BKM_ID_SIZE ? prefix.data : nothing;
    return number;
}

size_t bkm_chain_hash_prefix_id(bkm_chain_hash *batch, const uint8_t *prefix)
{
    size_t number = batch->prefixes++;

    batch->prefix[number] = (bkm_span){batch->spelled[number], BKM_ID_SIZE};
    batch->prefix_digest[number] = prefix;
    batch->head[number] = batch->spelled[number];
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
    bkm_span before = batch->prefix[prefix];

    if (before.data == batch->spelled[prefix]) { /* not yet */
        bkm_id_spell(id, batch->prefix_digest[prefix], batch->kernel->hex);
        before.data = id;
    }
    bkm_chain_hash_alone(batch->kernel, before, text, digest);
}

void bkm_chain_hash_id(bkm_chain_hash *batch, size_t prefix, uint8_t *digest)
{
    if (batch->prefix[prefix].size == BKM_ID_SIZE) {
        batch->prefix_of[batch->texts] = prefix;
        batch->digest[batch->texts++] = digest;
    } else {
        uint8_t id[BKM_ID_SIZE];
        bkm_id_spell(id, digest, batch->kernel->hex);
        bkm_chain_hash_text(batch, prefix, (bkm_span){id, BKM_ID_SIZE}, digest);
    }
}

void bkm_chain_hash_flush(bkm_chain_hash *batch)
{
    const bkm_sha256_kernel *kernel = batch->kernel;

    if (batch->texts > 0) {
        kernel->hex->write(batch->spelled[0] + NAME_SIZE, sizeof batch->spelled[0], batch->prefix_digest,
                           batch->prefixes);
        kernel->hex->write(batch->tail[0] + TEXT_AT + NAME_SIZE, sizeof batch->tail[0],
                           (const uint8_t *const *)batch->digest, batch->texts);
        for (size_t i = 0; i < batch->texts; i++)
            memcpy(batch->tail[i], batch->prefix[batch->prefix_of[i]].data + BKM_SHA256_BLOCK, PREFIX_REST);
        for (size_t i = 0; i < batch->prefixes; i++)
            memcpy(batch->head_state[i], bkm_sha256_initial, sizeof batch->head_state[i]);
        kernel->compress(batch->head_state, batch->head, batch->prefixes, 1);
        for (size_t i = 0; i < batch->texts; i++)
            memcpy(batch->state[i], batch->head_state[batch->prefix_of[i]], sizeof batch->state[i]);
        kernel->compress(batch->state, batch->tail_data, batch->texts, 2);
        for (size_t i = 0; i < batch->texts; i++)
            bkm_sha256_store(batch->digest[i], batch->state[i]);
    }
    batch->prefixes = batch->texts = 0;
}

void bkm_pair_hash_start(bkm_pair_hash *batch, const bkm_sha256_kernel *kernel)
{
    batch->kernel = kernel;
    batch->count = 0;
    for (size_t i = 0; i < BKM_PAIR_BATCH; i++) {
        write_frame(batch->message[i]);
        batch->data[i] = batch->message[i];
    }
}

void bkm_pair_hash_add(bkm_pair_hash *batch, const uint8_t *prefix, const uint8_t *text)
{
    uint8_t *message = batch->message[batch->count++];

    memcpy(message, prefix, BKM_ID_SIZE);
    memcpy(message + BKM_ID_SIZE + 1, text, BKM_ID_SIZE);
}

void bkm_pair_hash_flush(bkm_pair_hash *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        memcpy(batch->state[i], bkm_sha256_initial, sizeof batch->state[i]);
    batch->kernel->compress(batch->state, batch->data, batch->count, BKM_PAIR_SIZE / BKM_SHA256_BLOCK);
    batch->count = 0;
}
