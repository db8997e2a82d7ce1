#include "lmdb/check.h"

#include <stdbool.h>
#include <stdlib.h>

#include "bolt/format.h"
#include "core/bits.h"
#include "core/span.h"

enum {
    PAGE_HEADER = 16,
    PAGE_BRANCH = 0x01,
    PAGE_LEAF = 0x02,
    PAGE_OVERFLOW = 0x04,
    PAGE_META = 0x08,
    NODE_HEADER = 8,
    NODE_BIG = 1,           /* the data is the number of an overflow page */
    MAX_KEY = 511,
    MAX_DEPTH = 32,

    META_MAGIC = 16,        /* offsets in a meta page */
    META_VERSION = 20,
    META_TREES = 40,
    META_LAST_PAGE = 136,
    META_TRANSACTION = 144,
    META_END = 152,
    TREE_SIZE = 48,
    TREE_PAGE_SIZE = 0,     /* offsets in the description of a tree */
    TREE_FLAGS = 4,
    TREE_DEPTH = 6,
    TREE_ROOT = 40,
    TREE_KIND = 0x7F,       /* bits that tell the kind; other flags of the free tree concern the file */
    FREE_TREE_KIND = 0x08,  /* integer keys */
};

#define LMDB_MAGIC 0xBEEFC0DEu
#define NO_PAGE UINT64_MAX

typedef struct {
    const uint8_t *data;
    uint64_t size;
    uint64_t page_size;
    uint64_t last_page;
    unsigned depth;        /* of the current tree */
    bool integer_keys;
    uint8_t *visited;
    bkm_lmdb_finding finding;
} checker;

static bool broken(checker *c, const char *rule, uint64_t page)
{
    c->finding.rule = rule;
    c->finding.page = page;
    return false;
}

/* Checks that `count` pages starting at `id` are in the file and were not reached before. */
static bool claim(checker *c, uint64_t id, uint64_t count)
{
    if (id < 2 || id > c->last_page || count > c->last_page - id + 1)
        return broken(c, "page lies beyond the pages in use", id);
    if (id + count > c->size / c->page_size)
        return broken(c, "truncated: a page in use is not in the file", id);
    for (uint64_t page = id; page < id + count; page++) {
        if (bkm_bits_have(c->visited, page))
            return broken(c, "page is reached twice (cycle or shared page)", page);
        bkm_bits_add(c->visited, page);
    }
    return true;
}

/* The header must be in the file, as it tells how many pages follow. */
static bool check_overflow(checker *c, uint64_t id, uint64_t bytes)
{
    if (!claim(c, id, 1))
        return false;
    const uint8_t *page = c->data + id * c->page_size;
    uint64_t pages = bkm_load32(page + 12);
    if (bkm_load64(page) != id || bkm_load16(page + 10) != PAGE_OVERFLOW)
        return broken(c, "wrong type of page", id);
    if (pages * c->page_size < PAGE_HEADER + bytes)
        return broken(c, "value runs out of its pages", id);
    return pages == 1 || claim(c, id + 1, pages - 1);
}

static bool check_order(checker *c, uint64_t id, bkm_span before, bkm_span key)
{
    int order;
    if (c->integer_keys) {
        if (before.size != 8 || key.size != 8)
            return broken(c, "malformed key of the free list", id);
        order = bkm_load64(before.data) < bkm_load64(key.data) ? -1 : 1;
    } else {
        order = bkm_span_compare(before, key);
    }
    return order < 0 || broken(c, "keys are not in order", id);
}

