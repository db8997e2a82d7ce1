#include "bolt/reader.h"

#include <stdlib.h>

#include "bolt/ahead.h"
#include "core/bits.h"

static const char *const rule_texts[BKM_RULES] = {
    [BKM_OK] = "",
    [BKM_NO_MEMORY] = "out of memory",
    [BKM_INTERRUPTED] = "interrupted",
    [BKM_TOO_SHORT] = "too short to be a bbolt file",
    [BKM_BAD_MAGIC] = "not a bbolt file (wrong magic number)",
    [BKM_BIG_ENDIAN] = "written on a big-endian machine, which is not supported",
    [BKM_BAD_VERSION] = "unknown format version",
    [BKM_BAD_CHECKSUM] = "wrong checksum of the meta page",
    [BKM_BAD_PAGE_SIZE] = "impossible page size",
    [BKM_PAGE_SIZES_DIFFER] = "the two meta pages state different page sizes",
    [BKM_TRUNCATED] = "truncated: the file is shorter than its pages in use",
    [BKM_UNREADABLE] = "the disk can't read the page",
    [BKM_BAD_HIGH_WATER] = "impossible high-water mark",
    [BKM_BAD_ROOT] = "root bucket is not in the file",
    [BKM_BAD_FREELIST_ID] = "free list is not in the file",
    [BKM_PAGE_OUT_OF_FILE] = "page lies beyond the pages in use",
    [BKM_WRONG_PAGE_ID] = "page header names another page",
    [BKM_WRONG_PAGE_FLAGS] = "wrong type of page",
    [BKM_PAGE_VISITED_TWICE] = "page is reached twice (cycle or shared page)",
    [BKM_TREE_TOO_DEEP] = "tree is deeper than any valid file's",
    [BKM_ELEMENTS_OUT_OF_PAGE] = "element table runs out of the page",
    [BKM_DATA_OUT_OF_PAGE] = "key or value lies outside of the page",
    [BKM_DATA_OVERLAPS] = "keys and values of the page overlap",
    [BKM_BAD_KEY_SIZE] = "empty key, or key longer than 32768 bytes",
    [BKM_BAD_VALUE_SIZE] = "value longer than the format allows",
    [BKM_BAD_ELEMENT_FLAGS] = "unknown element flags",
    [BKM_BAD_BUCKET_VALUE] = "malformed bucket header",
    [BKM_BAD_INLINE_PAGE] = "malformed page of an inline bucket",
    [BKM_KEY_ORDER] = "keys are not in order",
    [BKM_EMPTY_BRANCH] = "branch page without children",
    [BKM_BAD_CHILD_ID] = "impossible page number of a child",
    [BKM_EMPTY_LEAF] = "empty leaf below a branch",
    [BKM_UNEVEN_DEPTH] = "leaves of one tree at different depths",
    [BKM_NESTED_TOO_DEEP] = "buckets nested deeper than 64 levels",
    [BKM_FREELIST_OVERRUN] = "free list runs out of its pages",
    [BKM_FREELIST_BAD_ID] = "impossible page number in the free list",
    [BKM_NO_PREVIOUS] = "the transaction before the newest one is lost: a meta page is invalid",
    [BKM_TOO_MANY_ROWS] = "more records, snapshots, blobs or leases than this program can handle",
};

const char *bkm_rule_text(bkm_rule rule)
{
    return rule_texts[rule];
}

bool bkm_bolt_fail(bkm_bolt *bolt, bkm_rule rule, uint64_t page)
{
    bolt->rule = rule;
    bolt->rule_page = page;
    return false;
}

uint8_t *bkm_bolt_bitmap(bkm_bolt *bolt)
{
    uint8_t *bitmap = bkm_bits_new(bolt->high_water);
    if (!bitmap)
        bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
    return bitmap;
}

/* Sets the bits of `pages` pages starting at `id`; false if one was set already. */
static bool mark(uint8_t *bitmap, uint64_t id, uint64_t pages)
{
    for (uint64_t page = id; page < id + pages; page++) {
        if (bkm_bits_have(bitmap, page))
            return false;
        bkm_bits_add(bitmap, page);
    }
    return true;
}

