#include "bolt/salvage.h"

#include <stdlib.h>

#include "bolt/ascending.h"
#include "core/bits.h"

/* The walk through one bucket. */
typedef struct {
    int nesting;
    bkm_span last;          /* the key that was copied last; all others must be greater */
} tree;

typedef struct {
    bkm_damaged *damaged;
    bkm_bolt *bolt;
    bkm_builder *builder;
    bkm_lost lost;
    void *context;
    bkm_kept *kept;
    uint8_t *visited;       /* bitmap: pages in use so far */
    uint8_t *owned;         /* bitmap: pages whose first key is the one that a branch page says */
    uint8_t *named;         /* bitmap: what the headers of the pages in use say, for the account at the end */
    uint64_t budget;        /* bytes of broken pages that may still be looked at, see `afford` */
    bool stopped;           /* by an interrupt, a failure of the builder, or `lost` */
    bkm_span path[BKM_MAX_NESTING + 1];
} salvager;

/* A page whose number and type are right. */
typedef struct {
    bkm_page page;
    uint64_t bytes;         /* of its run, as far as the file has it */
    bkm_rule rule;          /* what is wrong with its elements; BKM_OK if nothing */
    bool is_inline;
} view;

static const bkm_span none = {NULL, 0};

static bool stop(salvager *s)
{
    s->stopped = true;
    return false;
}

static void lose(salvager *s, int depth, uint64_t page, bkm_span from, bkm_span to, bkm_rule rule)
{
    if (from.data && to.data && bkm_span_compare(from, to) >= 0)
        from = none; /* a separator that is broken */
    const bkm_loss loss = {s->path, (size_t)depth, page, from, to, rule};
    if (!s->stopped && !s->lost(s->context, &loss))
        stop(s);
}

static bool has(const bkm_bolt *bolt, const uint8_t *bitmap, uint64_t id)
{
    return id < bolt->high_water && bkm_bits_have(bitmap, id);
}

/* ---- pages ---- */

/* Checks what tells whether this is the page at all. `page` and its bytes are set if it is. */
static bkm_rule page_rule(const salvager *s, uint64_t id, view *v)
{
    const bkm_bolt *bolt = s->bolt;
    if (id < 2 || id >= bolt->high_water)
        return id < 2 ? BKM_BAD_CHILD_ID : id < s->damaged->stated ? BKM_TRUNCATED : BKM_PAGE_OUT_OF_FILE;
    const uint8_t *data = bolt->data + id * bolt->page_size;
    if (bkm_has_gap(s->damaged, id * bolt->page_size, BKM_PAGE_HEADER))
        return BKM_UNREADABLE;
    if (bkm_load64(data) != id)
        return BKM_WRONG_PAGE_ID;
    uint16_t flags = bkm_load16(data + 8);
    if (flags != BKM_PAGE_LEAF && flags != BKM_PAGE_BRANCH)
        return BKM_WRONG_PAGE_FLAGS;
    uint64_t pages = bolt->high_water - id;
    if (bkm_run_pages(data) < pages)
        pages = bkm_run_pages(data);
    /* Zeros in the place of values would pass for values. */
    if (bkm_has_gap(s->damaged, id * bolt->page_size, pages * bolt->page_size))
        return BKM_UNREADABLE;
    *v = (view){
        .page = {.data = data, .id = id, .count = bkm_load16(data + 10), .leaf = flags == BKM_PAGE_LEAF},
        .bytes = pages * bolt->page_size,
    };
    return BKM_OK;
}

static bkm_rule element_rule(const view *v, uint32_t index)
{
    return bkm_element_rule(&v->page, index, v->bytes, v->is_inline);
}

/* Broken pages can overlap, so that each of many pages is as large as the file. False once more has been
 * looked at than any file has whose pages do not. */
static bool afford(salvager *s, uint64_t bytes)
{
    if (bytes > s->budget)
        return false;
    s->budget -= bytes;
    return true;
}

/* Key and value of an element that is not broken. */
static uint64_t data_size(const view *v, uint32_t index)
{
    uint64_t size = bkm_page_key(&v->page, index).size;
    return size + (v->page.leaf ? bkm_leaf_item(&v->page, index).value.size : 0);
}

