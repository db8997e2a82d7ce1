#include "bolt/check.h"

#include <stdlib.h>

#include "bolt/ahead.h"
#include "bolt/mapping.h"
#include "core/bits.h"

/* A few damaged bytes can break a rule on every page of a large file. */
enum { MOST_FINDINGS = 10000 };

typedef struct {
    bkm_bolt *bolt;
    uint8_t *used;         /* bitmap: pages of trees, of the free list itself, and meta pages */
    uint8_t *free;         /* bitmap: pages listed as free */
    bkm_report report;
    void *context;
    bkm_counts *counts;
    uint32_t findings;
    bool stopped;
} checker;

/* State of the walk through one bucket's tree. */
typedef struct {
    int leaf_depth;        /* 0 = not known yet */
    int nesting;
} tree;

static void found(checker *c, bkm_part part, uint64_t page, const char *text)
{
    c->counts->findings[part]++;
    if (c->stopped || c->findings > MOST_FINDINGS)
        return;
    if (c->findings++ == MOST_FINDINGS) {
        page = BKM_NO_PAGE;
        text = "more findings are left out";
    }
    c->stopped = !c->report(c->context, part, page, text);
}

/* Reports the rule that the reader found broken; an interrupt is not one. */
static void found_by_reader(checker *c, uint64_t page)
{
    if (c->bolt->rule == BKM_INTERRUPTED)
        c->stopped = true;
    found(c, BKM_IN_TREE, page, bkm_rule_text(c->bolt->rule));
}

static bool test_and_set(uint8_t *bitmap, uint64_t page)
{
    bool was = bkm_bits_have(bitmap, page);
    bkm_bits_add(bitmap, page);
    return was;
}

/* Marks pages as used. Stops at the first page in use already, so that all calls together are linear in
 * the file's size. */
static bool use_pages(checker *c, bkm_part part, uint64_t id, uint64_t pages)
{
    for (uint64_t page = id; page < id + pages; page++)
        if (test_and_set(c->used, page)) {
            found(c, part, page, bkm_rule_text(BKM_PAGE_VISITED_TWICE));
            return false;
        }
    return true;
}

static uint64_t content_of(const bkm_page *page)
{
    uint64_t size = BKM_PAGE_HEADER + (uint64_t)page->count * BKM_LEAF_ELEMENT;
    for (uint32_t i = 0; i < page->count; i++) {
        if (page->leaf) {
            bkm_item item = bkm_leaf_item(page, i);
            size += item.key.size + (uint64_t)item.value.size;
        } else {
            size += bkm_branch_key(page, i).size;
        }
    }
    return size;
}

static void check_bucket(checker *c, const bkm_bucket *bucket, int nesting, uint64_t ahead);

static void check_nested(checker *c, const bkm_page *page, int nesting, uint64_t ahead)
{
    for (uint32_t i = 0; i < BKM_AHEAD; i++)
        bkm_prefetch_page(c->bolt, bkm_root_page(page, i));
    for (uint32_t i = 0; i < page->count && !c->stopped; i++) {
        bkm_prefetch_bucket(c->bolt, page, i);
        bkm_item item = bkm_leaf_item(page, i);
        if (!item.bucket)
            continue;
        bkm_bucket bucket;
        c->bolt->ahead = ahead;
        if (!bkm_bucket_decode(c->bolt, item.value, page->id, &bucket))
            found_by_reader(c, page->id);
        else if (nesting == BKM_MAX_NESTING)
            found(c, BKM_IN_TREE, page->id, bkm_rule_text(BKM_NESTED_TOO_DEEP));
        else if (bucket.root)
            check_bucket(c, &bucket, nesting + 1, bkm_distance(c->bolt, bucket.root, bkm_root_page(page, i + 1)));
    }
}

/* Checks a page and everything below it. `key` is the branch key that led here (data == NULL at the root).
 * All keys must be smaller than `bound` (data == NULL: no limit). */
static void check_tree(checker *c, tree *t, uint64_t id, int depth, bkm_span key, bkm_span bound, uint64_t ahead)
{
    bkm_page page;
    /* Marked as used before it is checked, so that even a damaged page is checked only once. */
    if (id < c->bolt->high_water && !use_pages(c, BKM_IN_TREE, id, 1))
        return;
    c->bolt->ahead = ahead;
    if (!bkm_page_at(c->bolt, id, &page)) {
        found_by_reader(c, id);
        return;
    }
    if (!use_pages(c, BKM_IN_TREE, id + 1, bkm_run_pages(page.data) - 1))
        return;
    if (depth == BKM_MAX_TREE_DEPTH) {
        found(c, BKM_IN_TREE, id, bkm_rule_text(BKM_TREE_TOO_DEEP));
        return;
    }
    c->counts->content += content_of(&page);
    if (page.count > BKM_MAX_ELEMENTS)
        found(c, BKM_IN_TREE, id, "more elements than bbolt can handle");
    if (page.count) {
        bkm_span first = page.leaf ? bkm_leaf_item(&page, 0).key : bkm_branch_key(&page, 0);
        bkm_span last = page.leaf ? bkm_leaf_item(&page, page.count - 1).key : bkm_branch_key(&page, page.count - 1);
        if (key.data && bkm_span_compare(first, key) != 0)
            found(c, BKM_IN_TREE, id,
                  bkm_span_compare(first, key) < 0 ? bkm_rule_text(BKM_KEY_ORDER)
                                                   : "branch key differs from the first key of its child");
        if (bound.data && bkm_span_compare(last, bound) >= 0)
            found(c, BKM_IN_TREE, id, bkm_rule_text(BKM_KEY_ORDER));
    } else if (key.data) {
        found(c, BKM_IN_TREE, id, bkm_rule_text(BKM_EMPTY_LEAF));
    }
    if (page.leaf) {
        if (t->leaf_depth && t->leaf_depth != depth + 1)
            found(c, BKM_IN_TREE, id, bkm_rule_text(BKM_UNEVEN_DEPTH));
        t->leaf_depth = depth + 1;
        check_nested(c, &page, t->nesting, ahead);
        return;
    }
    if (page.count < 2)
        found(c, BKM_IN_TREE, id, "branch page with a single child");
    for (uint32_t i = 0; i < page.count && i < BKM_AHEAD; i++)
        bkm_prefetch_page(c->bolt, bkm_branch_child(&page, i));
    for (uint32_t i = 0; i < page.count && !c->stopped; i++) {
        if (page.count - i > BKM_AHEAD)
            bkm_prefetch_page(c->bolt, bkm_branch_child(&page, i + BKM_AHEAD));
        bool is_last = i + 1 == page.count;
        uint64_t child = bkm_branch_child(&page, i), next = is_last ? BKM_NO_PAGE : bkm_branch_child(&page, i + 1);
        check_tree(c, t, child, depth + 1, bkm_branch_key(&page, i), is_last ? bound : bkm_branch_key(&page, i + 1),
                   bkm_distance(c->bolt, child, next));
    }
}