/* ---- meta pages (section 3) ---- */

static bool is_power_of_two(uint64_t value)
{
    return value && (value & (value - 1)) == 0;
}

bkm_rule bkm_meta_rule(const bkm_bolt *bolt, uint64_t offset)
{
    if (offset > bolt->size || bolt->size - offset < BKM_META_END)
        return BKM_TOO_SHORT;
    const uint8_t *meta = bolt->data + offset;
    uint32_t magic = bkm_load32(meta + 16);
    if (magic == __builtin_bswap32(BKM_META_MAGIC))
        return BKM_BIG_ENDIAN;
    if (magic != BKM_META_MAGIC)
        return BKM_BAD_MAGIC;
    if (bkm_load32(meta + 20) != BKM_META_VERSION)
        return BKM_BAD_VERSION;
    if (bkm_load64(meta + 72) != bkm_meta_checksum(meta))
        return BKM_BAD_CHECKSUM;
    uint32_t page_size = bkm_load32(meta + 24);
    if (!is_power_of_two(page_size) || page_size < BKM_MIN_PAGE_SIZE || page_size > BKM_MAX_PAGE_SIZE)
        return BKM_BAD_PAGE_SIZE;
    return BKM_OK;
}

uint64_t bkm_second_meta(const bkm_bolt *bolt)
{
    for (uint64_t offset = BKM_MIN_PAGE_SIZE; offset <= BKM_MAX_PAGE_SIZE; offset <<= 1)
        if (bkm_meta_rule(bolt, offset) == BKM_OK && bkm_load32(bolt->data + offset + 24) == offset)
            return offset;
    return 0;
}

static bool open_transaction(bkm_bolt *bolt, const uint8_t *data, uint64_t size, bool previous)
{
    memset(bolt, 0, sizeof *bolt);
    bolt->data = data;
    bolt->size = size;
    bolt->rule_page = BKM_NO_PAGE;
    if (size < 2 * BKM_MIN_PAGE_SIZE)
        return bkm_bolt_fail(bolt, BKM_TOO_SHORT, BKM_NO_PAGE);

    bkm_rule first = bkm_meta_rule(bolt, 0);
    uint64_t second_offset = first == BKM_OK ? bkm_load32(data + 24) : bkm_second_meta(bolt);
    bkm_rule second = second_offset ? bkm_meta_rule(bolt, second_offset) : BKM_BAD_MAGIC;
    if (first != BKM_OK && second != BKM_OK)
        return bkm_bolt_fail(bolt, first, 0);
    if (second == BKM_OK && bkm_load32(data + second_offset + 24) != second_offset)
        return bkm_bolt_fail(bolt, first == BKM_OK ? BKM_PAGE_SIZES_DIFFER : BKM_BAD_PAGE_SIZE, 1);

    if (previous && (first != BKM_OK || second != BKM_OK))
        return bkm_bolt_fail(bolt, BKM_NO_PREVIOUS, first != BKM_OK ? 0 : 1);
    bool use_second =
        first != BKM_OK || (second == BKM_OK && bkm_load64(data + second_offset + 64) > bkm_load64(data + 64));
    use_second = use_second != previous;
    const uint8_t *meta = data + (use_second ? second_offset : 0);
    uint64_t meta_page = use_second ? 1 : 0;
    bolt->other_meta = use_second ? first : second;
    bolt->page_size = bkm_load32(meta + 24);
    bolt->root = bkm_load64(meta + 32);
    bolt->root_sequence = bkm_load64(meta + 40);
    bolt->freelist = bkm_load64(meta + 48);
    bolt->high_water = bkm_load64(meta + 56);
    bolt->transaction = bkm_load64(meta + 64);

    if (bolt->high_water < 3)
        return bkm_bolt_fail(bolt, BKM_BAD_HIGH_WATER, meta_page);
    if (bolt->high_water > size / bolt->page_size)
        return bkm_bolt_fail(bolt, BKM_TRUNCATED, meta_page);
    if (bolt->root < 2 || bolt->root >= bolt->high_water)
        return bkm_bolt_fail(bolt, BKM_BAD_ROOT, meta_page);
    if (bolt->freelist != BKM_NO_FREELIST && (bolt->freelist < 2 || bolt->freelist >= bolt->high_water))
        return bkm_bolt_fail(bolt, BKM_BAD_FREELIST_ID, meta_page);
    bolt->checked = bkm_bolt_bitmap(bolt);
    return bolt->checked != NULL;
}

