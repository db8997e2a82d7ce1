#include "bolt/entries.h"

#include <stdlib.h>

#include "core/column.h"

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
    return ((entries->keys_only || bkm_spans_add(&entries->values, item->bucket ? none : item->value)) &&
            bkm_spans_add(&entries->keys, item->key)) ||
           bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
}

bool bkm_entries_add(bkm_entries *entries, bkm_bolt *bolt, size_t row, const bkm_item *item)
{
    if (!add_row(entries, row))
        return bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
    return add_item(entries, bolt, item);
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

bool bkm_entries_in(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *bucket)
{
    *entries = (bkm_entries){.keys = {.base = bolt->data}, .values = {.base = bolt->data}};
    uint8_t *visited = bkm_bolt_bitmap(bolt);
    bool ok = visited && read_items(entries, bolt, bucket, visited);
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
