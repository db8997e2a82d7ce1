#include "bolt/rows.h"

#include <stdlib.h>

#include "core/column.h"

enum { ITEM = 16 }; /* minimum size of an item without its key and value */

/* A bucket of the current row. */
typedef struct {
    bool known, found;
    bkm_bucket bucket;
} opened;

typedef struct {
    bkm_bolt *bolt;
    bkm_rows *rows;
    const bkm_place **places; /* all different ones */
    opened *opened;           /* [place] */
    size_t place_count;
    size_t *place_of;         /* of each value, then of each list of items */
    uint64_t *bytes;          /* the same: read so far */
} walk;

/* ---- places: several columns may be read from one bucket, which is looked up once for each row ---- */

static bool same_place(const bkm_place *a, const bkm_place *b)
{
    if (a->depth != b->depth)
        return false;
    for (size_t i = 0; i < a->depth; i++)
        if (bkm_span_compare(a->steps[i], b->steps[i]) != 0)
            return false;
    return true;
}

static size_t place_number(walk *walk, const bkm_place *place)
{
    size_t number = 0;
    while (number < walk->place_count && !same_place(walk->places[number], place))
        number++;
    if (number == walk->place_count)
        walk->places[walk->place_count++] = place;
    return number;
}

static bool begin(walk *walk)
{
    const bkm_rows *rows = walk->rows;
    size_t count = rows->value_count + rows->items_count + 1;
    walk->places = calloc(count, sizeof *walk->places);
    walk->opened = calloc(count, sizeof *walk->opened);
    walk->place_of = calloc(count, sizeof *walk->place_of);
    walk->bytes = calloc(count, sizeof *walk->bytes);
    if (!walk->places || !walk->opened || !walk->place_of || !walk->bytes)
        return bkm_bolt_fail(walk->bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
    for (size_t i = 0; i < rows->value_count; i++)
        walk->place_of[i] = place_number(walk, &rows->values[i].place);
    for (size_t i = 0; i < rows->items_count; i++)
        walk->place_of[rows->value_count + i] = place_number(walk, &rows->items[i].place);
    return true;
}

/* NULL with `*ok` false on failure; NULL if the row has no such bucket. */
static const bkm_bucket *open_place(walk *walk, const bkm_bucket *row, size_t number, bool *ok)
{
    opened *opened = &walk->opened[number];
    if (!opened->known) {
        const bkm_place *place = walk->places[number];
        if (!bkm_bucket_descend(walk->bolt, row, place->steps, place->depth, &opened->bucket, &opened->found)) {
            *ok = false;
            return NULL;
        }
        opened->known = true;
    }
    return opened->found ? &opened->bucket : NULL;
}

/* ---- rows ---- */

/* In a sound file no two rows share bytes. Rows are only looked into, so a page shared by several of them
 * goes unnoticed; instead, what is read into one column must not be larger than the file. */
static bool count_bytes(const bkm_bolt *bolt, uint64_t size, uint64_t *bytes)
{
    *bytes += size;
    return *bytes <= bolt->size;
}

static bool read_value(walk *walk, const bkm_bucket *row, size_t number)
{
    bkm_bolt *bolt = walk->bolt;
    bkm_row_value *column = &walk->rows->values[number];
    bkm_span value = {NULL, 0};
    bool ok = true, found = false;
    bkm_item item;
    const bkm_bucket *bucket = open_place(walk, row, walk->place_of[number], &ok);
    if (!ok || (bucket && !bkm_bucket_find(bolt, bucket, column->key, &item, &found)))
        return false;
    if (found && !item.bucket)
        value = item.value;
    if (!count_bytes(bolt, value.size, &walk->bytes[number]))
        return bkm_bolt_fail(bolt, BKM_PAGE_VISITED_TWICE, BKM_NO_PAGE);
    return bkm_spans_add(&column->values, value) || bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
}

static bool starts_with(bkm_span key, bkm_span prefix)
{
    return key.size >= prefix.size && (prefix.size == 0 || memcmp(key.data, prefix.data, prefix.size) == 0);
}

static bool read_items(walk *walk, const bkm_bucket *row, size_t number)
{
    bkm_bolt *bolt = walk->bolt;
    bkm_row_items *items = &walk->rows->items[number];
    size_t place = walk->rows->value_count + number;
    bool ok = true;
    bkm_cursor cursor;
    const bkm_bucket *bucket = open_place(walk, row, walk->place_of[place], &ok);
    if (!bucket)
        return ok;
    if (items->prefix.size ? !bkm_cursor_seek(&cursor, bolt, bucket, items->prefix)
                           : !bkm_cursor_first(&cursor, bolt, bucket, NULL))
        return false;
    while (!bkm_cursor_end(&cursor)) {
        bkm_item item = bkm_cursor_item(&cursor);
        if (!starts_with(item.key, items->prefix))
            break;
        if (!count_bytes(bolt, ITEM + (uint64_t)item.key.size + item.value.size, &walk->bytes[place]))
            return bkm_bolt_fail(bolt, BKM_PAGE_VISITED_TWICE, BKM_NO_PAGE);
        if (!bkm_entries_add(&items->entries, bolt, walk->rows->names.count - 1, &item) || !bkm_cursor_next(&cursor))
            return false;
    }
    return true;
}

static bool read_row(walk *walk, const bkm_item *item, uint64_t page)
{
    bkm_bolt *bolt = walk->bolt;
    bkm_rows *rows = walk->rows;
    bkm_bucket row;
    if (!bkm_bucket_decode(bolt, item->value, page, &row))
        return false;
    if (rows->names.count == BKM_MAX_ROWS)
        return bkm_bolt_fail(bolt, BKM_TOO_MANY_ROWS, page);
    if (!bkm_spans_add(&rows->names, item->key))
        return bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
    for (size_t i = 0; i < walk->place_count; i++)
        walk->opened[i].known = false;
    for (size_t i = 0; i < rows->value_count; i++)
        if (!read_value(walk, &row, i))
            return false;
    for (size_t i = 0; i < rows->items_count; i++)
        if (!read_items(walk, &row, i))
            return false;
    return true;
}

static bool read_rows(walk *walk, const bkm_bucket *bucket, uint8_t *visited)
{
    bkm_cursor cursor;
    if (!bkm_cursor_first(&cursor, walk->bolt, bucket, visited))
        return false;
    while (!bkm_cursor_end(&cursor)) {
        bkm_item item = bkm_cursor_item(&cursor);
        if (item.bucket && !read_row(walk, &item, bkm_cursor_page(&cursor)))
            return false;
        if (!bkm_cursor_next(&cursor))
            return false;
    }
    return true;
}

bool bkm_rows_read(bkm_rows *rows, bkm_bolt *bolt, const bkm_bucket *bucket)
{
    walk walk = {.bolt = bolt, .rows = rows};
    rows->names.base = bolt->data;
    for (size_t i = 0; i < rows->value_count; i++)
        rows->values[i].values.base = bolt->data;
    for (size_t i = 0; i < rows->items_count; i++)
        rows->items[i].entries.keys.base = rows->items[i].entries.values.base = bolt->data;
    uint8_t *visited = bkm_bolt_bitmap(bolt);
    bool ok = visited && begin(&walk) && read_rows(&walk, bucket, visited);
    free(visited);
    free(walk.places);
    free(walk.opened);
    free(walk.place_of);
    free(walk.bytes);
    return ok;
}

void bkm_rows_free(bkm_rows *rows)
{
    bkm_spans_free(&rows->names);
    for (size_t i = 0; i < rows->value_count; i++)
        bkm_spans_free(&rows->values[i].values);
    for (size_t i = 0; i < rows->items_count; i++)
        bkm_entries_free(&rows->items[i].entries);
}

bool bkm_entries_below(bkm_entries *entries, bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_span *path,
                       size_t depth, bkm_span prefix)
{
    bkm_row_items items = {.place = {path, depth}, .prefix = prefix};
    bkm_rows rows = {.items = &items, .items_count = 1};
    bool ok = bkm_rows_read(&rows, bolt, bucket);
    *entries = items.entries;
    items.entries = (bkm_entries){0};
    bkm_rows_free(&rows);
    if (!ok)
        bkm_entries_free(entries);
    return ok;
}