static void check_bucket(checker *c, const bkm_bucket *bucket, int nesting, uint64_t ahead)
{
    tree t = {.nesting = nesting};
    check_tree(c, &t, bucket->root, 0, (bkm_span){NULL, 0}, (bkm_span){NULL, 0}, ahead);
}

static void check_metas(checker *c)
{
    for (uint64_t id = 0; id < 2; id++) {
        const uint8_t *page = c->bolt->data + id * c->bolt->page_size;
        if (bkm_load64(page) != id)
            found(c, BKM_IN_META, id, bkm_rule_text(BKM_WRONG_PAGE_ID));
        if (bkm_load16(page + 8) != BKM_PAGE_META)
            found(c, BKM_IN_META, id, bkm_rule_text(BKM_WRONG_PAGE_FLAGS));
    }
}

static void check_freelist(checker *c)
{
    const bkm_bolt *bolt = c->bolt;
    uint64_t list = bolt->freelist;
    const uint8_t *page = bolt->data + list * bolt->page_size;
    if (bkm_load64(page) != list)
        found(c, BKM_IN_FREELIST, list, bkm_rule_text(BKM_WRONG_PAGE_ID));
    if (bkm_load16(page + 8) != BKM_PAGE_FREELIST) {
        found(c, BKM_IN_FREELIST, list, bkm_rule_text(BKM_WRONG_PAGE_FLAGS));
        return;
    }
    uint64_t pages = bkm_run_pages(page);
    if (pages > bolt->high_water - list) {
        found(c, BKM_IN_FREELIST, list, bkm_rule_text(BKM_PAGE_OUT_OF_FILE));
        return;
    }
    use_pages(c, BKM_IN_FREELIST, list, pages);
    uint64_t room = (pages * bolt->page_size - BKM_PAGE_HEADER) / 8;
    uint64_t count = bkm_load16(page + 10), first = 0;
    if (count == BKM_LONG_FREELIST) {
        count = bkm_load64(page + BKM_PAGE_HEADER);
        first = 1;
    }
    if (count > room - first) {
        found(c, BKM_IN_FREELIST, list, bkm_rule_text(BKM_FREELIST_OVERRUN));
        return;
    }
    for (uint64_t i = first; i < first + count; i++) {
        uint64_t id = bkm_load64(page + BKM_PAGE_HEADER + i * 8);
        if (id < 2 || id >= bolt->high_water)
            found(c, BKM_IN_FREELIST, list, bkm_rule_text(BKM_FREELIST_BAD_ID));
        else if (test_and_set(c->free, id))
            found(c, BKM_IN_FREELIST, id, "named twice by the free list");
    }
}

static void check_accounts(checker *c)
{
    for (uint64_t id = 2; id < c->bolt->high_water; id++) {
        bool used = bkm_bits_have(c->used, id);
        bool is_free = bkm_bits_have(c->free, id);
        c->counts->used += used;
        if (used && is_free)
            found(c, BKM_USED_AND_FREE, id, "in use and named by the free list");
        /* If no free list is stored, bbolt derives it, so no page can be leaked. */
        if (!used && !is_free && c->bolt->freelist != BKM_NO_FREELIST)
            found(c, BKM_LEAKED, id, "neither in use nor free");
    }
}

bool bkm_check(bkm_bolt *bolt, bkm_report report, void *context, bkm_counts *counts)
{
    checker c = {.bolt = bolt, .report = report, .context = context, .counts = counts};
    *counts = (bkm_counts){.used = 0};
    c.used = bkm_bolt_bitmap(bolt);
    c.free = bkm_bolt_bitmap(bolt);
    bool ok = c.used && c.free;
    if (ok && !bkm_map_pages(bolt)) {
        found_by_reader(&c, BKM_NO_PAGE);
    } else if (ok) {
        bkm_bucket root = bkm_root_bucket(bolt);
        check_metas(&c);
        if (bolt->freelist != BKM_NO_FREELIST)
            check_freelist(&c);
        check_bucket(&c, &root, 0, 0);
        if (!c.stopped)
            check_accounts(&c);
    }
    free(c.used);
    free(c.free);
    return ok && !c.stopped;
}
