/* What the harnesses share: demands, and files that are written to memory and looked at again. */
#ifndef BKM_FUZZ_COMMON_H
#define BKM_FUZZ_COMMON_H

#include <stdio.h>
#include <stdlib.h>

#include "bolt/check.h"
#include "bolt/rewrite.h"

/* A broken demand is a find, as much as a crash is. */
#define BKM_DEMAND(condition)                                                                                        \
    do {                                                                                                             \
        if (!(condition)) {                                                                                          \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                                  \
            abort();                                                                                                 \
        }                                                                                                            \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file in memory. */
typedef struct {
    uint8_t *data;
    size_t size, capacity;
} bkm_image;

/* Applies the edits to the whole of `bolt`, with pages of the same size. True if a file was written to
 * `image`, which is then sound: it opens, check has no findings, and rewriting it gives the same bytes. */
bool bkm_fuzz_rewrite(bkm_bolt *bolt, bkm_edits *edits, bkm_image *image, bkm_rewrite_result *result,
                      bkm_build_status *built);

/* A builder that writes to `image`; bkm_fuzz_finish frees it. */
bkm_builder *bkm_fuzz_builder(uint32_t page_size, bkm_image *image);
/* Completes the image, which then is sound: it opens, check has no findings, and rewriting it gives the same
 * bytes. */
void bkm_fuzz_finish(bkm_builder *builder, uint32_t page_size, bkm_image *image);

/* A stream of one chunk. */
bkm_edits bkm_fuzz_one_chunk(const uint8_t *data, size_t size);

/* Demands that the reader's last error is one that has a text, and is about a page that could be. */
void bkm_fuzz_demand_error(const bkm_bolt *bolt);

/* A copy of the input whose bounds the address sanitizer knows. */
uint8_t *bkm_fuzz_copy(const uint8_t *data, size_t size);

#endif
