#include "bolt/builder.h"

#include <stdlib.h>

#include "core/array.h"

typedef struct {
    uint32_t flags;
    uint32_t key_size;
    uint32_t value_size;
} leaf_entry;

typedef struct {
    uint64_t child;
    uint32_t key_size;
} branch_entry;

/* One level of branch pages being filled. Entries [0, closed) form a full page that is held back until two
 * more entries follow, so that no page ever gets a single child (section 5, rule 2). */
typedef struct {
    bkm_buffer keys;
    branch_entry *entries;
    uint32_t count;
    size_t capacity;
    uint32_t closed;
    size_t open_size;     /* size in bytes of the page formed by the entries after `closed` */
} branch_level;

/* An open bucket. */
typedef struct {
    bkm_buffer name;
    uint64_t sequence;
    bkm_buffer data;      /* keys and values of the leaf being filled */
    leaf_entry *entries;
    uint32_t count;
    size_t capacity;
    size_t last_key;      /* offset of the last key in data */
    bkm_buffer last_flushed; /* last key of the previous leaf, to check the order */
    bool paged;           /* not inline: a leaf was written, or it has a nested bucket */
    branch_level *levels;
    size_t room;          /* allocated levels in the array */
    int depth;            /* levels in use */
    int allocated;
} bucket;

struct bkm_builder {
    uint32_t page_size;
    uint32_t fill;
    bkm_sink sink;
    void *context;
    bkm_build_status status;
    uint64_t next_page;
    bkm_block block;
    size_t filled;        /* bytes of the block in use */
    int nesting;          /* index of the innermost open bucket; 0 is the root */
    bucket buckets[BKM_MAX_NESTING + 1];
};

static const char *const status_texts[] = {
    [BKM_BUILD_OK] = "",
    [BKM_BUILD_NO_MEMORY] = "out of memory",
    [BKM_BUILD_SINK_FAILED] = "the sink failed",
    [BKM_BUILD_KEY_ORDER] = "keys must come in ascending byte order",
    [BKM_BUILD_KEY_SIZE] = "a key must have 1 to 32768 bytes",
    [BKM_BUILD_VALUE_SIZE] = "a value must have at most 2147483646 bytes",
    [BKM_BUILD_NESTING] = "buckets nested too deep, or more of them closed than opened",
    [BKM_BUILD_FINISHED] = "the file is finished",
};

const char *bkm_build_status_text(bkm_build_status status)
{
    return status_texts[status];
}

bkm_build_status bkm_builder_status(const bkm_builder *builder)
{
    return builder->status;
}

static bool fail(bkm_builder *builder, bkm_build_status status)
{
    builder->status = status;
    return false;
}

/* ---- buffers ---- */

static bool reserve(bkm_builder *builder, bkm_buffer *buf, size_t more)
{
    return bkm_buffer_room(buf, more, 256) || fail(builder, BKM_BUILD_NO_MEMORY);
}

static bool append(bkm_builder *builder, bkm_buffer *buf, const void *data, size_t size)
{
    if (!reserve(builder, buf, size))
        return false;
    if (size)
        memcpy(buf->data + buf->size, data, size);
    buf->size += size;
    return true;
}

/* Makes room for one more element of an array. */
static bool grow(bkm_builder *builder, void *array, uint32_t count, size_t *capacity, size_t size)
{
    return bkm_array_room(array, capacity, (size_t)count + 1, size, 32) || fail(builder, BKM_BUILD_NO_MEMORY);
}

/* ---- pages ---- */

/* Passes the block to the sink, and gets one with room for `wanted` bytes. */
static bool next_block(bkm_builder *builder, size_t wanted)
{
    if (!builder->sink(builder->context, &builder->block, builder->filled, wanted))
        return fail(builder, BKM_BUILD_SINK_FAILED);
    builder->filled = 0;
    return true;
}

