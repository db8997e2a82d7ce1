/* Reader of bbolt files in memory: meta pages, checked pages, cursors. Every offset is checked to lie
 * within the file before it is followed. Every broken rule is reported with the page it was found on. */
#ifndef BKM_BOLT_READER_H
#define BKM_BOLT_READER_H

#include <stdbool.h>
#include <stddef.h>

#include "bolt/format.h"
#include "core/span.h"

#define BKM_NO_PAGE UINT64_MAX

/* Broken rules (spec bbolt-format, section 14). Their texts are in bkm_rule_text. */
typedef enum {
    BKM_OK = 0,
    BKM_NO_MEMORY,
    BKM_INTERRUPTED,
    BKM_TOO_SHORT,
    BKM_BAD_MAGIC,
    BKM_BIG_ENDIAN,
    BKM_BAD_VERSION,
    BKM_BAD_CHECKSUM,
    BKM_BAD_PAGE_SIZE,
    BKM_PAGE_SIZES_DIFFER,
    BKM_TRUNCATED,
    BKM_UNREADABLE,
    BKM_BAD_HIGH_WATER,
    BKM_BAD_ROOT,
    BKM_BAD_FREELIST_ID,
    BKM_PAGE_OUT_OF_FILE,
    BKM_WRONG_PAGE_ID,
    BKM_WRONG_PAGE_FLAGS,
    BKM_PAGE_VISITED_TWICE,
    BKM_TREE_TOO_DEEP,
    BKM_ELEMENTS_OUT_OF_PAGE,
    BKM_DATA_OUT_OF_PAGE,
    BKM_DATA_OVERLAPS,
    BKM_BAD_KEY_SIZE,
    BKM_BAD_VALUE_SIZE,
    BKM_BAD_ELEMENT_FLAGS,
    BKM_BAD_BUCKET_VALUE,
    BKM_BAD_INLINE_PAGE,
    BKM_KEY_ORDER,
    BKM_EMPTY_BRANCH,
    BKM_BAD_CHILD_ID,
    BKM_EMPTY_LEAF,
    BKM_UNEVEN_DEPTH,
    BKM_NESTED_TOO_DEEP,
    BKM_FREELIST_OVERRUN,
    BKM_FREELIST_BAD_ID,
    BKM_TOO_MANY_ROWS,
    BKM_NO_PREVIOUS,
    BKM_RULES
} bkm_rule;

const char *bkm_rule_text(bkm_rule rule);

typedef struct {
    const uint8_t *data;
    uint64_t size;
    uint32_t page_size;
    uint64_t high_water;
    uint64_t root;
    uint64_t root_sequence;
    uint64_t freelist;    /* BKM_NO_FREELIST if none is stored */
    uint64_t transaction;
    bkm_rule other_meta;  /* why the other meta page is invalid; BKM_OK if it is valid */
    uint8_t *checked;     /* bitmap by page: the page was checked */
    bool mapped;          /* see mapping.h */
    uint64_t ahead;       /* from pages that are checked to those that will be next; 0 = not known (ahead.h) */

    bkm_rule rule;        /* last error */
    uint64_t rule_page;   /* BKM_NO_PAGE if the rule concerns the whole file */

    /* Called from time to time while pages are read. Returning false ends that with BKM_INTERRUPTED. May
     * be NULL. */
    bool (*go_on)(void *context);
    void *context;
    volatile uint64_t pages_read; /* so far; other threads look at it to show how far a read is */
} bkm_bolt;

/* A page whose header, element table and data have been checked. */
typedef struct {
    const uint8_t *data;
    uint64_t id;          /* BKM_NO_PAGE for the page of an inline bucket */
    uint32_t count;
    bool leaf;
} bkm_page;

typedef struct {
    bkm_span key;
    bkm_span value;
    bool bucket;
} bkm_item;

/* The start of a bucket's tree: a root page, or an inline page within the value. */
typedef struct {
    uint64_t root;        /* 0 = inline */
    uint64_t sequence;
    bkm_span inline_page;
} bkm_bucket;

typedef struct {
    bkm_page page;
    uint32_t index;
} bkm_cursor_level;