bool bkm_bolt_open(bkm_bolt *bolt, const uint8_t *data, uint64_t size)
{
    return open_transaction(bolt, data, size, false);
}

bool bkm_bolt_open_previous(bkm_bolt *bolt, const uint8_t *data, uint64_t size)
{
    return open_transaction(bolt, data, size, true);
}

void bkm_bolt_close(bkm_bolt *bolt)
{
    free(bolt->checked);
    bolt->checked = NULL;
}

/* ---- pages (sections 2, 4, 5, 6) ---- */

bkm_item bkm_leaf_item(const bkm_page *page, uint32_t index)
{
    const uint8_t *element = page->data + BKM_PAGE_HEADER + (size_t)index * BKM_LEAF_ELEMENT;
    const uint8_t *key = element + bkm_load32(element + 4);
    uint32_t key_size = bkm_load32(element + 8);
    return (bkm_item){
        .key = {key, key_size},
        .value = {key + key_size, bkm_load32(element + 12)},
        .bucket = bkm_load32(element) == BKM_ELEMENT_BUCKET,
    };
}

bkm_span bkm_branch_key(const bkm_page *page, uint32_t index)
{
    const uint8_t *element = page->data + BKM_PAGE_HEADER + (size_t)index * BKM_BRANCH_ELEMENT;
    return (bkm_span){element + bkm_load32(element), bkm_load32(element + 4)};
}

uint64_t bkm_branch_child(const bkm_page *page, uint32_t index)
{
    return bkm_load64(page->data + BKM_PAGE_HEADER + (size_t)index * BKM_BRANCH_ELEMENT + 8);
}

bkm_rule bkm_element_rule(const bkm_page *page, uint32_t index, uint64_t bytes, bool is_inline)
{
    uint64_t table_end = BKM_PAGE_HEADER + (uint64_t)page->count * BKM_LEAF_ELEMENT;
    uint64_t at = BKM_PAGE_HEADER + (uint64_t)index * BKM_LEAF_ELEMENT;
    const uint8_t *element = page->data + at;
    uint64_t position, key_size, value_size = 0;
    if (page->leaf) {
        uint32_t flags = bkm_load32(element);
        if (flags > BKM_ELEMENT_BUCKET || (is_inline && flags))
            return BKM_BAD_ELEMENT_FLAGS;
        position = bkm_load32(element + 4);
        key_size = bkm_load32(element + 8);
        value_size = bkm_load32(element + 12);
        if (value_size > BKM_MAX_VALUE)
            return BKM_BAD_VALUE_SIZE;
    } else {
        position = bkm_load32(element);
        key_size = bkm_load32(element + 4);
        uint64_t child = bkm_load64(element + 8);
        if (child < 2 || child == page->id)
            return BKM_BAD_CHILD_ID;
    }
    if (key_size == 0 || key_size > BKM_MAX_KEY)
        return BKM_BAD_KEY_SIZE;
    if (at + position < table_end || at + position + key_size + value_size > bytes)
        return BKM_DATA_OUT_OF_PAGE;
    return BKM_OK;
}

/* Checks the elements of a page against its size. Their data must fit into the page without overlap:
 * elements that share bytes could make a small file expand to huge output. */
