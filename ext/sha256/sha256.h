/* SHA-256 over many independent streams at once, with kernels chosen at run time.
 *
 * A kernel only compresses whole blocks. Everything that depends on the length of a message (padding,
 * keeping lanes full) is implemented once, on top of any kernel. */
#ifndef BKM_SHA256_H
#define BKM_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/hex.h"
#include "core/span.h"

#define BKM_SHA256_BLOCK 64
#define BKM_SHA256_DIGEST 32

/* Compresses `blocks` contiguous 64-byte blocks from data[i] into state[i], for each of
 * `streams` streams. The eight words of a state are in host order. */
typedef void (*bkm_sha256_compress)(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks);

enum { BKM_SHA256_MAX_BATCH = 16 };

typedef struct {
    const char *name;
    bkm_sha256_compress compress;
    size_t batch; /* streams that suit it, at most BKM_SHA256_MAX_BATCH; few, so that memory is used evenly */
    const bkm_hex_ways *hex; /* for the digests */
} bkm_sha256_kernel;

typedef enum {
    BKM_SHA256_OK,
    BKM_SHA256_UNKNOWN,  /* no kernel has this name */
    BKM_SHA256_UNUSABLE, /* this build or this processor can't run the kernel */
    BKM_SHA256_WRONG,    /* the kernel failed its self-test */
} bkm_sha256_status;

extern const uint32_t bkm_sha256_initial[8];
extern const uint32_t bkm_sha256_rounds[64];

/* The kernels that this processor can run, preferred first; returns how many were written. */
#define BKM_SHA256_MAX_KERNELS 6
size_t bkm_sha256_usable(const bkm_sha256_kernel *kernels[BKM_SHA256_MAX_KERNELS]);

/* Finds a usable kernel by name, or the preferred one for NULL, and tests it on first use. `*kernel` is set
 * for BKM_SHA256_OK and BKM_SHA256_WRONG. Thread-safe. */
bkm_sha256_status bkm_sha256_select(const char *name, const bkm_sha256_kernel **kernel);

/* The kernel name requested by the environment, NULL if none. */
const char *bkm_sha256_demanded(void);
#define BKM_SHA256_VARIABLE "BUILDKIT_MIGRATE_SHA256"

/* Known answers: the digests of the bytes 0, 1, 2, ... of these lengths. */
#define BKM_SHA256_ANSWERS 7
extern const uint8_t bkm_sha256_answer_sizes[BKM_SHA256_ANSWERS];
extern const uint8_t bkm_sha256_answers[BKM_SHA256_ANSWERS][BKM_SHA256_DIGEST];

/* Whether a kernel computes `answers` in every lane, for several stream counts and lengths. */
bool bkm_sha256_self_test(bkm_sha256_compress compress, const uint8_t answers[BKM_SHA256_ANSWERS][BKM_SHA256_DIGEST]);

/* Writes the last one or two blocks of a message of `total` bytes: its last `size` (< 64) bytes, `rest`,
 * and the padding. Returns the number of blocks. */
size_t bkm_sha256_pad(uint8_t tail[2 * BKM_SHA256_BLOCK], const uint8_t *rest, size_t size, uint64_t total);

/* Writes a state as the 32 bytes of a digest. */
static inline void bkm_sha256_store(uint8_t digest[BKM_SHA256_DIGEST], const uint32_t state[8])
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    typedef uint32_t words __attribute__((vector_size(16)));
    typedef uint16_t halves __attribute__((vector_size(16)));

    for (int i = 0; i < 2; i++) { /* in wide steps: narrow stores would delay the next read of the digest */
        words four;
        memcpy(&four, state + 4 * i, sizeof four);
        halves swapped = (halves)(four << 16 | four >> 16);
        swapped = swapped << 8 | swapped >> 8;
        memcpy(digest + 16 * i, &swapped, sizeof swapped);
    }
#else
    memcpy(digest, state, BKM_SHA256_DIGEST);
#endif
}

/* A message that arrives in pieces. */
typedef struct {
    bkm_sha256_compress compress;
    uint64_t total;
    uint32_t state[1][8];
    uint8_t pending[BKM_SHA256_BLOCK]; /* total % 64 bytes are in use */
} bkm_sha256_stream;

void bkm_sha256_start(bkm_sha256_stream *stream, const bkm_sha256_kernel *kernel);
void bkm_sha256_update(bkm_sha256_stream *stream, const uint8_t *data, size_t size);
void bkm_sha256_finish(bkm_sha256_stream *stream, uint8_t digest[BKM_SHA256_DIGEST]);

/* Hashes one message. */
void bkm_sha256_digest(const bkm_sha256_kernel *kernel, const uint8_t *data, size_t size,
                       uint8_t digest[BKM_SHA256_DIGEST]);

/* Hashes many messages of any lengths; a lane that has finished a message takes the next. */
void bkm_sha256_digest_many(bkm_sha256_compress compress, const bkm_span *messages, size_t count,
                            uint8_t (*digests)[BKM_SHA256_DIGEST]);

/* The kernels themselves, for dispatch; call them through bkm_sha256_select. */
void bkm_sha256_portable(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks);
#if defined(__x86_64__)
void bkm_sha256_shani(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks);
void bkm_sha256_avx512(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks);
void bkm_sha256_avx2(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks);
void bkm_sha256_bmi2(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks);

/* What bkm_sha256_avx512 does with one to eight streams. */
void bkm_sha256_avx512_eight(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks);
#elif defined(__aarch64__)
void bkm_sha256_armv8(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks);
#endif

#endif
