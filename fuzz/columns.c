/* Records of a v2 store, entries, look-ups, numbers and graphs. The input is a bbolt file, or else a stored value. */
#include "bolt/rows.h"
#include "columns/cells.h"
#include "columns/compare.h"
#include "columns/decode.h"
#include "columns/graph.h"
#include "columns/lookup.h"
#include "columns/numbers.h"
#include "columns/solver.h"
#include "common.h"

static const bkm_cell_key keys[] = {
    {BKM_NAME_SPAN("cache.imageRefs"), BKM_CELL_TEXTS, true},  {BKM_NAME_SPAN("cache.parent"), BKM_CELL_TEXT, true},
    {BKM_NAME_SPAN("cache.blobsize"), BKM_CELL_INTEGER, true}, {BKM_NAME_SPAN("cache.deleted"), BKM_CELL_FLAG, true},
    {BKM_NAME_SPAN("blobmapping.blob"), BKM_CELL_ANY, false},
};
enum { KEYS = sizeof keys / sizeof *keys };

static void *room(size_t count, size_t size)
{
    void *found = calloc(count + 1, size);
    BKM_DEMAND(found);
    return found;
}

/* Every entry can be read. Returns their bytes. */
static uint64_t look_at(const bkm_spans *column)
{
    uint64_t bytes = 0;
    volatile uint8_t seen = 0;
    for (size_t row = 0; row < column->count; row++) {
        bkm_span entry = bkm_spans_get(column, row);
        bytes += entry.size;
        for (uint32_t i = 0; i < entry.size; i++)
            seen ^= entry.data[i];
    }
    return bytes;
}

static void split(const bkm_spans *column)
{
    bkm_spans before = {0}, after = {0};
    BKM_DEMAND(bkm_split_last(column, BKM_NAME("::"), &before, &after));
    for (size_t row = 0; row < column->count; row++) {
        bkm_span whole = bkm_spans_get(column, row), tail = bkm_spans_get(&after, row);
        if (tail.data)
            BKM_DEMAND(bkm_spans_get(&before, row).size + 2 + tail.size == whole.size);
    }
    bkm_spans_free(&before);
    bkm_spans_free(&after);
}

/* Whatever is looked up is found at the first row that has it; what refers to itself is in a circle. */
static void look_up(const bkm_spans *column, const bkm_spans *others)
{
    bkm_lookup lookup;
    bkm_spans taken;
    bkm_graph graph = {.nodes = column->count};
    int32_t *rows = room(column->count + others->count, sizeof *rows);
    uint8_t *found = room(column->count, 1);
    BKM_DEMAND(bkm_lookup_make(&lookup, column));
    BKM_DEMAND(bkm_lookup_find_all(&lookup, column, rows));
    for (size_t row = 0; row < column->count; row++) {
        BKM_DEMAND(rows[row] == BKM_ROW_ABSENT || (rows[row] >= 0 && (size_t)rows[row] <= row));
        if (rows[row] >= 0)
            BKM_DEMAND(bkm_graph_add(&graph, (int32_t)row, rows[row]));
    }
    BKM_DEMAND(bkm_take(column, rows, column->count, &taken));
    bkm_equal(column, &taken, found);
    for (size_t row = 0; row < column->count; row++)
        BKM_DEMAND(found[row] == (rows[row] >= 0));
    memset(found, 0, column->count);
    BKM_DEMAND(bkm_graph_cycles(&graph, found));
    for (size_t row = 0; row < column->count; row++)
        BKM_DEMAND(found[row] == (rows[row] == (int32_t)row));
    BKM_DEMAND(bkm_graph_reach(&graph, found));
    BKM_DEMAND(bkm_lookup_find_all(&lookup, others, rows));
    bkm_spans_free(&taken);
    bkm_graph_free(&graph);
    bkm_lookup_free(&lookup);
    free(rows);
    free(found);
}

static void read_numbers(const bkm_spans *column)
{
    int64_t *values = room(2 * column->count, sizeof *values);
    uint8_t *flags = room(2 * column->count, 1);
    bkm_read_numbers(column, true, values, flags);
    bkm_read_numbers(column, false, values, flags);
    bkm_read_times(column, values, flags, flags + column->count);
    bkm_read_links(column, values, values + column->count, flags);
    bkm_read_counters(column, values);
    bkm_plain_results(column, column, flags);
    bkm_plain_links(column, flags);
    BKM_DEMAND(bkm_find_repeated(values, column->count, flags));
    free(values);
    free(flags);
}