/* Whether the elements are whole, and their data follow each other without gaps, as bbolt writes them. */
static bool is_packed(const view *v)
{
    const uint8_t *end = NULL;
    for (uint32_t i = 0; i < v->page.count; i++) {
        if (element_rule(v, i) != BKM_OK || (end && bkm_page_key(&v->page, i).data != end))
            return false;
        end = bkm_page_key(&v->page, i).data + data_size(v, i);
    }
    return true;
}

/* Corrects a wrong count. The data of the first element begin where the table ends, so that their position
 * tells how many elements there are; and then all of these must fit. */
static void correct_count(view *v)
{
    uint64_t most = (v->bytes - BKM_PAGE_HEADER) / BKM_LEAF_ELEMENT;
    uint32_t stated = v->page.count;
    if (v->page.count > most)
        v->page.count = (uint32_t)most;
    if (!most)
        return;
    uint32_t position = bkm_load32(v->page.data + BKM_PAGE_HEADER + (v->page.leaf ? 4 : 0));
    view corrected = *v;
    corrected.page.count = position / BKM_LEAF_ELEMENT;
    if (position % BKM_LEAF_ELEMENT || !corrected.page.count || corrected.page.count == stated ||
        corrected.page.count > most || corrected.page.count > BKM_MAX_ELEMENTS)
        return;
    /* A single element proves little, unless there can't be a second one. */
    if (corrected.page.count == 1 && (v->page.count < 2 || element_rule(v, 1) == BKM_OK))
        return;
    if (is_packed(&corrected))
        v->page.count = corrected.page.count;
}

/* Like page_rule, but all elements are checked, too: `rule` tells what is wrong with them. */
static bkm_rule look(salvager *s, uint64_t id, view *v)
{
    bkm_rule rule = page_rule(s, id, v);
    if (rule != BKM_OK)
        return rule;
    uint32_t stated = v->page.count;
    if (!bkm_page_at(s->bolt, id, &v->page)) {
        v->rule = s->bolt->rule;
        if (v->rule == BKM_INTERRUPTED)
            stop(s);
    }
    correct_count(v);
    if (v->rule == BKM_OK && v->page.count != stated)
        v->rule = BKM_ELEMENTS_OUT_OF_PAGE;
    if (!v->page.leaf && !v->page.count)
        return BKM_EMPTY_BRANCH;
    return v->rule == BKM_OK || afford(s, (uint64_t)v->page.count * BKM_LEAF_ELEMENT) ? BKM_OK : v->rule;
}

/* The first key of a page; absent if it can't be read. Looks at nothing else. */
static bkm_span first_key(const salvager *s, uint64_t id)
{
    view v;
    if (page_rule(s, id, &v) != BKM_OK || !v.page.count ||
        BKM_PAGE_HEADER + (uint64_t)v.page.count * BKM_LEAF_ELEMENT > v.bytes || element_rule(&v, 0) != BKM_OK)
        return none;
    return bkm_page_key(&v.page, 0);
}

/* Whether the child is beyond doubt the one that the branch page means. */
static bool is_proven(const salvager *s, bkm_span key, uint64_t child)
{
    bkm_span first = key.data ? first_key(s, child) : none;
    return first.data && bkm_span_compare(key, first) == 0;
}

/* Marks the pages that the elements take as used. What the header says may be wrong, and would take the
 * pages of others. False if one is used already. */
static bool use_pages(salvager *s, const view *v)
{
    uint64_t end = 1;
    for (uint32_t i = 0; v->bytes > s->bolt->page_size && i < v->page.count; i++) {
        if (element_rule(v, i) != BKM_OK)
            continue;
        uint64_t last = (uint64_t)(bkm_page_key(&v->page, i).data - v->page.data) + data_size(v, i);
        end = last > end ? last : end;
    }
    uint64_t pages = (end + s->bolt->page_size - 1) / s->bolt->page_size;
    for (uint64_t id = v->page.id; id < v->page.id + pages; id++) {
        if (bkm_bits_have(s->visited, id))
            return false;
        bkm_bits_add(s->visited, id);
    }
    uint64_t run = v->page.id + v->bytes / s->bolt->page_size;
    for (uint64_t id = v->page.id; id < run && !bkm_bits_have(s->named, id); id++)
        bkm_bits_add(s->named, id);
    return true;
}

