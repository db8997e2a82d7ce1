/* Runs the self-test on kernels with one fault each and prints what it says of them. */
#include <stdio.h>

#include "sha256/sha256.h"

static size_t faulty_lane, faulty_streams, faulty_blocks; /* 0: no matter; lanes count from 1 */

static void faulty(uint32_t (*state)[8], const uint8_t *const *data, size_t streams, size_t blocks)
{
    bkm_sha256_portable(state, data, streams, blocks);
    size_t lane = faulty_lane ? faulty_lane - 1 : 0;
    if (lane < streams && (!faulty_streams || streams == faulty_streams) &&
        (!faulty_blocks || blocks == faulty_blocks))
        state[lane][7] ^= faulty_lane || faulty_streams || faulty_blocks;
}

static void report(const char *fault, size_t number)
{
    printf("%s", fault);
    if (number)
        printf(" %zu", number);
    printf(": %s\n", bkm_sha256_self_test(faulty, bkm_sha256_answers) ? "right" : "wrong");
    faulty_lane = faulty_streams = faulty_blocks = 0;
}

int main(void)
{
    report("no fault", 0);
    for (size_t n = 1; n <= BKM_SHA256_MAX_BATCH; n++) {
        faulty_lane = n;
        report("lane", n);
        faulty_streams = n;
        report("streams", n);
    }
    for (size_t n = 1; n <= 3; n++) {
        faulty_blocks = n;
        report("blocks", n);
    }
    return 0;
}
