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
    BKM_BUILD_KEY_ORDER,    /* key is not greater than the previous one */
    BKM_BUILD_KEY_SIZE,
    BKM_BUILD_VALUE_SIZE,
    BKM_BUILD_NESTING,      /* too deep, or close without open */
    BKM_BUILD_FINISHED,     /* used after the file was finished */
} bkm_build_status;

const char *bkm_build_status_text(bkm_build_status status);

/* Memory that a builder writes to. */
typedef struct {
    uint8_t *data;
    size_t capacity;
} bkm_block;

/* Consumes the first `size` bytes of `block`, the next bytes of the file, and sets `block` to the same or
 * other memory with at least `wanted` bytes; 0 means that the file is complete. On the first call `size`
 * is 0 and `block` is empty. Returning false ends the build. */
typedef bool (*bkm_sink)(void *context, bkm_block *block, size_t size, size_t wanted);

typedef struct bkm_builder bkm_builder;

/* `fill`: bytes of a page to fill before the next one is started. NULL when out of memory. Blocks are
 * freed by the sink's owner, not by the builder. */
bkm_builder *bkm_builder_new(uint32_t page_size, uint32_t fill, bkm_sink sink, void *context);
void bkm_builder_free(bkm_builder *builder);

/* Keys and bucket names must be added in byte order within a bucket. All calls return false on failure;
 * then the builder is unusable, and bkm_builder_status tells why. */
bool bkm_builder_open(bkm_builder *builder, bkm_span key, uint64_t sequence);
bool bkm_builder_put(bkm_builder *builder, bkm_span key, bkm_span value);
bool bkm_builder_close(bkm_builder *builder);
/* Copies a bucket from a file of the same page size: `value` is its header and inline page. */
bool bkm_builder_put_inline(bkm_builder *builder, bkm_span key, bkm_span value);

/* Maximum size of the value of an inline bucket (header included). */
uint32_t bkm_builder_inline_limit(const bkm_builder *builder);

typedef struct {
    uint64_t transaction; /* at least 2 and below UINT64_MAX */
    uint64_t sequence;    /* of the root bucket */
    bool freelist;        /* store one, though it is empty */
} bkm_ending;

/* Completes the file. `metas` receives pages 0 and 1 (2 * page_size bytes), which belong at offset 0,
 * where the sink received zeros. */
bool bkm_builder_finish(bkm_builder *builder, uint8_t *metas, bkm_ending ending);

bkm_build_status bkm_builder_status(const bkm_builder *builder);

#endif