static bkm_rule check_elements(const bkm_page *page, uint64_t bytes, bool is_inline, uint64_t ahead)
{
    uint64_t table_end = BKM_PAGE_HEADER + (uint64_t)page->count * BKM_LEAF_ELEMENT, room = bytes - table_end;
    bkm_span before = {NULL, 0};
    if (table_end > bytes)
        return BKM_ELEMENTS_OUT_OF_PAGE;
    for (uint32_t i = 0; i < page->count; i++) {
        bkm_rule rule = bkm_element_rule(page, i, bytes, is_inline);
        if (rule != BKM_OK)
            return rule;
        bkm_item item = page->leaf ? bkm_leaf_item(page, i) : (bkm_item){.key = bkm_branch_key(page, i)};
        uint64_t size = item.key.size + (uint64_t)item.value.size;
        if (size > room)
            return BKM_DATA_OVERLAPS;
        room -= size;
        bkm_prefetch_like(item, ahead);
        if (i > 0 && bkm_span_compare(before, item.key) >= 0)
            return BKM_KEY_ORDER;
        before = item.key;
    }
    return BKM_OK;
}

/* Every long operation passes through here. */
static bool goes_on(bkm_bolt *bolt)
{
    enum { PAGES = 4096 };
    if (++bolt->pages_read % PAGES)
        return true;
    return !bolt->go_on || bolt->go_on(bolt->context) || bkm_bolt_fail(bolt, BKM_INTERRUPTED, BKM_NO_PAGE);
}

bool bkm_page_at(bkm_bolt *bolt, uint64_t id, bkm_page *page)
{
    if (!goes_on(bolt))
        return false;
    if (id < 2 || id >= bolt->high_water)
        return bkm_bolt_fail(bolt, BKM_PAGE_OUT_OF_FILE, id);
    const uint8_t *data = bolt->data + id * bolt->page_size;
    uint16_t flags = bkm_load16(data + 8);
    *page = (bkm_page){.data = data, .id = id, .count = bkm_load16(data + 10), .leaf = flags == BKM_PAGE_LEAF};
    if (bkm_bits_have(bolt->checked, id))
        return true;

    if (bkm_load64(data) != id)
        return bkm_bolt_fail(bolt, BKM_WRONG_PAGE_ID, id);
    if (flags != BKM_PAGE_LEAF && flags != BKM_PAGE_BRANCH)
        return bkm_bolt_fail(bolt, BKM_WRONG_PAGE_FLAGS, id);
    if (bkm_run_pages(data) > bolt->high_water - id)
        return bkm_bolt_fail(bolt, BKM_PAGE_OUT_OF_FILE, id);
    if (!page->leaf && page->count == 0)
        return bkm_bolt_fail(bolt, BKM_EMPTY_BRANCH, id);
    bkm_rule rule = check_elements(page, bkm_run_pages(data) * bolt->page_size, false, bolt->ahead);
    if (rule != BKM_OK)
        return bkm_bolt_fail(bolt, rule, id);
    bkm_bits_add(bolt->checked, id);
    return true;
}

bkm_bucket bkm_root_bucket(const bkm_bolt *bolt)
{
    return (bkm_bucket){.root = bolt->root, .sequence = bolt->root_sequence};
}

bool bkm_bucket_decode(bkm_bolt *bolt, bkm_span value, uint64_t page, bkm_bucket *bucket)
{
    if (value.size < BKM_BUCKET_HEADER)
        return bkm_bolt_fail(bolt, BKM_BAD_BUCKET_VALUE, page);
    bucket->root = bkm_load64(value.data);
    bucket->sequence = bkm_load64(value.data + 8);
    bucket->inline_page = (bkm_span){NULL, 0};
    if (bucket->root) {
        if (value.size != BKM_BUCKET_HEADER || bucket->root < 2)
            return bkm_bolt_fail(bolt, BKM_BAD_BUCKET_VALUE, page);
        return true;
    }
    if (value.size < BKM_BUCKET_HEADER + BKM_PAGE_HEADER)
        return bkm_bolt_fail(bolt, BKM_BAD_BUCKET_VALUE, page);
    bucket->inline_page = (bkm_span){value.data + BKM_BUCKET_HEADER, value.size - BKM_BUCKET_HEADER};
    const uint8_t *data = bucket->inline_page.data;
    bkm_page view = {.data = data, .id = BKM_NO_PAGE, .count = bkm_load16(data + 10), .leaf = true};
    if (bkm_load64(data) != 0 || bkm_load16(data + 8) != BKM_PAGE_LEAF || bkm_load32(data + 12) != 0)
        return bkm_bolt_fail(bolt, BKM_BAD_INLINE_PAGE, page);
    bkm_rule rule = check_elements(&view, bucket->inline_page.size, true, bolt->ahead);
    return rule == BKM_OK || bkm_bolt_fail(bolt, rule, page);
}

