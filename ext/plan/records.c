#include "plan/records.h"

#include <stdlib.h>

#include "core/column.h"
#include "plan/names.h"

static const struct {
    bkm_span name;
    uint32_t kind;
} known_keys[] = {
    {BKM_NAME_SPAN(KEY_PARENT), BKM_STORED_PARENT},
    {BKM_NAME_SPAN(KEY_DIFF_ID), BKM_STORED_DIFF_ID},
    {BKM_NAME_SPAN(KEY_BLOB), BKM_STORED_BLOB},
    {BKM_NAME_SPAN(KEY_CHAIN), BKM_STORED_CHAIN},
    {BKM_NAME_SPAN(KEY_BLOB_CHAIN), BKM_STORED_BLOB_CHAIN},
    {BKM_NAME_SPAN(KEY_SNAPSHOT), BKM_KEY_WRITTEN},
    {BKM_NAME_SPAN(KEY_MEDIA_TYPE), BKM_KEY_WRITTEN},
    {BKM_NAME_SPAN(KEY_COMMITTED), BKM_KEY_WRITTEN},
    {BKM_NAME_SPAN(KEY_BLOB_SIZE), BKM_KEY_BLOB_SIZE},
    {BKM_NAME_SPAN(KEY_EQUAL_MUTABLE), BKM_KEY_EQUAL_MUTABLE},
    {BKM_NAME_SPAN(KEY_BLOB_MAPPING), BKM_KEY_BLOB_MAPPING},
};

static uint32_t kind_of(bkm_span key)
{
    for (size_t i = 0; i < sizeof known_keys / sizeof *known_keys; i++)
        if (known_keys[i].name.size == key.size && memcmp(known_keys[i].name.data, key.data, key.size) == 0)
            return known_keys[i].kind;
    return BKM_KEY_ANY;
}

/* ---- growth ---- */

/* `array` is the address of a pointer to objects of any type. */
static bool resize(void *array, size_t capacity, size_t size)
{
    void *objects;
    memcpy(&objects, array, sizeof objects);
    objects = bkm_column_resize(objects, capacity, size);
    if (!objects)
        return false;
    memcpy(array, &objects, sizeof objects);
    return true;
}

static bool has_room(void *array, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return true;
    size_t larger = *capacity ? *capacity * 2 : 16;
    if (!resize(array, larger, size))
        return false;
    *capacity = larger;
    return true;
}

static bool resize_columns(bkm_records *records, size_t capacity)
{
    for (int i = 0; i < BKM_STORED_TEXTS; i++)
        if (records->stored[i] && !resize(&records->stored[i], capacity, sizeof(bkm_span)))
            return false;
    return resize(&records->id, capacity, sizeof(bkm_span)) &&
           resize(&records->equal_mutable, capacity, sizeof(bkm_span)) &&
           resize(&records->blobsum, capacity, sizeof(bkm_span)) &&
           resize(&records->diff_id, capacity, sizeof(bkm_span)) && resize(&records->empty_mapping, capacity, 1);
}

static bool add_record(bkm_records *records, bkm_span id)
{
    const bkm_span none = {NULL, 0};
    if (records->count == records->capacity) {
        size_t capacity = records->capacity ? records->capacity * 2 : 1024;
        if (!resize_columns(records, capacity))
            return false;
        records->capacity = capacity;
    }
    size_t record = records->count++;
    records->id[record] = id;
    records->equal_mutable[record] = none;
    records->blobsum[record] = none;
    records->diff_id[record] = none;
    records->empty_mapping[record] = 0;
    for (int i = 0; i < BKM_STORED_TEXTS; i++)
        if (records->stored[i])
            records->stored[i][record] = none;
    return true;
}

static bool add_problem(bkm_records *records, uint32_t record, bkm_value_fault fault, bkm_span key)
{
    if (!has_room(&records->problems, records->problem_count, &records->problem_capacity, sizeof *records->problems))
        return false;
    records->problems[records->problem_count++] = (bkm_value_problem){record, fault, key};
    return true;
}

/* ---- values ---- */

static bool set_stored(bkm_records *records, bkm_stored which, size_t record, bkm_span text)
{
    if (!records->stored[which]) {
        records->stored[which] = calloc(records->capacity, sizeof(bkm_span));
        if (!records->stored[which])
            return false;
    }
    records->stored[which][record] = text;
    return true;
}

static bool set_value(bkm_records *records, uint32_t kind, size_t record, bkm_span text, bkm_span diff_id)
{
    if (kind < BKM_STORED_TEXTS)
        return text.size == 0 || set_stored(records, (bkm_stored)kind, record, text);
    if (kind == BKM_KEY_EQUAL_MUTABLE)
        records->equal_mutable[record] = text;
    if (kind == BKM_KEY_BLOB_MAPPING) {
        records->blobsum[record] = text;
        records->diff_id[record] = diff_id;
        records->empty_mapping[record] = text.data == NULL;
    }
    return true;
}

