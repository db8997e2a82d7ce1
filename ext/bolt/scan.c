#include "bolt/scan.h"

#include <stdlib.h>

#include "core/column.h"

static bool resize(bkm_span **array, size_t capacity)
{
    bkm_span *larger = bkm_column_resize(*array, capacity, sizeof **array);
    if (!larger)
        return false;
    *array = larger;
    return true;
}

static bool add_row(bkm_table *table, bkm_span name)
{
    if (table->rows == table->capacity) {
        size_t capacity = table->capacity ? table->capacity * 2 : 1024;
        if (!resize(&table->names, capacity))
            return false;
        for (size_t i = 0; i < table->column_count; i++)
            if (!resize(&table->columns[i], capacity))
                return false;
        table->capacity = capacity;
    }
    table->names[table->rows] = name;
    for (size_t i = 0; i < table->column_count; i++)
        table->columns[i][table->rows] = (bkm_span){NULL, 0};
    table->rows++;
    return true;
}

static bool read_path(bkm_bolt *bolt, const bkm_bucket *row, const bkm_path *path, bkm_span *value)
{
    bkm_bucket inner;
    bkm_item item;
    bool found;
    if (!bkm_bucket_descend(bolt, row, path->steps, path->depth - 1, &inner, &found))
        return false;
    if (!found)
        return true;
    if (!bkm_bucket_find(bolt, &inner, path->steps[path->depth - 1], &item, &found))
        return false;
    if (found && !item.bucket)
        *value = item.value;
    return true;
}

/* In a sound file no two rows share bytes. Rows are only looked into, so a page shared by several of them
 * goes unnoticed; instead, the values of a column must not exceed the file's size in total. */
static bool count_value(bkm_bolt *bolt, bkm_span value, uint64_t *bytes)
{
    *bytes += value.size;
    return *bytes <= bolt->size || bkm_bolt_fail(bolt, BKM_PAGE_VISITED_TWICE, BKM_NO_PAGE);
}

static bool scan_rows(bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_path *paths, uint8_t *visited,
                      uint64_t *bytes, bkm_table *table)
{
    bkm_cursor cursor;
    if (!bkm_cursor_first(&cursor, bolt, bucket, visited))
        return false;
    for (; !bkm_cursor_end(&cursor);) {
        bkm_item item = bkm_cursor_item(&cursor);
        if (item.bucket) {
            bkm_bucket row;
            if (!bkm_bucket_decode(bolt, item.value, bkm_cursor_page(&cursor), &row))
                return false;
            if (table->rows == BKM_MAX_ROWS)
                return bkm_bolt_fail(bolt, BKM_TOO_MANY_ROWS, bkm_cursor_page(&cursor));
            if (!add_row(table, item.key))
                return bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
            for (size_t i = 0; i < table->column_count; i++) {
                bkm_span *value = &table->columns[i][table->rows - 1];
                if (!read_path(bolt, &row, &paths[i], value) || !count_value(bolt, *value, &bytes[i]))
                    return false;
            }
        }
        if (!bkm_cursor_next(&cursor))
            return false;
    }
    return true;
}

bool bkm_scan(bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_path *paths, size_t path_count, bkm_table *table)
{
    *table = (bkm_table){.column_count = path_count};
    table->columns = calloc(path_count ? path_count : 1, sizeof *table->columns);
    uint64_t *bytes = calloc(path_count ? path_count : 1, sizeof *bytes);
    uint8_t *visited = bkm_bolt_bitmap(bolt);
    bool ok = table->columns && bytes && visited;
    if (!ok)
        bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
    ok = ok && scan_rows(bolt, bucket, paths, visited, bytes, table);
    free(visited);
    free(bytes);
    if (!ok)
        bkm_table_free(table);
    return ok;
}

void bkm_table_free(bkm_table *table)
{
    for (size_t i = 0; table->columns && i < table->column_count; i++)
        free(table->columns[i]);
    free(table->columns);
    free(table->names);
    *table = (bkm_table){0};
}