bool bkm_bucket_root_page(bkm_bolt *bolt, const bkm_bucket *bucket, bkm_page *page)
{
    if (bucket->root)
        return bkm_page_at(bolt, bucket->root, page);
    const uint8_t *data = bucket->inline_page.data;
    *page = (bkm_page){.data = data, .id = BKM_NO_PAGE, .count = bkm_load16(data + 10), .leaf = true};
    return true;
}

/* ---- cursors ---- */

static bool visit(bkm_cursor *cursor, const bkm_page *page)
{
    if (!cursor->visited || page->id == BKM_NO_PAGE)
        return true;
    if (!mark(cursor->visited, page->id, bkm_run_pages(page->data)))
        return bkm_bolt_fail(cursor->bolt, BKM_PAGE_VISITED_TWICE, page->id);
    return true;
}

/* Pushes `page` onto the stack. Its keys must lie between the branch entry that led to it and the next
 * one. As every level is checked in turn, this bounds the whole subtree. */
static bool push(bkm_cursor *cursor, const bkm_page *page, uint32_t index)
{
    bkm_bolt *bolt = cursor->bolt;
    if (cursor->depth == BKM_MAX_TREE_DEPTH)
        return bkm_bolt_fail(bolt, BKM_TREE_TOO_DEEP, page->id);
    if (!visit(cursor, page))
        return false;
    if (cursor->depth > 0) {
        const bkm_cursor_level *above = &cursor->levels[cursor->depth - 1];
        if (page->count == 0)
            return bkm_bolt_fail(bolt, BKM_EMPTY_LEAF, page->id);
        if (bkm_span_compare(bkm_page_key(page, 0), bkm_branch_key(&above->page, above->index)) < 0)
            return bkm_bolt_fail(bolt, BKM_KEY_ORDER, page->id);
        for (int level = cursor->depth - 1; level >= 0; level--) {
            const bkm_cursor_level *bound = &cursor->levels[level];
            if (bound->index + 1 < bound->page.count) {
                if (bkm_span_compare(bkm_page_key(page, page->count - 1),
                                     bkm_branch_key(&bound->page, bound->index + 1)) >= 0)
                    return bkm_bolt_fail(bolt, BKM_KEY_ORDER, page->id);
                break;
            }
        }
    }
    cursor->levels[cursor->depth++] = (bkm_cursor_level){*page, index};
    if (page->leaf) {
        if (cursor->leaf_depth && cursor->leaf_depth != cursor->depth)
            return bkm_bolt_fail(bolt, BKM_UNEVEN_DEPTH, page->id);
        cursor->leaf_depth = cursor->depth;
    }
    return true;
}

/* Descends from the top of the stack to a leaf, always to the first child. */
static bool descend_first(bkm_cursor *cursor)
{
    bkm_cursor_level *top = &cursor->levels[cursor->depth - 1];
    while (!top->page.leaf) {
        bkm_page child;
        cursor->ahead = bkm_next_child(cursor->bolt, &top->page, top->index);
        if (!bkm_page_at(cursor->bolt, bkm_branch_child(&top->page, top->index), &child) || !push(cursor, &child, 0))
            return false;
        top = &cursor->levels[cursor->depth - 1];
    }
    return true;
}