/* The next `bytes` of the file, zeroed; NULL on failure. */
static uint8_t *take(bkm_builder *builder, size_t bytes)
{
    if (builder->block.capacity - builder->filled < bytes && !next_block(builder, bytes))
        return NULL;
    uint8_t *place = builder->block.data + builder->filled;
    memset(place, 0, bytes);
    builder->filled += bytes;
    return place;
}

/* Starts a run of pages for `size` bytes (header included). Returns its address, zeroed, or NULL. */
static uint8_t *new_run(bkm_builder *builder, uint16_t flags, uint32_t count, size_t size, uint64_t *id)
{
    uint64_t pages = size ? (size + builder->page_size - 1) / builder->page_size : 1;
    uint8_t *page = take(builder, (size_t)pages * builder->page_size);
    if (!page)
        return NULL;
    *id = builder->next_page;
    builder->next_page += pages;
    bkm_store64(page, *id);
    bkm_store16(page + 8, flags);
    bkm_store16(page + 10, (uint16_t)count);
    bkm_store32(page + 12, (uint32_t)(pages - 1));
    return page;
}

/* Writes the element table and data of a leaf page after its header. */
static void fill_leaf(uint8_t *page, const leaf_entry *entries, uint32_t count, const bkm_buffer *data)
{
    uint8_t *element = page + BKM_PAGE_HEADER;
    uint32_t position = count * BKM_LEAF_ELEMENT;
    for (uint32_t i = 0; i < count; i++, element += BKM_LEAF_ELEMENT) {
        bkm_store32(element, entries[i].flags);
        bkm_store32(element + 4, position);
        bkm_store32(element + 8, entries[i].key_size);
        bkm_store32(element + 12, entries[i].value_size);
        position += entries[i].key_size + entries[i].value_size - BKM_LEAF_ELEMENT;
    }
    if (data->size)
        memcpy(element, data->data, data->size);
}

static size_t leaf_size(const bucket *bucket)
{
    return BKM_PAGE_HEADER + (size_t)bucket->count * BKM_LEAF_ELEMENT + bucket->data.size;
}

static bool add_branch(bkm_builder *builder, bucket *bucket, int level, const uint8_t *key, uint32_t key_size,
                       uint64_t child);

/* Writes entries [0, count) of a level as a page, adds it to the level above, and removes the entries. */
static bool write_branch(bkm_builder *builder, bucket *bucket, int index, uint32_t count)
{
    branch_level *level = &bucket->levels[index];
    size_t key_bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        key_bytes += level->entries[i].key_size;
    uint64_t id;
    uint8_t *page = new_run(builder, BKM_PAGE_BRANCH, count,
                            BKM_PAGE_HEADER + (size_t)count * BKM_BRANCH_ELEMENT + key_bytes, &id);
    if (!page)
        return false;
    uint8_t *element = page + BKM_PAGE_HEADER;
    uint32_t position = count * BKM_BRANCH_ELEMENT;
    for (uint32_t i = 0; i < count; i++, element += BKM_BRANCH_ELEMENT) {
        bkm_store32(element, position);
        bkm_store32(element + 4, level->entries[i].key_size);
        bkm_store64(element + 8, level->entries[i].child);
        position += level->entries[i].key_size - BKM_BRANCH_ELEMENT;
    }
    memcpy(element, level->keys.data, key_bytes);
    if (!add_branch(builder, bucket, index + 1, level->keys.data, level->entries[0].key_size, id))
        return false;
    level = &bucket->levels[index];  /* the array of levels may have moved */
    level->keys.size -= key_bytes;
    memmove(level->keys.data, level->keys.data + key_bytes, level->keys.size);
    level->count -= count;
    memmove(level->entries, level->entries + count, level->count * sizeof *level->entries);
    level->closed = 0;
    return true;
}

