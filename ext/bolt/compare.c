#include "bolt/compare.h"

#include <stdlib.h>

#include "bolt/mapping.h"

/* One of the two files. */
typedef struct {
    bkm_bolt *bolt;
    uint8_t *visited;
    bkm_comparison unreadable; /* what a failure to read it means */
} side;

typedef struct {
    side left;
    side right;
    bkm_edits edits;
    bkm_comparison found;
} comparison;

static bool stop(comparison *c, bkm_comparison found)
{
    c->found = found;
    return false;
}

static bool read(comparison *c, const side *one, bool ok)
{
    return ok || stop(c, one->unreadable);
}

static bool first(comparison *c, const side *one, bkm_cursor *cursor, const bkm_bucket *bucket)
{
    return read(c, one, bkm_cursor_first(cursor, one->bolt, bucket, one->visited));
}

static bool decode(comparison *c, const side *one, const bkm_cursor *cursor, bkm_span value, bkm_bucket *bucket)
{
    return read(c, one, bkm_bucket_decode(one->bolt, value, bkm_cursor_page(cursor), bucket));
}

static bool compare_buckets(comparison *c, const bkm_bucket *left, const bkm_bucket *right, int nesting);

static bool compare_items(comparison *c, const bkm_cursor *at_left, const bkm_cursor *at_right, int nesting)
{
    bkm_item left = bkm_cursor_item(at_left), right = bkm_cursor_item(at_right);
    if (left.bucket != right.bucket || left.key.size != right.key.size)
        return stop(c, BKM_DIFFERENT);
    if (!left.bucket) {
        /* A value follows its key, so both are compared at once. */
        size_t size = (size_t)left.key.size + left.value.size;
        bool same = left.value.size == right.value.size && memcmp(left.key.data, right.key.data, size) == 0;
        return same || stop(c, BKM_DIFFERENT);
    }
    if (bkm_span_compare(left.key, right.key) != 0)
        return stop(c, BKM_DIFFERENT);
    /* An inline bucket is usually packed alike. Of others the headers alone prove nothing. */
    if (left.value.size > BKM_BUCKET_HEADER && bkm_span_compare(left.value, right.value) == 0)
        return true;
    bkm_bucket inner_left, inner_right;
    if (!decode(c, &c->left, at_left, left.value, &inner_left) ||
        !decode(c, &c->right, at_right, right.value, &inner_right))
        return false;
    if (nesting == BKM_MAX_NESTING) {
        bkm_bolt_fail(c->left.bolt, BKM_NESTED_TOO_DEEP, bkm_cursor_page(at_left));
        return stop(c, BKM_LEFT_UNREADABLE);
    }
    return compare_buckets(c, &inner_left, &inner_right, nesting + 1);
}

static bool compare_buckets(comparison *c, const bkm_bucket *left, const bkm_bucket *right, int nesting)
{
    bkm_cursor at_left, at_right;
    if (left->sequence != right->sequence)
        return stop(c, BKM_DIFFERENT);
    if (!first(c, &c->left, &at_left, left) || !first(c, &c->right, &at_right, right))
        return false;
    while (!bkm_cursor_end(&at_left) && !bkm_cursor_end(&at_right))
        if (!compare_items(c, &at_left, &at_right, nesting) || !read(c, &c->left, bkm_cursor_next(&at_left)) ||
            !read(c, &c->right, bkm_cursor_next(&at_right)))
            return false;
    return bkm_cursor_end(&at_left) == bkm_cursor_end(&at_right) || stop(c, BKM_DIFFERENT);
}

/* ---- with edits ---- */

static bool compare_edited(comparison *c, const bkm_bucket *left, const bkm_bucket *right, int nesting);

static bool next(comparison *c, const side *one, bkm_cursor *cursor)
{
    return read(c, one, bkm_cursor_next(cursor));
}

/* Whether the right one has, at its cursor, this key, with a value or a bucket. */
static bool has_key(comparison *c, const bkm_cursor *at_right, bkm_span key, bool bucket)
{
    if (bkm_cursor_end(at_right))
        return stop(c, BKM_DIFFERENT);
    bkm_item item = bkm_cursor_item(at_right);
    return (item.bucket == bucket && bkm_span_compare(item.key, key) == 0) || stop(c, BKM_DIFFERENT);
}

static bool compare_copied(comparison *c, const bkm_cursor *at_left, const bkm_cursor *at_right, int nesting)
{
    return (!bkm_cursor_end(at_right) || stop(c, BKM_DIFFERENT)) && compare_items(c, at_left, at_right, nesting);
}