/* After the leaf's index has moved: continues with the next leaf if this one is exhausted. */
static bool settle(bkm_cursor *cursor)
{
    while (cursor->depth > 0) {
        bkm_cursor_level *top = &cursor->levels[cursor->depth - 1];
        if (top->index < top->page.count)
            return top->page.leaf || descend_first(cursor);
        cursor->depth--;
        if (cursor->depth > 0)
            cursor->levels[cursor->depth - 1].index++;
    }
    return true;
}

static bool start(bkm_cursor *cursor, bkm_bolt *bolt, const bkm_bucket *bucket, uint8_t *visited, bkm_page *root)
{
    cursor->bolt = bolt;
    cursor->visited = visited;
    cursor->depth = 0;
    cursor->leaf_depth = 0;
    cursor->ahead = NULL;
    return bkm_bucket_root_page(bolt, bucket, root);
}

bool bkm_cursor_first(bkm_cursor *cursor, bkm_bolt *bolt, const bkm_bucket *bucket, uint8_t *visited)
{
    bkm_page root;
    return start(cursor, bolt, bucket, visited, &root) && push(cursor, &root, 0) && settle(cursor);
}

/* Index of the first key >= `key` on the page. */
static uint32_t lower_bound(const bkm_page *page, bkm_span key)
{
    uint32_t low = 0, high = page->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (bkm_span_compare(bkm_page_key(page, middle), key) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool bkm_cursor_seek(bkm_cursor *cursor, bkm_bolt *bolt, const bkm_bucket *bucket, bkm_span wanted)
{
    bkm_page page;
    if (!start(cursor, bolt, bucket, NULL, &page))
        return false;
    for (;;) {
        uint32_t index = lower_bound(&page, wanted);
        if (page.leaf)
            return push(cursor, &page, index) && settle(cursor);
        bool exact = index < page.count && bkm_span_compare(bkm_branch_key(&page, index), wanted) == 0;
        if (!exact && index > 0)
            index--;
        if (!push(cursor, &page, index) || !bkm_page_at(bolt, bkm_branch_child(&page, index), &page))
            return false;
    }
}

bool bkm_cursor_next(bkm_cursor *cursor)
{
    cursor->levels[cursor->depth - 1].index++;
    return settle(cursor);
}

bkm_item bkm_cursor_item(const bkm_cursor *cursor)
{
    const bkm_cursor_level *top = &cursor->levels[cursor->depth - 1];
    bkm_prefetch_bucket(cursor->bolt, &top->page, top->index);
    bkm_item item = bkm_leaf_item(&top->page, top->index);
    bkm_prefetch_part(cursor->bolt, cursor->ahead, &top->page, top->index, item);
    return item;
}

uint64_t bkm_cursor_page(const bkm_cursor *cursor)
{
    /* The page of an inline bucket has no number; the caller knows which page holds the bucket. */
    return cursor->levels[cursor->depth - 1].page.id;
}

bool bkm_bucket_find(bkm_bolt *bolt, const bkm_bucket *bucket, bkm_span key, bkm_item *item, bool *found)
{
    bkm_cursor cursor;
    if (!bkm_cursor_seek(&cursor, bolt, bucket, key))
        return false;
    *found = false;
    if (!bkm_cursor_end(&cursor)) {
        *item = bkm_cursor_item(&cursor);
        *found = bkm_span_compare(item->key, key) == 0;
    }
    return true;
}

bool bkm_bucket_descend(bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_span *path, size_t depth,
                        bkm_bucket *inner, bool *found)
{
    *inner = *bucket;
    *found = true;
    for (size_t i = 0; i < depth && *found; i++) {
        bkm_item item;
        if (!bkm_bucket_find(bolt, inner, path[i], &item, found))
            return false;
        *found = *found && item.bucket;
        if (*found && !bkm_bucket_decode(bolt, item.value, BKM_NO_PAGE, inner))
            return false;
    }
    return true;
}
