#include "columns/cells.h"

#include <stdlib.h>

#include "columns/decode.h"
#include "core/array.h"
#include "core/column.h"

enum {
    NO_KEY = BKM_MAX_CELL_KEYS,
    UNREADABLE = 0x80, /* with a key's number: a value that is not of the key's form */
};

_Static_assert((int)BKM_MAX_CELL_KEYS < (int)UNREADABLE, "the kinds of kept values must differ");

static const bkm_span separator = BKM_NAME_SPAN("::");

/* ---- keys ---- */

static size_t slot_of(bkm_span key)
{
    uint64_t word = 0;
    uint32_t size = key.size < 8 ? key.size : 8;
    memcpy(&word, key.data + key.size - size, size);
    return ((word ^ key.size * UINT64_C(0x9E3779B97F4A7C15)) * UINT64_C(0xC2B2AE3D27D4EB4F)) >> 54;
}

static bool same(bkm_span a, bkm_span b)
{
    return a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
}

static unsigned key_of(const bkm_cells *cells, bkm_span key)
{
    enum { SLOTS = sizeof cells->slots };
    for (size_t slot = slot_of(key); cells->slots[slot]; slot = (slot + 1) % SLOTS)
        if (same(cells->keys[cells->slots[slot] - 1].name, key))
            return cells->slots[slot] - 1u;
    return NO_KEY;
}

void bkm_cells_begin(bkm_cells *cells)
{
    enum { SLOTS = sizeof cells->slots };
    for (size_t key = 0; key < cells->key_count; key++) {
        size_t slot = slot_of(cells->keys[key].name);
        while (cells->slots[slot])
            slot = (slot + 1) % SLOTS;
        cells->slots[slot] = (uint8_t)(key + 1);
    }
    bkm_span_table_draw(&cells->hash);
}

/* ---- growth ---- */

static bool resize(void *array, size_t capacity, size_t size)
{
    void *elements;
    memcpy(&elements, array, sizeof elements);
    elements = bkm_column_resize(elements, capacity, size);
    if (!elements)
        return false;
    memcpy(array, &elements, sizeof elements);
    return true;
}

static bool has_room(void *array, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return true;
    size_t larger = *capacity ? *capacity * 2 : 1024;
    if (!resize(array, larger, size))
        return false;
    *capacity = larger;
    return true;
}

static bool add_odd(bkm_cells *cells, uint32_t row, bkm_span key, bkm_span value)
{
    if (!has_room(&cells->odd, cells->odd_count, &cells->odd_capacity, sizeof *cells->odd))
        return false;
    cells->odd[cells->odd_count++] = (bkm_odd_cell){row, key, value};
    return true;
}

bool bkm_cells_want(bkm_cells *cells, uint32_t row, bkm_span index)
{
    bkm_span id = bkm_spans_get(&cells->ids, row);
    size_t size = (size_t)index.size + separator.size + id.size;
    if (size > UINT32_MAX)
        return true; /* longer than any bolt key */
    if (!bkm_array_room(&cells->scratch, &cells->scratch_capacity, size, 1, 256) ||
        !has_room(&cells->wanted, cells->wanted_count, &cells->wanted_capacity, sizeof *cells->wanted))
        return false;
    memcpy(cells->scratch, index.data, index.size);
    memcpy(cells->scratch + index.size, separator.data, separator.size);
    memcpy(cells->scratch + index.size + separator.size, id.data, id.size);
    uint64_t hash = bkm_span_hash(&cells->hash, (bkm_span){cells->scratch, (uint32_t)size});
    cells->wanted[cells->wanted_count++] = (bkm_wanted_entry){hash, row};
    return true;
}

/* ---- values ---- */

static bool is_list(bkm_span stored)
{
    bkm_list list;
    if (!bkm_list_open(&list, stored))
        return false;
    while (bkm_list_next(&list))
        ;
    return bkm_list_ended(&list);
}