/* Whether the recogniser's answer suffices for a value of this kind. */
static bool is_settled(uint32_t kind, bkm_json_kind found)
{
    switch (kind) {
    case BKM_KEY_BLOB_MAPPING:
        return found == BKM_JSON_MAPPING;
    case BKM_KEY_ANY:
    case BKM_KEY_WRITTEN:
    case BKM_KEY_BLOB_SIZE:
        return found != BKM_JSON_ODD;
    default:
        return found != BKM_JSON_ODD && found != BKM_JSON_ESCAPED;
    }
}

static bool read_value(bkm_records *records, uint32_t record, const bkm_item *item)
{
    uint32_t kind = kind_of(item->key);
    if (item->bucket) {
        bool read_or_written = kind <= BKM_KEY_BLOB_SIZE;
        bkm_value_fault fault = kind == BKM_KEY_BLOB_SIZE ? BKM_BLOB_SIZE_IS_BUCKET : BKM_VALUE_IS_BUCKET;
        return !read_or_written || add_problem(records, record, fault, item->key);
    }
    if (item->value.size == 0)
        return true;
    bkm_json_value value = bkm_json_read(item->value);
    if (is_settled(kind, value.kind)) {
        bool has_text = value.kind == BKM_JSON_STRING || kind == BKM_KEY_BLOB_MAPPING;
        return !has_text || set_value(records, kind, record, value.text, value.diff_id);
    }
    if (!has_room(&records->odd, records->odd_count, &records->odd_capacity, sizeof *records->odd))
        return false;
    records->odd[records->odd_count++] = (bkm_odd_value){record, kind, item->key, item->value};
    return true;
}

bool bkm_records_refuse(bkm_records *records, size_t odd)
{
    const bkm_odd_value *value = &records->odd[odd];
    return add_problem(records, value->record, BKM_VALUE_UNDECODABLE, value->key);
}

bool bkm_records_accept(bkm_records *records, size_t odd, bkm_span text, bkm_span diff_id)
{
    const bkm_odd_value *value = &records->odd[odd];
    return set_value(records, value->kind, value->record, text, diff_id);
}

static int by_record_and_key(const void *left, const void *right)
{
    const bkm_value_problem *a = left, *b = right;
    if (a->record != b->record)
        return a->record < b->record ? -1 : 1;
    return bkm_span_compare(a->key, b->key);
}

void bkm_records_finish(bkm_records *records)
{
    if (records->problem_count)
        qsort(records->problems, records->problem_count, sizeof *records->problems, by_record_and_key);
    free(records->odd);
    records->odd = NULL;
    records->odd_count = records->odd_capacity = 0;
}

/* ---- the walk ---- */

static bool read_record(bkm_records *records, bkm_bolt *bolt, const bkm_item *item, uint64_t page, uint8_t *visited)
{
    bkm_bucket bucket;
    bkm_cursor cursor;
    if (records->count == BKM_MAX_ROWS)
        return bkm_bolt_fail(bolt, BKM_TOO_MANY_ROWS, page);
    if (!add_record(records, item->key))
        return bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
    if (!bkm_bucket_decode(bolt, item->value, page, &bucket) || !bkm_cursor_first(&cursor, bolt, &bucket, visited))
        return false;
    while (!bkm_cursor_end(&cursor)) {
        bkm_item value = bkm_cursor_item(&cursor);
        if (!read_value(records, (uint32_t)records->count - 1, &value))
            return bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
        if (!bkm_cursor_next(&cursor))
            return false;
    }
    return true;
}

static bool read_main(bkm_records *records, bkm_bolt *bolt, const bkm_bucket *main_bucket, uint8_t *visited)
{
    bkm_cursor cursor;
    if (!bkm_cursor_first(&cursor, bolt, main_bucket, visited))
        return false;
    while (!bkm_cursor_end(&cursor)) {
        bkm_item item = bkm_cursor_item(&cursor);
        if (item.bucket && !read_record(records, bolt, &item, bkm_cursor_page(&cursor), visited))
            return false;
        if (!bkm_cursor_next(&cursor))
            return false;
    }
    return true;
}

bool bkm_records_read(bkm_records *records, bkm_bolt *bolt)
{
    static const bkm_span main_name = BKM_NAME_SPAN(BUCKET_MAIN);
    bkm_bucket root = bkm_root_bucket(bolt), main_bucket;
    bool found;

    *records = (bkm_records){0};
    if (!bkm_bucket_descend(bolt, &root, &main_name, 1, &main_bucket, &found))
        return false;
    if (!found)
        return true;
    uint8_t *visited = bkm_bolt_bitmap(bolt);
    bool ok =
        visited ? read_main(records, bolt, &main_bucket, visited) : bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
    free(visited);
    if (!ok)
        bkm_records_free(records);
    return ok;
}

void bkm_records_free(bkm_records *records)
{
    free(records->id);
    free(records->equal_mutable);
    free(records->blobsum);
    free(records->diff_id);
    for (int i = 0; i < BKM_STORED_TEXTS; i++)
        free(records->stored[i]);
    free(records->empty_mapping);
    free(records->problems);
    free(records->odd);
    *records = (bkm_records){0};
}
