/* The body of kernels with many lanes, one stream in each: word i of all messages is in one register, so the
 * rounds are those of the portable kernel, on vectors.
 *
 * A kernel includes it once, after what differs between them: LANES; TARGET, the instructions; `vector`, LANES
 * words in GCC's vector type; xor3, choice, majority; load_states, store_states and load_words, which transpose. */
#ifndef BKM_SHA256_LANES_H
#define BKM_SHA256_LANES_H

#include "sha256/sha256.h"

#define ROTATE(x, n) ((x) >> (n) | (x) << (32 - (n)))

__attribute__((target(TARGET))) static void compress_lanes(uint32_t (*state)[8], const uint8_t *const data[LANES],
                                                           size_t blocks)
{
    vector s[8], w[16];

    load_states(s, state);
    for (size_t block = 0; block < blocks; block++) {
        vector a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
        load_words(w, data, block * BKM_SHA256_BLOCK);
        for (int base = 0; base < 64; base += 16) {
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) {
                if (base > 0) {
                    vector old = w[(i + 1) & 15], recent = w[(i + 14) & 15];
                    w[i] += xor3(ROTATE(old, 7), ROTATE(old, 18), old >> 3) + w[(i + 9) & 15] +
                            xor3(ROTATE(recent, 17), ROTATE(recent, 19), recent >> 10);
                }
                vector t1 = (h + bkm_sha256_rounds[base + i]) + (w[i] + choice(e, f, g)) +
                            xor3(ROTATE(e, 6), ROTATE(e, 11), ROTATE(e, 25));
                vector t2 = majority(a, b, c) + xor3(ROTATE(a, 2), ROTATE(a, 13), ROTATE(a, 22));
                h = g, g = f, f = e, e = d + t1;
                d = c, c = b, b = a, a = t1 + t2;
            }
        }
        s[0] += a, s[1] += b, s[2] += c, s[3] += d, s[4] += e, s[5] += f, s[6] += g, s[7] += h;
    }
    store_states(state, s);
}

/* For fewer streams than lanes: lanes without a stream repeat the first one. */
static void compress_some_lanes(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks)
{
    uint32_t filled_state[LANES][8];
    const uint8_t *filled_data[LANES];

    for (size_t l = 0; l < LANES; l++) {
        size_t from = l < streams ? l : 0;
        memcpy(filled_state[l], state[from], sizeof filled_state[l]);
        filled_data[l] = data[from];
    }
    compress_lanes(filled_state, filled_data, blocks);
    memcpy(state, filled_state, streams * sizeof filled_state[0]);
}

#endif