/* Whether a recognised value has the form. */
static bool has_form(bkm_cell_form form, bkm_span stored, const bkm_json_value *value)
{
    uint8_t first = bkm_raw_part(stored).data[0];
    int64_t number;
    if (first == 'n' || form == BKM_CELL_ANY)
        return true; /* null is the zero value of any type */
    switch (form) {
    case BKM_CELL_TEXT:
        return value->kind == BKM_JSON_STRING || value->kind == BKM_JSON_ESCAPED;
    case BKM_CELL_INTEGER:
        return (first == '-' || (first >= '0' && first <= '9')) && bkm_decode_integer(bkm_raw_part(stored), &number);
    case BKM_CELL_FLAG:
        return first == 't' || first == 'f';
    default:
        return false;
    }
}

/* Decodes a string into memory of the column; a plain string is not copied. */
static bool decoded(bkm_spans *column, bkm_span string, bool plain, bkm_span *text)
{
    *text = string;
    if (plain)
        return true;
    size_t room = 3 * (size_t)string.size;
    uint8_t *out = bkm_spans_room(column, room);
    if (!out)
        return false;
    size_t size = bkm_unescape(out, string);
    bkm_spans_give_back(column, room - size);
    *text = (bkm_span){out, (uint32_t)size};
    return true;
}

static bool keep(bkm_cells *cells, unsigned key, bool readable)
{
    size_t at = cells->values.count - 1;
    if (!has_room(&cells->kinds, at, &cells->kinds_capacity, 1))
        return false;
    cells->kinds[at] = (uint8_t)(readable ? key : key | UNREADABLE);
    return true;
}

static bool keep_text(bkm_cells *cells, unsigned key, bkm_span stored, const bkm_json_value *value)
{
    bkm_span text = {NULL, 0};
    if (value->kind == BKM_JSON_STRING || value->kind == BKM_JSON_ESCAPED) {
        if (!decoded(&cells->values, value->text, value->kind == BKM_JSON_STRING, &text))
            return false;
    } else if (value->kind == BKM_JSON_OTHER && bkm_raw_part(stored).data[0] == 'n') {
        text.data = stored.data;
    }
    return bkm_spans_add(&cells->values, text) && keep(cells, key, text.data != NULL);
}

static bool keep_number(bkm_cells *cells, unsigned key, bkm_span stored, const bkm_json_value *value)
{
    int64_t number = 0;
    bool readable = false;
    if (value->kind == BKM_JSON_OTHER) {
        bkm_span raw = bkm_raw_part(stored);
        bool is_flag = raw.data[0] == 't' || raw.data[0] == 'f';
        number = raw.data[0] == 't';
        readable = raw.data[0] == 'n' || (is_flag == (cells->keys[key].form == BKM_CELL_FLAG) &&
                                          (is_flag || bkm_decode_integer(raw, &number)));
    }
    return bkm_spans_add_number(&cells->values, (uint64_t)number) && keep(cells, key, readable);
}

/* While the value is in the cache anyway: when a column is asked for, the file is not read again. */
static bool keep_value(bkm_cells *cells, unsigned key, bkm_span stored, const bkm_json_value *value)
{
    switch (cells->keys[key].form) {
    case BKM_CELL_TEXT:
        return keep_text(cells, key, stored, value);
    case BKM_CELL_INTEGER:
    case BKM_CELL_FLAG:
        return keep_number(cells, key, stored, value);
    default:
        return bkm_spans_add(&cells->values, stored) && keep(cells, key, true);
    }
}

static bool read_value(bkm_cells *cells, uint32_t row, const bkm_item *item)
{
    const bkm_span none = {NULL, 0};
    if (item->bucket)
        return cells->unchecked || add_odd(cells, row, item->key, none);
    unsigned key = key_of(cells, item->key);
    if (key == NO_KEY)
        return cells->unchecked || add_odd(cells, row, item->key, item->value);
    if (item->value.size == 0)
        return true; /* cleared */
    bkm_json_value value = bkm_json_read(item->value);
    if (cells->keys[key].kept && !keep_value(cells, key, item->value, &value))
        return false;
    if (cells->unchecked || (cells->keys[key].form == BKM_CELL_TEXTS && is_list(item->value)))
        return true;
    if (value.kind == BKM_JSON_ODD || !has_form(cells->keys[key].form, item->value, &value) ||
        (value.index.data && !value.plain_index))
        return add_odd(cells, row, item->key, item->value);
    return !value.index.size || bkm_cells_want(cells, row, value.index);
}

