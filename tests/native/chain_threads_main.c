/* Runs the chainID engine on one thread and on four and compares; for ThreadSanitizer. With the argument
 * "race" it only makes a data race, to show that the sanitizer would see one. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "chain/chain.h"

enum { RECORDS = 20000 };

static int32_t parent[RECORDS];
static uint8_t text[2 * RECORDS][BKM_ID_SIZE];
static bkm_span diff_id[RECORDS], blob[RECORDS];
static bkm_chain_ids ids[2][RECORDS];
static uint8_t state[2][RECORDS];
static int shared;

static void *race(void *unused)
{
    shared++;
    return unused;
}

static int make_race(void)
{
    pthread_t other;
    if (pthread_create(&other, NULL, race, NULL) != 0)
        return 1;
    race(NULL);
    return pthread_join(other, NULL);
}

/* Records without blob, with a diffID that is no id, and without a record of their parent are among them. */
static void fill(int32_t nearest)
{
    for (int32_t r = 0; r < RECORDS; r++) {
        uint8_t digest[BKM_SHA256_DIGEST] = {(uint8_t)r, (uint8_t)(r >> 8)};
        bkm_id_spell(text[2 * r], digest, &bkm_hex_plain);
        digest[BKM_SHA256_DIGEST - 1] = 1;
        bkm_id_spell(text[2 * r + 1], digest, &bkm_hex_plain);
        diff_id[r] = (bkm_span){text[2 * r], r % 97 == 0 ? 20 : BKM_ID_SIZE};
        blob[r] = (bkm_span){text[2 * r + 1], r % 101 == 0 ? 0 : BKM_ID_SIZE};
        parent[r] = r < 40 ? BKM_CHAIN_NONE : r % 997 == 0 ? BKM_CHAIN_MISSING : r - 1 - rand() % nearest % r;
    }
}

static int compare(const bkm_sha256_kernel *kernel)
{
    const bkm_chain_input input = {.count = RECORDS, .parent = parent, .diff_id = diff_id, .blob = blob};
    bkm_chain_output output[2];

    for (int i = 0; i < 2; i++) {
        output[i] = (bkm_chain_output){ids[i], state[i]};
        if (bkm_chain_run(&input, &output[i], kernel, i ? 4 : 1) != BKM_CHAIN_OK)
            return 1;
    }
    for (size_t r = 0; r < RECORDS; r++) {
        uint8_t space[2][BKM_ID_SIZE];
        if (state[0][r] != state[1][r] ||
            bkm_span_compare(bkm_chain_id(&input, &output[0], r, space[0]),
                             bkm_chain_id(&input, &output[1], r, space[1])) != 0 ||
            bkm_span_compare(bkm_blob_chain_id(&input, &output[0], r, space[0]),
                             bkm_blob_chain_id(&input, &output[1], r, space[1])) != 0)
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    const bkm_sha256_kernel *kernel;

    (void)argv;
    if (argc > 1)
        return make_race();
    if (bkm_sha256_select(NULL, &kernel) != BKM_SHA256_OK)
        return 1;
    for (int32_t nearest = 10; nearest <= RECORDS; nearest *= 10) {
        fill(nearest);
        if (compare(kernel) != 0)
            return 1;
    }
    puts("same");
    return 0;
}
