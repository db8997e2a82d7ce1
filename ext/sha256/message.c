/* Messages of any length on top of a kernel: padding, streaming, batches. */
#include "sha256/sha256.h"

static inline void store_word(uint8_t *to, uint32_t word)
{
    to[0] = (uint8_t)(word >> 24);
    to[1] = (uint8_t)(word >> 16);
    to[2] = (uint8_t)(word >> 8);
    to[3] = (uint8_t)word;
}

size_t bkm_sha256_pad(uint8_t tail[2 * BKM_SHA256_BLOCK], const uint8_t *rest, size_t size, uint64_t total)
{
    size_t blocks = size + 1 + 8 <= BKM_SHA256_BLOCK ? 1 : 2;
    size_t end = blocks * BKM_SHA256_BLOCK;

    if (size > 0)
        memcpy(tail, rest, size);
    tail[size] = 0x80;
    memset(tail + size + 1, 0, end - 8 - (size + 1));
    store_word(tail + end - 8, (uint32_t)(total >> 29)); /* the length is in bits */
    store_word(tail + end - 4, (uint32_t)(total << 3));
    return blocks;
}

void bkm_sha256_start(bkm_sha256_stream *stream, const bkm_sha256_kernel *kernel)
{
    stream->compress = kernel->compress;
    stream->total = 0;
    memcpy(stream->state[0], bkm_sha256_initial, sizeof stream->state[0]);
}

void bkm_sha256_update(bkm_sha256_stream *stream, const uint8_t *data, size_t size)
{
    size_t pending = stream->total % BKM_SHA256_BLOCK;

    stream->total += size;
    if (pending > 0 && pending + size >= BKM_SHA256_BLOCK) {
        const uint8_t *block = stream->pending;
        size_t take = BKM_SHA256_BLOCK - pending;
        memcpy(stream->pending + pending, data, take);
        stream->compress(stream->state, &block, 1, 1);
        data += take, size -= take, pending = 0;
    }
    if (size >= BKM_SHA256_BLOCK) { /* nothing is pending here */
        size_t blocks = size / BKM_SHA256_BLOCK;
        stream->compress(stream->state, &data, 1, blocks);
        data += blocks * BKM_SHA256_BLOCK, size -= blocks * BKM_SHA256_BLOCK;
    }
    if (size > 0)
        memcpy(stream->pending + pending, data, size);
}

void bkm_sha256_finish(bkm_sha256_stream *stream, uint8_t digest[BKM_SHA256_DIGEST])
{
    uint8_t tail[2 * BKM_SHA256_BLOCK];
    const uint8_t *data = tail;
    size_t pending = stream->total % BKM_SHA256_BLOCK;
    size_t blocks = bkm_sha256_pad(tail, stream->pending, pending, stream->total);

    stream->compress(stream->state, &data, 1, blocks);
    bkm_sha256_store(digest, stream->state[0]);
}

void bkm_sha256_digest(const bkm_sha256_kernel *kernel, const uint8_t *data, size_t size,
                       uint8_t digest[BKM_SHA256_DIGEST])
{
    bkm_sha256_stream stream;
    bkm_sha256_start(&stream, kernel);
    bkm_sha256_update(&stream, data, size);
    bkm_sha256_finish(&stream, digest);
}

/* Messages in progress, as separate arrays, because that is what a kernel takes. */
enum { SLOTS = BKM_SHA256_MAX_BATCH };

typedef struct {
    uint32_t state[SLOTS][8];
    const uint8_t *data[SLOTS]; /* next block: first in the message, then in the tail */
    size_t blocks[SLOTS];       /* number of blocks from there */
    size_t message[SLOTS];
    bool padded[SLOTS];
    uint8_t *tail[SLOTS];
    uint8_t tails[SLOTS][2 * BKM_SHA256_BLOCK];
} slots;

static void slot_pad(slots *s, size_t slot, const bkm_span *message)
{
    size_t rest = message->size % BKM_SHA256_BLOCK;
    const uint8_t *from = rest > 0 ? message->data + (message->size - rest) : NULL;
    s->blocks[slot] = bkm_sha256_pad(s->tail[slot], from, rest, message->size);
    s->data[slot] = s->tail[slot];
    s->padded[slot] = true;
}

static void slot_fill(slots *s, size_t slot, const bkm_span *messages, size_t next)
{
    memcpy(s->state[slot], bkm_sha256_initial, sizeof s->state[slot]);
    s->message[slot] = next;
    s->data[slot] = messages[next].data;
    s->blocks[slot] = messages[next].size / BKM_SHA256_BLOCK;
    s->padded[slot] = false;
    if (s->blocks[slot] == 0)
        slot_pad(s, slot, &messages[next]);
}

static void slot_move(slots *s, size_t to, size_t from)
{
    uint8_t *free_tail = s->tail[to];
    memcpy(s->state[to], s->state[from], sizeof s->state[to]);
    s->data[to] = s->data[from];
    s->blocks[to] = s->blocks[from];
    s->message[to] = s->message[from];
    s->padded[to] = s->padded[from];
    s->tail[to] = s->tail[from];
    s->tail[from] = free_tail;
}

void bkm_sha256_digest_many(bkm_sha256_compress compress, const bkm_span *messages, size_t count,
                            uint8_t (*digests)[BKM_SHA256_DIGEST])
{
    slots s;
    size_t used = 0, next = 0;

    for (size_t i = 0; i < SLOTS; i++)
        s.tail[i] = s.tails[i];
    while (used < SLOTS && next < count)
        slot_fill(&s, used++, messages, next++);
    while (used > 0) {
        size_t step = s.blocks[0]; /* all advance by the smallest number of blocks left */
        for (size_t i = 1; i < used; i++)
            step = s.blocks[i] < step ? s.blocks[i] : step;
        compress(s.state, s.data, used, step);
        for (size_t i = used; i-- > 0;) { /* from the end: a slot that is moved down has been processed */
            s.data[i] += step * BKM_SHA256_BLOCK;
            s.blocks[i] -= step;
            if (s.blocks[i] > 0)
                continue;
            if (!s.padded[i]) {
                slot_pad(&s, i, &messages[s.message[i]]);
                continue;
            }
            bkm_sha256_store(digests[s.message[i]], s.state[i]);
            if (next < count)
                slot_fill(&s, i, messages, next++);
            else if (i != --used)
                slot_move(&s, i, used);
        }
    }
}