/* ---- the walk ---- */

static bool read_record(bkm_cells *cells, bkm_bolt *bolt, const bkm_item *item, uint64_t page, uint8_t *visited)
{
    bkm_bucket bucket;
    bkm_cursor cursor;
    uint32_t row = (uint32_t)cells->ids.count;
    if (row == BKM_MAX_ROWS || cells->values.count > BKM_MAX_ROWS)
        return bkm_bolt_fail(bolt, BKM_TOO_MANY_ROWS, page);
    if (!has_room(&cells->first, row + 1, &cells->first_capacity, sizeof *cells->first) ||
        !bkm_spans_add(&cells->ids, item->key))
        return bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
    if (!bkm_bucket_decode(bolt, item->value, page, &bucket) || !bkm_cursor_first(&cursor, bolt, &bucket, visited))
        return false;
    while (!bkm_cursor_end(&cursor)) {
        bkm_item value = bkm_cursor_item(&cursor);
        if (!read_value(cells, row, &value))
            return bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
        if (!bkm_cursor_next(&cursor))
            return false;
    }
    cells->first[row + 1] = (uint32_t)cells->values.count;
    return true;
}

static bool read_main(bkm_cells *cells, bkm_bolt *bolt, const bkm_bucket *main_bucket, uint8_t *visited)
{
    bkm_cursor cursor;
    if (!bkm_cursor_first(&cursor, bolt, main_bucket, visited))
        return false;
    while (!bkm_cursor_end(&cursor)) {
        bkm_item item = bkm_cursor_item(&cursor);
        if (item.bucket) {
            if (!read_record(cells, bolt, &item, bkm_cursor_page(&cursor), visited))
                return false;
        } else if (!bkm_spans_add(&cells->plain, item.key)) {
            return bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
        }
        if (!bkm_cursor_next(&cursor))
            return false;
    }
    return true;
}

bool bkm_cells_read(bkm_cells *cells, bkm_bolt *bolt, const bkm_bucket *main_bucket)
{
    cells->ids.base = cells->values.base = cells->plain.base = bolt->data;
    if (!has_room(&cells->first, 0, &cells->first_capacity, sizeof *cells->first))
        return bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
    cells->first[0] = 0;
    if (!main_bucket)
        return true;
    uint8_t *visited = bkm_bolt_bitmap(bolt);
    bool ok =
        visited ? read_main(cells, bolt, main_bucket, visited) : bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
    free(visited);
    return ok;
}

void bkm_cells_free(bkm_cells *cells)
{
    bkm_spans_free(&cells->ids);
    bkm_spans_free(&cells->values);
    bkm_spans_free(&cells->plain);
    free(cells->first);
    free(cells->kinds);
    free(cells->odd);
    free(cells->wanted);
    free(cells->scratch);
}

void bkm_cells_drop(bkm_cells *cells, const bool *dropped)
{
    size_t at = 0, kept = 0;
    for (size_t row = 0; row < cells->ids.count; row++) {
        for (size_t end = cells->first[row + 1]; at < end; at++) {
            if (dropped[cells->kinds[at] & ~UNREADABLE])
                continue;
            cells->values.packed[kept] = cells->values.packed[at];
            cells->kinds[kept++] = cells->kinds[at];
        }
        cells->first[row + 1] = (uint32_t)kept;
    }
    cells->values.count = kept;
    if (kept && resize(&cells->values.packed, kept, sizeof *cells->values.packed))
        cells->values.capacity = kept;
    if (kept && resize(&cells->kinds, kept, 1))
        cells->kinds_capacity = kept;
}

/* ---- index entries ---- */