static void read_entries(bkm_bolt *bolt, const bkm_bucket *bucket)
{
    static const bkm_span labels = BKM_NAME_SPAN("labels");
    for (int way = 0; way < 4; way++) {
        bkm_entries entries;
        bkm_span prefix = way & 1 ? BKM_NAME("c") : BKM_NAME("");
        if (!bkm_entries_below(&entries, bolt, bucket, &labels, way >> 1, prefix)) {
            bkm_fuzz_demand_error(bolt);
            continue;
        }
        BKM_DEMAND(entries.keys.count == entries.values.count);
        BKM_DEMAND(look_at(&entries.keys) + look_at(&entries.values) <= bolt->size);
        for (size_t at = 1; at < entries.keys.count; at++)
            BKM_DEMAND(entries.rows[at - 1] <= entries.rows[at]);
        split(&entries.keys);
        read_numbers(&entries.keys);
        read_numbers(&entries.values);
        bkm_entries_free(&entries);
    }
}

static void compare(const bkm_cells *cells, bkm_bolt *bolt)
{
    static const bkm_span name = BKM_NAME_SPAN("_index");
    bkm_bucket root = bkm_root_bucket(bolt), bucket;
    bkm_entries entries;
    bool found;
    if (!bkm_bucket_descend(bolt, &root, &name, 1, &bucket, &found) || !found ||
        !bkm_entries_in(&entries, bolt, &bucket))
        return;
    uint32_t *missing = room(cells->wanted_count, sizeof *missing);
    uint8_t *stray = room(entries.keys.count, 1);
    size_t count;
    BKM_DEMAND(bkm_cells_compare(cells, &entries.keys, missing, &count, stray));
    BKM_DEMAND(count <= cells->wanted_count);
    look_up(&entries.keys, &cells->ids);
    free(missing);
    free(stray);
    bkm_entries_free(&entries);
}

static void read_columns(const bkm_cells *cells)
{
    size_t count = cells->ids.count;
    int64_t *values = room(count, sizeof *values);
    uint8_t *known = room(count, 1);
    look_at(&cells->ids);
    for (uint8_t key = 0; key < KEYS; key++) {
        bkm_spans column;
        int32_t *rows;
        switch (keys[key].form) {
        case BKM_CELL_INTEGER:
        case BKM_CELL_FLAG:
            bkm_cells_numbers(cells, key, values, known);
            break;
        case BKM_CELL_TEXTS:
            BKM_DEMAND(bkm_cells_lists(cells, key, &rows, &column));
            look_at(&column);
            bkm_spans_free(&column);
            free(rows);
            break;
        default:
            BKM_DEMAND(bkm_cells_spans(cells, key, &column));
            look_up(&cells->ids, &column);
            bkm_spans_free(&column);
        }
        bkm_cells_has(cells, key, known);
    }
    free(values);
    free(known);
}

static void read_records(bkm_bolt *bolt)
{
    static const bkm_span name = BKM_NAME_SPAN("_main");
    static bkm_cells cells;
    bkm_bucket root = bkm_root_bucket(bolt), bucket;
    bool found;
    if (!bkm_bucket_descend(bolt, &root, &name, 1, &bucket, &found))
        return;
    cells = (bkm_cells){.key_count = KEYS};
    memcpy(cells.keys, keys, sizeof keys);
    bkm_cells_begin(&cells);
    if (!bkm_cells_read(&cells, bolt, found ? &bucket : NULL)) {
        bkm_fuzz_demand_error(bolt);
    } else {
        for (size_t odd = 0; odd < cells.odd_count; odd++) {
            BKM_DEMAND(cells.odd[odd].row < cells.ids.count);
            BKM_DEMAND(bkm_cells_want(&cells, cells.odd[odd].row, cells.odd[odd].key));
        }
        read_columns(&cells);
        compare(&cells, bolt);
    }
    bkm_cells_free(&cells);
}

/* Of a stored value: what is decoded has no more than three times its bytes. */
static void decode(bkm_span stored)
{
    bkm_list list;
    bkm_json_value value = bkm_json_read(stored);
    uint8_t *out = room(3 * (size_t)stored.size, 1);
    int64_t number;
    if (value.kind == BKM_JSON_ESCAPED || value.kind == BKM_JSON_STRING)
        BKM_DEMAND(bkm_unescape(out, value.text) <= 3 * (size_t)value.text.size);
    if (value.kind == BKM_JSON_STRING)
        BKM_DEMAND(memcmp(out, value.text.data, value.text.size) == 0);
    if (value.kind == BKM_JSON_OTHER)
        bkm_decode_integer(bkm_raw_part(stored), &number);
    if (bkm_list_open(&list, stored)) {
        while (bkm_list_next(&list))
            BKM_DEMAND(bkm_unescape(out, list.string) <= 3 * (size_t)list.string.size);
        BKM_DEMAND(!bkm_list_ended(&list) || list.end[-1] == '}');
    }
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = bkm_fuzz_copy(data, size);
    bkm_bolt bolt;
    if (bkm_bolt_open(&bolt, copy, size)) {
        bkm_bucket root = bkm_root_bucket(&bolt);
        read_records(&bolt);
        read_entries(&bolt, &root);
        bkm_bolt_close(&bolt);
    } else if (size <= UINT32_MAX) {
        decode((bkm_span){copy, (uint32_t)size});
    }
    free(copy);
    return 0;
}
