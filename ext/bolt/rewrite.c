#include "bolt/rewrite.h"

#include <stdlib.h>

#include "bolt/mapping.h"

typedef struct {
    bkm_bolt *bolt;
    bkm_builder *builder;
    bkm_edits *edits;
    uint8_t *visited;
    bkm_rewrite_result result;
} rewriter;

static bool fail(rewriter *r, bkm_rewrite_status status)
{
    r->result.status = status;
    return false;
}

static bool conflict(rewriter *r, bkm_span key)
{
    r->result.key = key;
    return fail(r, BKM_REWRITE_CONFLICT);
}

static bool built(rewriter *r, bool ok)
{
    return ok || fail(r, BKM_REWRITE_BUILD);
}

/* Decodes the next operation without consuming it. */
static bool peek(rewriter *r, bkm_edit *next)
{
    bkm_stream_status status = bkm_edits_peek(r->edits, next);
    if (status == BKM_STREAM_REFILL)
        return fail(r, BKM_REWRITE_REFILL);
    return status == BKM_STREAM_OK || fail(r, BKM_REWRITE_MALFORMED);
}

/* ---- copying ---- */

static bool enter_source(rewriter *r, bkm_cursor *cursor, const bkm_bucket *bucket)
{
    return bkm_cursor_first(cursor, r->bolt, bucket, r->visited) || fail(r, BKM_REWRITE_READ);
}

static bool next_source(rewriter *r, bkm_cursor *cursor)
{
    return bkm_cursor_next(cursor) || fail(r, BKM_REWRITE_READ);
}

static bool decode(rewriter *r, const bkm_cursor *cursor, bkm_span value, bkm_bucket *bucket)
{
    return bkm_bucket_decode(r->bolt, value, bkm_cursor_page(cursor), bucket) || fail(r, BKM_REWRITE_READ);
}

static bool copy_item(rewriter *r, const bkm_cursor *cursor, const bkm_item *item, int nesting)
{
    if (!item->bucket)
        return built(r, bkm_builder_put(r->builder, item->key, item->value));
    if (nesting == BKM_MAX_NESTING) {
        bkm_bolt_fail(r->bolt, BKM_NESTED_TOO_DEEP, bkm_cursor_page(cursor));
        return fail(r, BKM_REWRITE_READ);
    }
    bkm_bucket bucket;
    if (!decode(r, cursor, item->value, &bucket))
        return false;
    if (!bucket.root && item->value.size <= bkm_builder_inline_limit(r->builder))
        return built(r, bkm_builder_put_inline(r->builder, item->key, item->value));

    bkm_cursor inner;
    if (!built(r, bkm_builder_open(r->builder, item->key, bucket.sequence)) || !enter_source(r, &inner, &bucket))
        return false;
    while (!bkm_cursor_end(&inner)) {
        bkm_item inner_item = bkm_cursor_item(&inner);
        if (!copy_item(r, &inner, &inner_item, nesting + 1) || !next_source(r, &inner))
            return false;
    }
    return built(r, bkm_builder_close(r->builder));
}

/* ---- merging ---- */

static bool merge_bucket(rewriter *r, const bkm_bucket *source, int nesting);

/* Applies an operation. `item` is the source's item with its key, NULL if there is none. */
static bool apply(rewriter *r, const bkm_cursor *cursor, const bkm_item *item, const bkm_edit *next, int nesting)
{
    bkm_edits_take(r->edits, next);
    switch (next->code) {
    case BKM_EDIT_DELETE:
        r->result.changes += item != NULL;
        return true;
    case BKM_EDIT_DEFAULT:
        if (item)
            return copy_item(r, cursor, item, nesting);
        /* fall through */
    case BKM_EDIT_PUT:
        if (item && item->bucket)
            return conflict(r, item->key);
        r->result.changes += !item || bkm_span_compare(item->value, next->value) != 0;
        return built(r, bkm_builder_put(r->builder, next->key, next->value));
    default:  /* ENTER, SEQUENCE */
        if (item && !item->bucket)
            return conflict(r, item->key);
        if (nesting == BKM_MAX_NESTING)
            return fail(r, BKM_REWRITE_MALFORMED);
        bkm_bucket bucket = {0};
        if (item && !decode(r, cursor, item->value, &bucket))
            return false;
        uint64_t sequence = bkm_edit_sequence(next, bucket.sequence);
        r->result.changes += !item || sequence != bucket.sequence;
        return built(r, bkm_builder_open(r->builder, next->key, sequence)) &&
               merge_bucket(r, item ? &bucket : NULL, nesting + 1) && built(r, bkm_builder_close(r->builder));
    }
}

static bool merge_bucket(rewriter *r, const bkm_bucket *source, int nesting)
{
    bkm_cursor cursor = {.depth = 0};
    if (source && !enter_source(r, &cursor, source))
        return false;
    for (;;) {
        bkm_edit next;
        if (!peek(r, &next))
            return false;
        bool edits_done = bkm_edit_ends(&next);
        if (bkm_cursor_end(&cursor)) {
            if (edits_done) {
                if ((next.code == BKM_EDIT_END) != (nesting == 0))
                    return fail(r, BKM_REWRITE_MALFORMED);
                bkm_edits_take(r->edits, &next);
                return true;
            }
            if (!apply(r, &cursor, NULL, &next, nesting))
                return false;
            continue;
        }
        bkm_item item = bkm_cursor_item(&cursor);
        int order = edits_done ? -1 : bkm_span_compare(item.key, next.key);
        if (order > 0) {
            if (!apply(r, &cursor, NULL, &next, nesting))
                return false;
            continue;
        }
        bool ok = order < 0 ? copy_item(r, &cursor, &item, nesting) : apply(r, &cursor, &item, &next, nesting);
        if (!ok || !next_source(r, &cursor))
            return false;
    }
}

bkm_rewrite_result bkm_rewrite(bkm_bolt *bolt, const bkm_bucket *source, bkm_builder *builder, bkm_edits *edits)
{
    rewriter r = {.bolt = bolt, .builder = builder, .edits = edits};
    if (source && !(bkm_map_pages(bolt) && (r.visited = bkm_bolt_bitmap(bolt))))
        fail(&r, BKM_REWRITE_READ);
    else
        merge_bucket(&r, source, 0);
    free(r.visited);
    return r.result;
}