static bool add_branch(bkm_builder *builder, bucket *bucket, int index, const uint8_t *key, uint32_t key_size,
                       uint64_t child)
{
    if (index == bucket->allocated) {
        if (!grow(builder, &bucket->levels, (uint32_t)index, &bucket->room, sizeof *bucket->levels))
            return false;
        bucket->levels[bucket->allocated++] = (branch_level){0};
    }
    branch_level *level = &bucket->levels[index];
    if (index == bucket->depth) {
        bucket->depth++;
        level->open_size = BKM_PAGE_HEADER;
    }
    size_t size = BKM_BRANCH_ELEMENT + key_size;
    uint32_t open = level->count - level->closed;
    bool full = level->open_size + size > builder->fill || open == BKM_MAX_ELEMENTS;
    if (open >= 2 && full) {
        /* The open page is full. The held-back page before it, if any, can be written now: two entries
         * follow it. */
        if (level->closed && !write_branch(builder, bucket, index, level->closed))
            return false;
        level = &bucket->levels[index];
        level->closed = level->count;
        level->open_size = BKM_PAGE_HEADER;
    }
    if (!grow(builder, &level->entries, level->count, &level->capacity, sizeof *level->entries) ||
        !append(builder, &level->keys, key, key_size))
        return false;
    level->entries[level->count++] = (branch_entry){child, key_size};
    level->open_size += size;
    return true;
}

/* Completes all levels from the bottom up. Returns the bucket's root page. */
static bool finish_branches(bkm_builder *builder, bucket *bucket, uint64_t *root)
{
    for (int index = 0;; index++) {
        branch_level *level = &bucket->levels[index];
        /* A single entry is the root, unless this level was written in part already and so has a level
         * above. */
        if (level->count == 1 && index + 1 == bucket->depth) {
            *root = level->entries[0].child;
            level->count = 0;
            level->keys.size = 0;
            bucket->depth = 0;
            return true;
        }
        uint32_t open = level->count - level->closed;
        uint32_t first = level->closed;
        if (first && open == 1) {
            /* The last page has a single entry: it takes over one from the page before, or is merged into
             * it. */
            first = first > 2 ? first - 1 : level->count;
        }
        if (first && !write_branch(builder, bucket, index, first))
            return false;
        level = &bucket->levels[index];
        if (level->count && !write_branch(builder, bucket, index, level->count))
            return false;
    }
}

static bool flush_leaf(bkm_builder *builder, bucket *bucket)
{
    uint64_t id;
    uint8_t *page = new_run(builder, BKM_PAGE_LEAF, bucket->count, leaf_size(bucket), &id);
    if (!page)
        return false;
    fill_leaf(page, bucket->entries, bucket->count, &bucket->data);
    bucket->paged = true;
    if (bucket->count == 0)  /* an empty bucket that is not inline: only the root */
        return add_branch(builder, bucket, 0, (const uint8_t *)"", 0, id);
    if (!add_branch(builder, bucket, 0, bucket->data.data, bucket->entries[0].key_size, id))
        return false;
    bucket->last_flushed.size = 0;
    if (!append(builder, &bucket->last_flushed, bucket->data.data + bucket->last_key,
                bucket->entries[bucket->count - 1].key_size))
        return false;
    bucket->count = 0;
    bucket->data.size = 0;
    return true;
}

/* ---- the push interface ---- */

static bool check_order(bkm_builder *builder, const bucket *bucket, bkm_span key)
{
    bkm_span last;
    if (bucket->count)
        last = (bkm_span){bucket->data.data + bucket->last_key, bucket->entries[bucket->count - 1].key_size};
    else if (bucket->last_flushed.size)
        last = (bkm_span){bucket->last_flushed.data, (uint32_t)bucket->last_flushed.size};
    else
        return true;
    return bkm_span_compare(last, key) < 0 || fail(builder, BKM_BUILD_KEY_ORDER);
}