/* A key of zeros, as of a disk that lost what was written. */
static bool is_blank(bkm_span key)
{
    uint32_t at = 0;
    while (at < key.size && !key.data[at])
        at++;
    return key.size > 1 && at == key.size;
}

/* Whether the data of an element of a broken page run into those of the next one. */
static bool runs_over(const view *v, uint32_t index)
{
    if (index + 1 >= v->page.count || element_rule(v, index + 1) != BKM_OK)
        return false;
    const uint8_t *data = bkm_page_key(&v->page, index).data, *next = bkm_page_key(&v->page, index + 1).data;
    return data < next && (uint64_t)(next - data) < data_size(v, index);
}

/* The keys of a page's elements, absent where an element is broken. NULL when out of memory. Keys and values
 * that overlap all the same are all absent: they could be repeated without end. */
static bkm_span *keys_of(salvager *s, view *v)
{
    uint32_t count = v->page.count;
    bkm_span *keys = calloc((size_t)count + 1, sizeof *keys);
    if (!keys) {
        bkm_bolt_fail(s->bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
        stop(s);
        return NULL;
    }
    uint64_t room = v->bytes - BKM_PAGE_HEADER - (uint64_t)count * BKM_LEAF_ELEMENT;
    for (uint32_t i = 0; i < count; i++) {
        if (v->rule != BKM_OK && (element_rule(v, i) != BKM_OK || runs_over(v, i)))
            continue;
        bkm_span key = bkm_page_key(&v->page, i);
        uint64_t size = data_size(v, i);
        if (size > room || (v->rule != BKM_OK && !afford(s, key.size))) {
            v->rule = BKM_DATA_OVERLAPS;
            memset(keys, 0, count * sizeof *keys);
            break;
        }
        room -= size;
        if (v->rule == BKM_OK || !is_blank(key))
            keys[i] = key;
    }
    return keys;
}

static bool is_between(const tree *t, bkm_span key, bkm_span to)
{
    return (!t->last.data || bkm_span_compare(t->last, key) < 0) && (!to.data || bkm_span_compare(key, to) < 0);
}

/* ---- leaves and buckets ---- */

static void visit(salvager *s, tree *t, uint64_t id, int depth, bkm_span from, bkm_span to, bool proven);
static void copy_leaf(salvager *s, tree *t, view *v, uint64_t page, bkm_span from, bkm_span to);

static bool built(salvager *s, bool ok)
{
    return ok || stop(s);
}

/* Whether the first element of an inline page agrees with its count. */
static bool is_as_counted(bkm_span value)
{
    const uint8_t *page = value.data + BKM_BUCKET_HEADER;
    uint32_t count = bkm_load16(page + 10);
    bool has_element = value.size >= BKM_BUCKET_HEADER + BKM_PAGE_HEADER + BKM_LEAF_ELEMENT;
    return !has_element || bkm_load32(page + BKM_PAGE_HEADER + 4) == count * BKM_LEAF_ELEMENT;
}

/* Copies a bucket, empty if its pages are lost: its name and sequence are known. Returns false if not even
 * the header can be read. */
static bool copy_bucket(salvager *s, const tree *t, const bkm_item *item, uint64_t page)
{
    const bkm_span value = item->value;
    int depth = t->nesting + 1;
    tree inner = {.nesting = depth};
    bkm_bucket bucket;
    s->path[t->nesting] = item->key;
    uint64_t root = value.size < BKM_BUCKET_HEADER ? 1 : bkm_load64(value.data);
    bool complete = root ? value.size == BKM_BUCKET_HEADER : value.size >= BKM_BUCKET_HEADER + BKM_PAGE_HEADER;
    if (root == 1 || !complete || depth > BKM_MAX_NESTING) {
        lose(s, depth, page, none, none, depth > BKM_MAX_NESTING ? BKM_NESTED_TOO_DEEP : BKM_BAD_BUCKET_VALUE);
        return false;
    }
    s->kept->buckets++;
    bool sound = !root && bkm_bucket_decode(s->bolt, value, page, &bucket);
    if (sound && is_as_counted(value) && value.size <= bkm_builder_inline_limit(s->builder)) {
        s->kept->keys += bkm_load16(value.data + BKM_BUCKET_HEADER + 10);
        return built(s, bkm_builder_put_inline(s->builder, item->key, value));
    }
    bkm_rule rule = s->bolt->rule;
    if (!built(s, bkm_builder_open(s->builder, item->key, bkm_load64(value.data + 8))))
        return false;
    if (root) {
        visit(s, &inner, root, 0, none, none, false);
    } else if (!sound && rule == BKM_BAD_INLINE_PAGE) {
        lose(s, depth, page, none, none, rule);
    } else {
        const uint8_t *data = value.data + BKM_BUCKET_HEADER;
        view v = {
            .page = {.data = data, .id = BKM_NO_PAGE, .count = bkm_load16(data + 10), .leaf = true},
            .bytes = value.size - BKM_BUCKET_HEADER,
            .rule = sound ? BKM_OK : rule,
            .is_inline = true,
        };
        correct_count(&v);
        if (sound && v.page.count != bkm_load16(data + 10))
            v.rule = BKM_ELEMENTS_OUT_OF_PAGE;
        copy_leaf(s, &inner, &v, page, none, none);
    }
    return built(s, !s->stopped && bkm_builder_close(s->builder));
}

static void copy_item(salvager *s, tree *t, const view *v, uint32_t index, uint64_t page)
{
    bkm_item item = bkm_leaf_item(&v->page, index);
    if (!item.bucket) {
        s->kept->keys++;
        built(s, bkm_builder_put(s->builder, item.key, item.value));
    } else if (!copy_bucket(s, t, &item, page)) {
        return;
    }
    t->last = item.key;
}

/* Copies the elements between the last key and `to` that are whole and in order. `page` is for reports. */
static void copy_leaf(salvager *s, tree *t, view *v, uint64_t page, bkm_span from, bkm_span to)
{
    uint32_t count = v->page.count;
    bkm_span *keys = keys_of(s, v);
    if (!keys)
        return;
    bool whole = v->rule == BKM_OK;
    if (!whole || (count && (!is_between(t, keys[0], to) || !is_between(t, keys[count - 1], to)))) {
        for (uint32_t i = 0; i < count; i++)
            if (keys[i].data && !is_between(t, keys[i], to))
                keys[i] = none;
        if (!bkm_keep_ascending(keys, count)) {
            bkm_bolt_fail(s->bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
            stop(s);
        }
    }
    /* What is lost between two elements is reported at once. */
    uint32_t next = 0;
    for (uint32_t i = 0; i <= count && !s->stopped; i++) {
        if (i < count && !keys[i].data)
            continue;
        if (next < i) {
            bkm_rule rule = element_rule(v, next);
            if (rule == BKM_OK)
                rule = v->rule == BKM_DATA_OVERLAPS || runs_over(v, next) ? BKM_DATA_OVERLAPS : BKM_KEY_ORDER;
            lose(s, t->nesting, page, next ? keys[next - 1] : from, i < count ? keys[i] : to, rule);
        }
        if (i < count)
            copy_item(s, t, v, i, page);
        next = i + 1;
    }
    free(keys);
}

/* ---- branches ---- */

static void copy_branch(salvager *s, tree *t, view *v, int depth, bkm_span from, bkm_span to)
{
    uint32_t count = v->page.count;
    bkm_span *keys = keys_of(s, v), *proven = NULL;
    if (!keys)
        return;
    if ((proven = calloc(count + (size_t)1, sizeof *proven))) {
        for (uint32_t i = 0; i < count; i++)
            if (is_proven(s, keys[i], bkm_branch_child(&v->page, i)) && is_between(t, keys[i], to))
                proven[i] = keys[i];
    }
    if (!proven || !bkm_keep_ascending(proven, count)) {
        bkm_bolt_fail(s->bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
        stop(s);
    }
    uint32_t next = 0; /* the next child that is proven and in order */
    for (uint32_t i = 0; i < count && !s->stopped; i++) {
        if (next <= i)
            for (next = i + 1; next < count && !proven[next].data; next++)
                ;
        bkm_span bound = next < count ? proven[next] : to;
        bkm_span start = keys[i].data && is_between(t, keys[i], bound) ? keys[i] : t->last.data ? t->last : from;
        /* The next key may be the one that is broken, so that it only limits a child in doubt. */
        if (!proven[i].data && i + 1 < count && keys[i + 1].data && is_between(t, keys[i + 1], bound) &&
            (!start.data || bkm_span_compare(start, keys[i + 1]) < 0))
            bound = keys[i + 1];
        uint64_t child = bkm_branch_child(&v->page, i);
        visit(s, t, child, depth + 1, start, bound, is_proven(s, keys[i], child));
    }
    free(keys);
    free(proven);
}

/* Copies what is below a page: keys after the tree's last one and less than `to`. `from` is where they
 * should start, for reports. `proven`: a branch page leads here that names the first key. */
static void visit(salvager *s, tree *t, uint64_t id, int depth, bkm_span from, bkm_span to, bool proven)
{
    view v;
    bkm_rule rule = BKM_OK;
    if (depth == BKM_MAX_TREE_DEPTH)
        rule = BKM_TREE_TOO_DEEP;
    else if (has(s->bolt, s->visited, id) || (!proven && has(s->bolt, s->owned, id)))
        rule = BKM_PAGE_VISITED_TWICE;
    else
        rule = look(s, id, &v);
    if (rule == BKM_OK && depth && !v.page.count)
        rule = BKM_EMPTY_LEAF;
    if (rule == BKM_OK && !use_pages(s, &v))
        rule = BKM_PAGE_VISITED_TWICE;
    if (rule != BKM_OK)
        lose(s, t->nesting, id, from, to, rule);
    else if (v.page.leaf)
        copy_leaf(s, t, &v, id, from, to);
    else
        copy_branch(s, t, &v, depth, from, to);
}

/* ---- whose pages are whose ---- */

/* Finds the pages that are proven to be a branch page's, so that no broken reference can take them from it. */
static void claim(salvager *s, uint64_t id, int depth, int nesting)
{
    view v;
    if (s->stopped || depth == BKM_MAX_TREE_DEPTH || nesting > BKM_MAX_NESTING || has(s->bolt, s->visited, id))
        return;
    if (id < s->bolt->high_water)
        bkm_bits_add(s->visited, id);
    if (look(s, id, &v) != BKM_OK)
        return;
    for (uint32_t i = 0; i < v.page.count && !s->stopped; i++) {
        if (v.rule != BKM_OK && element_rule(&v, i) != BKM_OK)
            continue;
        if (v.page.leaf) {
            bkm_item item = bkm_leaf_item(&v.page, i);
            if (item.bucket && item.value.size == BKM_BUCKET_HEADER)
                claim(s, bkm_load64(item.value.data), 0, nesting + 1);
            continue;
        }
        uint64_t child = bkm_branch_child(&v.page, i);
        bkm_span key = bkm_branch_key(&v.page, i);
        if ((v.rule == BKM_OK || afford(s, key.size)) && is_proven(s, key, child)) {
            bkm_bits_add(s->owned, child);
            claim(s, child, depth + 1, nesting);
        }
    }
}

bool bkm_salvage(bkm_damaged *damaged, bkm_builder *builder, bkm_lost lost, void *context, bkm_kept *kept)
{
    bkm_bolt *bolt = &damaged->bolt;
    salvager s = {
        .damaged = damaged,
        .bolt = bolt,
        .builder = builder,
        .lost = lost,
        .context = context,
        .kept = kept,
        .visited = bkm_bolt_bitmap(bolt),
        .owned = bkm_bolt_bitmap(bolt),
        .named = bkm_bolt_bitmap(bolt),
        .budget = 4 * bolt->size,
    };
    tree root = {.nesting = 0};
    *kept = (bkm_kept){0};
    s.stopped = !s.visited || !s.owned || !s.named;
    if (damaged->newest != BKM_OK)
        lose(&s, 0, damaged->newest_page, none, none, damaged->newest);
    if (!s.stopped) {
        claim(&s, bolt->root, 0, 0);
        memset(s.visited, 0, bolt->high_water / 8 + 1);
        visit(&s, &root, bolt->root, 0, none, none, true);
        kept->unreached = bkm_unreached(damaged, s.named);
    }
    free(s.visited);
    free(s.owned);
    free(s.named);
    return !s.stopped;
}