static bool compare_put(comparison *c, const bkm_cursor *at_right, const bkm_edit *edit)
{
    return has_key(c, at_right, edit->key, false) &&
           (bkm_span_compare(bkm_cursor_item(at_right).value, edit->value) == 0 || stop(c, BKM_DIFFERENT));
}

static bool compare_entered(comparison *c, const bkm_cursor *at_left, const bkm_item *item,
                            const bkm_cursor *at_right, const bkm_edit *edit, int nesting)
{
    bkm_bucket left = {0}, right;
    if (nesting == BKM_MAX_NESTING)
        return stop(c, BKM_MALFORMED_EDITS);
    if (!has_key(c, at_right, edit->key, true) || (item && !decode(c, &c->left, at_left, item->value, &left)) ||
        !decode(c, &c->right, at_right, bkm_cursor_item(at_right).value, &right))
        return false;
    if (right.sequence != bkm_edit_sequence(edit, left.sequence))
        return stop(c, BKM_DIFFERENT);
    return compare_edited(c, item ? &left : NULL, &right, nesting + 1);
}

/* Compares what an operation makes of `item`, the left one's with its key, NULL if there is none. */
static bool compare_edit(comparison *c, const bkm_cursor *at_left, const bkm_item *item, bkm_cursor *at_right,
                         const bkm_edit *edit, int nesting)
{
    bkm_edits_take(&c->edits, edit);
    bool enters = edit->code == BKM_EDIT_ENTER || edit->code == BKM_EDIT_SEQUENCE;
    if (edit->code == BKM_EDIT_DELETE)
        return true;
    bool ok;
    if (edit->code == BKM_EDIT_DEFAULT && item)
        ok = compare_copied(c, at_left, at_right, nesting);
    else if (item && item->bucket != enters)
        return stop(c, BKM_MALFORMED_EDITS);
    else
        ok = enters ? compare_entered(c, at_left, item, at_right, edit, nesting) : compare_put(c, at_right, edit);
    return ok && next(c, &c->right, at_right);
}

/* Compares two buckets, the right one with what the operations up to LEAVE make of the left one, which may be
 * NULL. Their sequences have been compared. */
static bool compare_edited(comparison *c, const bkm_bucket *left, const bkm_bucket *right, int nesting)
{
    bkm_cursor at_left = {.depth = 0}, at_right;
    if ((left && !first(c, &c->left, &at_left, left)) || !first(c, &c->right, &at_right, right))
        return false;
    for (;;) {
        bkm_edit edit;
        if (bkm_edits_peek(&c->edits, &edit) != BKM_STREAM_OK)
            return stop(c, BKM_MALFORMED_EDITS);
        bool edits_end = bkm_edit_ends(&edit), left_ends = bkm_cursor_end(&at_left);
        if (edits_end && left_ends) {
            bkm_edits_take(&c->edits, &edit);
            if ((edit.code == BKM_EDIT_END) != (nesting == 0))
                return stop(c, BKM_MALFORMED_EDITS);
            return bkm_cursor_end(&at_right) || stop(c, BKM_DIFFERENT);
        }
        bkm_item item = {0};
        if (!left_ends)
            item = bkm_cursor_item(&at_left);
        int order = edits_end ? -1 : left_ends ? 1 : bkm_span_compare(item.key, edit.key);
        bool ok;
        if (order < 0)
            ok = compare_copied(c, &at_left, &at_right, nesting) && next(c, &c->right, &at_right);
        else
            ok = compare_edit(c, &at_left, order == 0 ? &item : NULL, &at_right, &edit, nesting);
        if (!ok || (order <= 0 && !next(c, &c->left, &at_left)))
            return false;
    }
}

static bool no_more(bkm_edits *edits)
{
    (void)edits;
    return true;
}

bkm_comparison bkm_compare(bkm_bolt *left, bkm_bolt *right, bkm_span edits)
{
    comparison c = {
        .left = {left, bkm_bolt_bitmap(left), BKM_LEFT_UNREADABLE},
        .right = {right, bkm_bolt_bitmap(right), BKM_RIGHT_UNREADABLE},
        .edits = {.data = edits.data, .size = edits.size, .refill = no_more},
    };
    if (read(&c, &c.left, c.left.visited && bkm_map_pages(left)) &&
        read(&c, &c.right, c.right.visited && bkm_map_pages(right))) {
        bkm_bucket top_left = bkm_root_bucket(left), top_right = bkm_root_bucket(right);
        if (top_left.sequence != top_right.sequence)
            stop(&c, BKM_DIFFERENT);
        else
            compare_edited(&c, &top_left, &top_right, 0);
    }
    free(c.left.visited);
    free(c.right.visited);
    return c.found;
}