static bool check_key(bkm_builder *builder, bkm_span key)
{
    if (builder->status != BKM_BUILD_OK)
        return false;
    if (key.size == 0 || key.size > BKM_MAX_KEY)
        return fail(builder, BKM_BUILD_KEY_SIZE);
    return check_order(builder, &builder->buckets[builder->nesting], key);
}

/* Adds an element to the innermost bucket's leaf. Returns where to write its value, or NULL. */
static uint8_t *add_element(bkm_builder *builder, uint32_t flags, bkm_span key, size_t value_size)
{
    bucket *bucket = &builder->buckets[builder->nesting];
    if (value_size > BKM_MAX_VALUE) {
        fail(builder, BKM_BUILD_VALUE_SIZE);
        return NULL;
    }
    size_t size = BKM_LEAF_ELEMENT + key.size + value_size;
    /* `fill` is at least half a page, so a bucket that may become inline is never flushed here. */
    if (bucket->count && (leaf_size(bucket) + size > builder->fill || bucket->count == BKM_MAX_ELEMENTS) &&
        !flush_leaf(builder, bucket))
        return NULL;
    if (!grow(builder, &bucket->entries, bucket->count, &bucket->capacity, sizeof *bucket->entries) ||
        !reserve(builder, &bucket->data, key.size + value_size))
        return NULL;
    bucket->entries[bucket->count++] = (leaf_entry){flags, key.size, (uint32_t)value_size};
    bucket->last_key = bucket->data.size;
    memcpy(bucket->data.data + bucket->data.size, key.data, key.size);
    uint8_t *value = bucket->data.data + bucket->data.size + key.size;
    bucket->data.size += key.size + value_size;
    if (flags)
        bucket->paged = true;
    return value;
}

bool bkm_builder_put(bkm_builder *builder, bkm_span key, bkm_span value)
{
    if (!check_key(builder, key))
        return false;
    uint8_t *at = add_element(builder, 0, key, value.size);
    if (!at)
        return false;
    if (value.size)
        memcpy(at, value.data, value.size);
    return true;
}

bool bkm_builder_put_inline(bkm_builder *builder, bkm_span key, bkm_span value)
{
    if (!check_key(builder, key))
        return false;
    uint8_t *at = add_element(builder, BKM_ELEMENT_BUCKET, key, value.size);
    if (!at)
        return false;
    memcpy(at, value.data, value.size);
    return true;
}

bool bkm_builder_open(bkm_builder *builder, bkm_span key, uint64_t sequence)
{
    if (!check_key(builder, key))
        return false;
    if (builder->nesting == BKM_MAX_NESTING)
        return fail(builder, BKM_BUILD_NESTING);
    bucket *inner = &builder->buckets[++builder->nesting];
    inner->name.size = 0;
    inner->sequence = sequence;
    inner->data.size = 0;
    inner->count = 0;
    inner->last_flushed.size = 0;
    inner->paged = false;
    return append(builder, &inner->name, key.data, key.size);
}

/* Writes the rest of a bucket that is not inline. Returns its root page. */
static bool finish_bucket(bkm_builder *builder, bucket *bucket, uint64_t *root)
{
    if ((bucket->count || bucket->depth == 0) && !flush_leaf(builder, bucket))
        return false;
    return finish_branches(builder, bucket, root);
}

uint32_t bkm_builder_inline_limit(const bkm_builder *builder)
{
    return builder->page_size / 4 + BKM_BUCKET_HEADER;
}