/* Walks through one bucket in key order. */
typedef struct {
    bkm_bolt *bolt;
    uint8_t *visited;     /* NULL, or a bitmap by page in which a second visit is an error */
    int depth;            /* levels in use; 0 = at the end */
    int leaf_depth;       /* depth of the leaves of this tree, 0 = not known yet */
    const uint8_t *ahead; /* the page that is read after this leaf; NULL = not known */
    bkm_cursor_level levels[BKM_MAX_TREE_DEPTH];
} bkm_cursor;

/* What is wrong with the meta page at this offset. */
bkm_rule bkm_meta_rule(const bkm_bolt *bolt, uint64_t offset);
/* Searches for the second meta page when the first one does not give its offset; 0 if there is none. */
uint64_t bkm_second_meta(const bkm_bolt *bolt);

/* Opens a file image. Returns false with bolt->rule set on failure. */
bool bkm_bolt_open(bkm_bolt *bolt, const uint8_t *data, uint64_t size);
/* Opens the state before the newest transaction. Pages freed by that one still exist: bbolt does not reuse
 * them before the next one. */
bool bkm_bolt_open_previous(bkm_bolt *bolt, const uint8_t *data, uint64_t size);
void bkm_bolt_close(bkm_bolt *bolt);

bool bkm_bolt_fail(bkm_bolt *bolt, bkm_rule rule, uint64_t page);

/* A zeroed bitmap with one bit per page of the file; NULL when out of memory. */
uint8_t *bkm_bolt_bitmap(bkm_bolt *bolt);

/* Number of pages in the run that starts at `data` (header included). */
static inline uint64_t bkm_run_pages(const uint8_t *data)
{
    return (uint64_t)bkm_load32(data + 12) + 1;
}

bkm_bucket bkm_root_bucket(const bkm_bolt *bolt);
/* Decodes the value of a bucket element; fails on a malformed header. `page` is for the error. */
bool bkm_bucket_decode(bkm_bolt *bolt, bkm_span value, uint64_t page, bkm_bucket *bucket);

bkm_item bkm_leaf_item(const bkm_page *page, uint32_t index);
bkm_span bkm_branch_key(const bkm_page *page, uint32_t index);
uint64_t bkm_branch_child(const bkm_page *page, uint32_t index);
static inline bkm_span bkm_page_key(const bkm_page *page, uint32_t index)
{
    return page->leaf ? bkm_leaf_item(page, index).key : bkm_branch_key(page, index);
}
/* What is wrong with one element of a page of `bytes` bytes; its table must lie within these. */
bkm_rule bkm_element_rule(const bkm_page *page, uint32_t index, uint64_t bytes, bool is_inline);
/* Returns a leaf or branch page by number; checks it on first use. */
bool bkm_page_at(bkm_bolt *bolt, uint64_t id, bkm_page *page);
bool bkm_bucket_root_page(bkm_bolt *bolt, const bkm_bucket *bucket, bkm_page *page);

/* Places the cursor on the first key, or on the first key >= `start` (at the end if there is none). */
bool bkm_cursor_first(bkm_cursor *cursor, bkm_bolt *bolt, const bkm_bucket *bucket, uint8_t *visited);
bool bkm_cursor_seek(bkm_cursor *cursor, bkm_bolt *bolt, const bkm_bucket *bucket, bkm_span start);
bool bkm_cursor_next(bkm_cursor *cursor);

static inline bool bkm_cursor_end(const bkm_cursor *cursor)
{
    return cursor->depth == 0;
}
bkm_item bkm_cursor_item(const bkm_cursor *cursor);
uint64_t bkm_cursor_page(const bkm_cursor *cursor);

/* Looks up a key. *found tells whether it exists. */
bool bkm_bucket_find(bkm_bolt *bolt, const bkm_bucket *bucket, bkm_span key, bkm_item *item, bool *found);
/* Descends `depth` bucket names from `bucket`. *found is false if one is missing or not a bucket. */
bool bkm_bucket_descend(bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_span *path, size_t depth,
                        bkm_bucket *inner, bool *found);

#endif
