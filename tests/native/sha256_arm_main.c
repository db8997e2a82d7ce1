/* Reads a count and lengths from stdin; message i is its length in bytes i, i + 1, ... Prints, for each usable
 * kernel, its name and what the self-test says, then the digest of each message. */
#include <stdio.h>
#include <stdlib.h>

#include "sha256/sha256.h"

int main(void)
{
    const bkm_sha256_kernel *kernels[BKM_SHA256_MAX_KERNELS];
    size_t usable = bkm_sha256_usable(kernels), count;

    if (scanf("%zu", &count) != 1)
        return 1;
    bkm_span *messages = calloc(count, sizeof *messages);
    uint8_t (*digests)[BKM_SHA256_DIGEST] = calloc(count, sizeof *digests);
    for (size_t i = 0; i < count; i++) {
        unsigned size;
        if (scanf("%u", &size) != 1)
            return 1;
        uint8_t *text = malloc(size + 1);
        for (unsigned j = 0; j < size; j++)
            text[j] = (uint8_t)(i + j);
        messages[i] = (bkm_span){text, size};
    }
    for (size_t k = 0; k < usable; k++) {
        const bkm_sha256_kernel *kernel;
        printf("%s %s\n", kernels[k]->name,
               bkm_sha256_select(kernels[k]->name, &kernel) == BKM_SHA256_OK ? "right" : "wrong");
        bkm_sha256_digest_many(kernel->compress, messages, count, digests);
        for (size_t i = 0; i < count; i++) {
            for (int j = 0; j < BKM_SHA256_DIGEST; j++)
                printf("%02x", digests[i][j]);
            printf("\n");
        }
    }
    return 0;
}