bool bkm_builder_close(bkm_builder *builder)
{
    if (builder->status != BKM_BUILD_OK)
        return false;
    if (builder->nesting == 0)
        return fail(builder, BKM_BUILD_NESTING);
    bucket *inner = &builder->buckets[builder->nesting];
    bkm_span name = {inner->name.data, (uint32_t)inner->name.size};
    size_t inline_size = BKM_BUCKET_HEADER + leaf_size(inner);
    if (!inner->paged && inline_size <= bkm_builder_inline_limit(builder)) {
        builder->nesting--;
        uint8_t *value = add_element(builder, BKM_ELEMENT_BUCKET, name, inline_size);
        if (!value)
            return false;
        bkm_store64(value, 0);
        bkm_store64(value + 8, inner->sequence);
        memset(value + BKM_BUCKET_HEADER, 0, BKM_PAGE_HEADER);
        bkm_store16(value + BKM_BUCKET_HEADER + 8, BKM_PAGE_LEAF);
        bkm_store16(value + BKM_BUCKET_HEADER + 10, (uint16_t)inner->count);
        fill_leaf(value + BKM_BUCKET_HEADER, inner->entries, inner->count, &inner->data);
        return true;
    }
    uint64_t root;
    if (!finish_bucket(builder, inner, &root))
        return false;
    builder->nesting--;
    uint8_t *value = add_element(builder, BKM_ELEMENT_BUCKET, name, BKM_BUCKET_HEADER);
    if (!value)
        return false;
    bkm_store64(value, root);
    bkm_store64(value + 8, inner->sequence);
    return true;
}

static void write_meta(const bkm_builder *builder, uint8_t *page, uint64_t transaction, uint64_t root,
                       uint64_t freelist, uint64_t sequence)
{
    memset(page, 0, builder->page_size);
    bkm_store64(page, transaction & 1);
    bkm_store16(page + 8, BKM_PAGE_META);
    bkm_store32(page + 16, BKM_META_MAGIC);
    bkm_store32(page + 20, BKM_META_VERSION);
    bkm_store32(page + 24, builder->page_size);
    bkm_store64(page + 32, root);
    bkm_store64(page + 40, sequence);
    bkm_store64(page + 48, freelist);
    bkm_store64(page + 56, builder->next_page);
    bkm_store64(page + 64, transaction);
    bkm_store64(page + 72, bkm_meta_checksum(page));
}

bool bkm_builder_finish(bkm_builder *builder, uint8_t *metas, bkm_ending ending)
{
    if (builder->status != BKM_BUILD_OK)
        return false;
    if (builder->nesting != 0)
        return fail(builder, BKM_BUILD_NESTING);
    uint64_t root, freelist = BKM_NO_FREELIST;
    if (!finish_bucket(builder, &builder->buckets[0], &root) ||
        (ending.freelist && !new_run(builder, BKM_PAGE_FREELIST, 0, 0, &freelist)) || !next_block(builder, 0))
        return false;
    /* The parity of a transaction selects its meta page, so the next one won't overwrite the current one
     * (section 13). */
    for (uint64_t one = ending.transaction - 1; one <= ending.transaction; one++)
        write_meta(builder, metas + (one & 1) * (size_t)builder->page_size, one, root, freelist, ending.sequence);
    builder->status = BKM_BUILD_FINISHED;
    return true;
}

bkm_builder *bkm_builder_new(uint32_t page_size, uint32_t fill, bkm_sink sink, void *context)
{
    bkm_builder *builder = calloc(1, sizeof *builder);
    if (!builder)
        return NULL;
    builder->page_size = page_size;
    builder->fill = fill;
    builder->sink = sink;
    builder->context = context;
    if (!take(builder, 2 * (size_t)page_size)) { /* room for the meta pages */
        bkm_builder_free(builder);
        return NULL;
    }
    builder->next_page = 2;
    return builder;
}

void bkm_builder_free(bkm_builder *builder)
{
    if (!builder)
        return;
    for (int i = 0; i <= BKM_MAX_NESTING; i++) {
        bucket *bucket = &builder->buckets[i];
        for (int level = 0; level < bucket->allocated; level++) {
            free(bucket->levels[level].keys.data);
            free(bucket->levels[level].entries);
        }
        free(bucket->levels);
        free(bucket->entries);
        free(bucket->name.data);
        free(bucket->data.data);
        free(bucket->last_flushed.data);
    }
    free(builder);
}