static bool check_page(checker *c, uint64_t id, unsigned depth)
{
    if (depth > c->depth)
        return broken(c, "tree is deeper than it says", id);
    if (!claim(c, id, 1))
        return false;
    const uint8_t *page = c->data + id * c->page_size;
    bool leaf = depth == c->depth;
    if (bkm_load64(page) != id)
        return broken(c, "page header names another page", id);
    if (bkm_load16(page + 10) != (leaf ? PAGE_LEAF : PAGE_BRANCH))
        return broken(c, "wrong type of page", id);
    uint32_t lower = bkm_load16(page + 12), upper = bkm_load16(page + 14);
    if (c->page_size == 65536 && upper == 0)
        upper = 65536;
    if (lower < PAGE_HEADER || lower % 2 || lower > upper || upper > c->page_size)
        return broken(c, "node table runs out of the page", id);
    uint32_t count = (lower - PAGE_HEADER) / 2;
    if (count < (leaf ? 1u : 2u))
        return broken(c, "page without entries", id);
    bkm_span before = {NULL, 0};
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = bkm_load16(page + PAGE_HEADER + 2 * i);
        if (at < upper || at % 2 || at + NODE_HEADER > c->page_size)
            return broken(c, "node lies outside of the page", id);
        const uint8_t *node = page + at;
        uint64_t low = bkm_load16(node) | (uint64_t)bkm_load16(node + 2) << 16;
        uint32_t flags = bkm_load16(node + 4);
        bkm_span key = {node + NODE_HEADER, bkm_load16(node + 6)};
        if (key.size > MAX_KEY || (leaf && key.size == 0))
            return broken(c, "empty key, or key longer than 511 bytes", id);
        if (leaf && flags & ~(uint32_t)NODE_BIG)
            return broken(c, "unknown flags of a node", id);
        uint64_t bytes = key.size + (!leaf ? 0 : flags == NODE_BIG ? 8 : low);
        if (at + NODE_HEADER + bytes > c->page_size)
            return broken(c, "key or value lies outside of the page", id);
        /* The first key of a branch page is not used. */
        if (i > (leaf ? 0u : 1u) && !check_order(c, id, before, key))
            return false;
        before = key;
        if (!leaf && !check_page(c, low | (uint64_t)flags << 32, depth + 1))
            return false;
        if (leaf && flags == NODE_BIG && !check_overflow(c, bkm_load64(key.data + key.size), low))
            return false;
    }
    return true;
}

static bool check_tree(checker *c, const uint8_t *meta, unsigned number)
{
    const uint8_t *tree = meta + META_TREES + number * TREE_SIZE;
    uint64_t root = bkm_load64(tree + TREE_ROOT);
    c->depth = bkm_load16(tree + TREE_DEPTH);
    c->integer_keys = number == 0;
    if ((bkm_load16(tree + TREE_FLAGS) & TREE_KIND) != (number == 0 ? FREE_TREE_KIND : 0))
        return broken(c, "not the kind of LMDB database that a store is", NO_PAGE);
    if (root == NO_PAGE)
        return true;
    if (c->depth < 1 || c->depth > MAX_DEPTH)
        return broken(c, "impossible depth of a tree", root);
    return check_page(c, root, 1);
}

static const char *meta_rule(const checker *c, uint64_t number)
{
    if (c->size < (number + 1) * c->page_size || c->page_size < META_END)
        return "truncated: too short for an LMDB file";
    const uint8_t *meta = c->data + number * c->page_size;
    if (bkm_load32(meta + META_MAGIC) != LMDB_MAGIC)
        return "not an LMDB file (wrong magic number)";
    if (bkm_load32(meta + META_VERSION) != 1)
        return "unknown version of the LMDB format";
    if (bkm_load64(meta) != number || !(bkm_load16(meta + 10) & PAGE_META) ||
        bkm_load32(meta + META_TREES + TREE_PAGE_SIZE) != c->page_size)
        return "malformed meta page";
    return NULL;
}

bkm_lmdb_finding bkm_lmdb_check(const uint8_t *data, uint64_t size)
{
    checker c = {.data = data, .size = size, .page_size = META_END, .finding = {.page = NO_PAGE}};
    if (size < META_END || bkm_load32(data + META_MAGIC) != LMDB_MAGIC) {
        broken(&c, "not an LMDB file (wrong magic number)", 0);
        return c.finding;
    }
    c.page_size = bkm_load32(data + META_TREES + TREE_PAGE_SIZE);
    if (c.page_size < 512 || c.page_size > 65536 || (c.page_size & (c.page_size - 1))) {
        broken(&c, "impossible page size", 0);
        return c.finding;
    }
    for (uint64_t number = 0; number < 2; number++) {
        const char *rule = meta_rule(&c, number);
        if (rule) {
            broken(&c, rule, number);
            return c.finding;
        }
    }
    const uint8_t *meta = data;
    if (bkm_load64(data + c.page_size + META_TRANSACTION) > bkm_load64(data + META_TRANSACTION))
        meta += c.page_size;
    c.finding.transaction = bkm_load64(meta + META_TRANSACTION);
    c.last_page = bkm_load64(meta + META_LAST_PAGE);
    /* Pages at the end may be missing if they were freed before being written; others may not. */
    uint64_t in_file = size / c.page_size;
    if (c.last_page < 1 || c.last_page >= UINT64_MAX / c.page_size) {
        broken(&c, "impossible number of the last page", NO_PAGE);
        return c.finding;
    }
    c.visited = bkm_bits_new(in_file);
    if (!c.visited) {
        broken(&c, "out of memory", NO_PAGE);
        return c.finding;
    }
    if (check_tree(&c, meta, 0))
        check_tree(&c, meta, 1);
    free(c.visited);
    return c.finding;
}
