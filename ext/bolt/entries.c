#include "bolt/entries.h"

#include <stdlib.h>

#include "core/column.h"

enum { ITEM = 16 }; /* minimum size of an item without its key and value */

/* In a valid file rows don't share bytes. A page that several rows share is not noticed, as rows are only looked
 * up; but all items together can't be larger than the file. */
static bool count_bytes(bkm_bolt *bolt, const bkm_item *item, uint64_t *bytes)
{
    *bytes += ITEM + (uint64_t)item->key.size + item->value.size;
    return *bytes <= bolt->size || bkm_bolt_fail(bolt, BKM_PAGE_VISITED_TWICE, BKM_NO_PAGE);
}

static bool add_row(bkm_entries *entries, size_t row)
{
    size_t count = entries->keys.count;
    if (count == entries->capacity) {
        size_t capacity = count ? count * 2 : 1024;
        int32_t *rows = bkm_column_resize(entries->rows, capacity, sizeof *rows);
        if (!rows)
            return false;
        entries->rows = rows;
        entries->capacity = capacity;
    }
    entries->rows[count] = (int32_t)row;
    return true;
}

static bool add_item(bkm_entries *entries, bkm_bolt *bolt, const bkm_item *item)
{
    const bkm_span none = {NULL, 0};
    if (entries->keys.count == BKM_MAX_ROWS)
        return bkm_bolt_fail(bolt, BKM_TOO_MANY_ROWS, BKM_NO_PAGE);
    return (bkm_spans_add(&entries->values, item->bucket ? none : item->value) &&
            bkm_spans_add(&entries->keys, item->key)) ||
           bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
}

static bool starts_with(bkm_span key, bkm_span prefix)
{
    return key.size >= prefix.size && (prefix.size == 0 || memcmp(key.data, prefix.data, prefix.size) == 0);
}

static bool read_row(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *row, size_t number, const bkm_span *path,
                     size_t depth, bkm_span prefix, uint64_t *bytes)
{
    bkm_bucket inner;
    bkm_cursor cursor;
    bool found;
    if (!bkm_bucket_descend(bolt, row, path, depth, &inner, &found))
        return false;
    if (!found)
        return true;
    bool placed =
        prefix.size ? bkm_cursor_seek(&cursor, bolt, &inner, prefix) : bkm_cursor_first(&cursor, bolt, &inner, NULL);
    if (!placed)
        return false;
    while (!bkm_cursor_end(&cursor)) {
        bkm_item item = bkm_cursor_item(&cursor);
        if (!starts_with(item.key, prefix))
            break;
        if (!count_bytes(bolt, &item, bytes))
            return false;
        if (!add_row(entries, number))
            return bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
        if (!add_item(entries, bolt, &item) || !bkm_cursor_next(&cursor))
            return false;
    }
    return true;
}

static bool read_rows(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_span *path,
                      size_t depth, bkm_span prefix, uint8_t *visited)
{
    bkm_cursor cursor;
    uint64_t bytes = 0;
    size_t row = 0;
    if (!bkm_cursor_first(&cursor, bolt, bucket, visited))
        return false;
    for (; !bkm_cursor_end(&cursor);) {
        bkm_item item = bkm_cursor_item(&cursor);
        if (item.bucket) {
            bkm_bucket inner;
            if (!bkm_bucket_decode(bolt, item.value, bkm_cursor_page(&cursor), &inner))
                return false;
            if (row == BKM_MAX_ROWS)
                return bkm_bolt_fail(bolt, BKM_TOO_MANY_ROWS, bkm_cursor_page(&cursor));
            if (!read_row(entries, bolt, &inner, row++, path, depth, prefix, &bytes))
                return false;
        }
        if (!bkm_cursor_next(&cursor))
            return false;
    }
    return true;
}

static bool read_items(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *bucket, uint8_t *visited)
{
    bkm_cursor cursor;
    if (!bkm_cursor_first(&cursor, bolt, bucket, visited))
        return false;
    while (!bkm_cursor_end(&cursor)) {
        bkm_item item = bkm_cursor_item(&cursor);
        if (!add_item(entries, bolt, &item) || !bkm_cursor_next(&cursor))
            return false;
    }
    return true;
}

static bool begin(bkm_entries *entries, bkm_bolt *bolt, uint8_t **visited)
{
    *entries = (bkm_entries){.keys = {.base = bolt->data}, .values = {.base = bolt->data}};
    *visited = bkm_bolt_bitmap(bolt);
    return *visited || bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
}

bool bkm_entries_below(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_span *path,
                       size_t depth, bkm_span prefix)
{
    uint8_t *visited;
    bool ok = begin(entries, bolt, &visited) && read_rows(entries, bolt, bucket, path, depth, prefix, visited);
    free(visited);
    if (!ok)
        bkm_entries_free(entries);
    return ok;
}

bool bkm_entries_in(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *bucket)
{
    uint8_t *visited;
    bool ok = begin(entries, bolt, &visited) && read_items(entries, bolt, bucket, visited);
    free(visited);
    if (!ok)
        bkm_entries_free(entries);
    return ok;
}

void bkm_entries_free(bkm_entries *entries)
{
    free(entries->rows);
    bkm_spans_free(&entries->keys);
    bkm_spans_free(&entries->values);
    *entries = (bkm_entries){0};
}
