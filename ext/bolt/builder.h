/* Bulk writer of bbolt files: bottom-up, front to back, one pass (spec bbolt-format, section 13). */
#ifndef BKM_BOLT_BUILDER_H
#define BKM_BOLT_BUILDER_H

#include <stdbool.h>
#include <stddef.h>

#include "bolt/format.h"
#include "core/span.h"

typedef enum {
    BKM_BUILD_OK = 0,
    BKM_BUILD_NO_MEMORY,
    BKM_BUILD_SINK_FAILED,  /* the sink returned false */
    BKM_BUILD_KEY_ORDER,    /* key not above the one before it */
    BKM_BUILD_KEY_SIZE,
    BKM_BUILD_VALUE_SIZE,
    BKM_BUILD_NESTING,      /* too deep, or close without open */
    BKM_BUILD_FINISHED,     /* used after its file was finished */
} bkm_build_status;

const char *bkm_build_status_text(bkm_build_status status);

/* Memory that a builder writes into. */
typedef struct {
    uint8_t *data;
    size_t capacity;
} bkm_block;

/* Takes the next bytes of the file, the first `size` of `block`, and puts other memory in its place, or the
 * same, of at least `wanted` bytes: 0 if these were the last. The first time, `size` is 0 and `block` empty.
 * False ends the build. */
typedef bool (*bkm_sink)(void *context, bkm_block *block, size_t size, size_t wanted);

typedef struct bkm_builder bkm_builder;

/* `fill`: bytes of a page that are filled before the next one is begun. NULL when out of memory. What the
 * sink gives stays the sink's to free. */
bkm_builder *bkm_builder_new(uint32_t page_size, uint32_t fill, bkm_sink sink, void *context);
void bkm_builder_free(bkm_builder *builder);

/* Keys and bucket names of a bucket come in byte order. All calls return false on failure; the builder is
 * of no use then, and bkm_builder_status tells why. */
bool bkm_builder_open(bkm_builder *builder, bkm_span key, uint64_t sequence);
bool bkm_builder_put(bkm_builder *builder, bkm_span key, bkm_span value);
bool bkm_builder_close(bkm_builder *builder);
/* A bucket as it stands in a file of the same page size: `value` is its header with an inline page. */
bool bkm_builder_put_inline(bkm_builder *builder, bkm_span key, bkm_span value);

/* Largest value of an inline bucket (header included). */
uint32_t bkm_builder_inline_limit(const bkm_builder *builder);

/* Ends the file. `metas` receives pages 0 and 1 (2 * page_size bytes), which belong at offset 0; the sink
 * got zeros for them. `transaction`: the number of the current one, 2 or more and below UINT64_MAX. */
bool bkm_builder_finish(bkm_builder *builder, uint8_t *metas, uint64_t transaction);

bkm_build_status bkm_builder_status(const bkm_builder *builder);

#endif
