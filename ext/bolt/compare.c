#include "bolt/compare.h"

#include <stdlib.h>

/* One of the two files. */
typedef struct {
    bkm_bolt *bolt;
    uint8_t *visited;
    bkm_comparison unreadable; /* what a failure to read it means */
} side;

typedef struct {
    side left;
    side right;
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
    if (left.bucket != right.bucket || bkm_span_compare(left.key, right.key) != 0)
        return stop(c, BKM_DIFFERENT);
    if (!left.bucket)
        return bkm_span_compare(left.value, right.value) == 0 || stop(c, BKM_DIFFERENT);
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

bkm_comparison bkm_compare(bkm_bolt *left, bkm_bolt *right)
{
    comparison c = {
        .left = {left, bkm_bolt_bitmap(left), BKM_LEFT_UNREADABLE},
        .right = {right, bkm_bolt_bitmap(right), BKM_RIGHT_UNREADABLE},
    };
    if (read(&c, &c.left, c.left.visited) && read(&c, &c.right, c.right.visited)) {
        bkm_bucket top_left = bkm_root_bucket(left), top_right = bkm_root_bucket(right);
        compare_buckets(&c, &top_left, &top_right, 0);
    }
    free(c.left.visited);
    free(c.right.visited);
    return c.found;
}