bool bkm_cells_compare(const bkm_cells *cells, const bkm_spans *entries, uint32_t *missing, size_t *missing_count,
                       uint8_t *stray)
{
    size_t size = 16;
    if (entries->count > BKM_MAX_ROWS)
        return false;
    while (size < 2 * entries->count)
        size *= 2;
    uint64_t *hashes = bkm_column(size, sizeof *hashes);
    uint32_t *rows = bkm_column(size, sizeof *rows); /* index of the entry, + 1 */
    if (!hashes || !rows) {
        free(hashes);
        free(rows);
        return false;
    }
    memset(rows, 0, size * sizeof *rows);
    for (size_t row = 0; row < entries->count; row++) {
        bkm_spans_prefetch(entries, row + 16);
        uint64_t hash = bkm_span_hash(&cells->hash, bkm_spans_get(entries, row));
        size_t slot = hash & (size - 1);
        while (rows[slot])
            slot = (slot + 1) & (size - 1);
        hashes[slot] = hash;
        rows[slot] = (uint32_t)row + 1;
        stray[row] = 1;
    }
    *missing_count = 0;
    for (size_t i = 0; i < cells->wanted_count; i++) {
        uint64_t hash = cells->wanted[i].hash;
        size_t slot = hash & (size - 1);
        while (rows[slot] && hashes[slot] != hash)
            slot = (slot + 1) & (size - 1);
        if (rows[slot])
            stray[rows[slot] - 1] = 0;
        else
            missing[(*missing_count)++] = cells->wanted[i].row;
    }
    free(hashes);
    free(rows);
    return true;
}

/* ---- columns ---- */

/* Iterates over all values of one key in row order. */
typedef struct {
    const bkm_cells *cells;
    uint8_t key;
    size_t row, at;
    size_t next;
} walk;

static bool next_value(walk *walk)
{
    const bkm_cells *cells = walk->cells;
    const uint8_t *kinds = cells->kinds;
    const uint8_t *found = kinds ? memchr(kinds + walk->next, walk->key, cells->values.count - walk->next) : NULL;
    if (!found)
        return false;
    walk->at = (size_t)(found - kinds);
    walk->next = walk->at + 1;
    while (cells->first[walk->row + 1] <= walk->at)
        walk->row++;
    return true;
}

bool bkm_cells_spans(const bkm_cells *cells, uint8_t key, bkm_spans *column)
{
    if (!bkm_spans_fill(column, cells->ids.count, cells->values.base))
        return false;
    for (walk walk = {cells, key, 0, 0, 0}; next_value(&walk);)
        if (!bkm_spans_set(column, walk.row, bkm_spans_get(&cells->values, walk.at)))
            return false;
    return true;
}

void bkm_cells_numbers(const bkm_cells *cells, uint8_t key, int64_t *values, uint8_t *known)
{
    if (!cells->ids.count)
        return; /* there need be no places then */
    memset(values, 0, cells->ids.count * sizeof *values);
    memset(known, 0, cells->ids.count);
    for (walk walk = {cells, key, 0, 0, 0}; next_value(&walk);) {
        values[walk.row] = (int64_t)cells->values.packed[walk.at];
        known[walk.row] = 1;
    }
}

void bkm_cells_has(const bkm_cells *cells, uint8_t key, uint8_t *found)
{
    if (!cells->ids.count)
        return;
    memset(found, 0, cells->ids.count);
    for (walk walk = {cells, key, 0, 0, 0}; next_value(&walk);)
        found[walk.row] = 1;
    for (walk walk = {cells, key | UNREADABLE, 0, 0, 0}; next_value(&walk);)
        found[walk.row] = 1;
}

bool bkm_cells_lists(const bkm_cells *cells, uint8_t key, int32_t **rows, bkm_spans *strings)
{
    size_t capacity = 0;
    *rows = NULL;
    *strings = (bkm_spans){.base = cells->values.base};
    for (walk walk = {cells, key, 0, 0, 0}; next_value(&walk);) {
        bkm_list list;
        bkm_span stored = bkm_spans_get(&cells->values, walk.at), text;
        if (!is_list(stored) || !bkm_list_open(&list, stored))
            continue;
        while (bkm_list_next(&list)) {
            if (strings->count == BKM_MAX_ROWS || !has_room(rows, strings->count, &capacity, sizeof **rows) ||
                !decoded(strings, list.string, list.plain, &text))
                return false;
            (*rows)[strings->count] = (int32_t)walk.row;
            if (!bkm_spans_add(strings, text))
                return false;
        }
    }
    return true;
}
