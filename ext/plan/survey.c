#include "plan/survey.h"

#include <stdlib.h>

#include "bolt/scan.h"
#include "core/array.h"
#include "core/column.h"
#include "core/span_table.h"
#include "plan/names.h"

static const bkm_span root_label[] = {BKM_NAME_SPAN(BUCKET_LABELS), BKM_NAME_SPAN(LABEL_ROOT)};
static const bkm_span expire_label[] = {BKM_NAME_SPAN(BUCKET_LABELS), BKM_NAME_SPAN(LABEL_EXPIRE)};

/* One flag per row: whether the row has a value in this column. */
static uint8_t *presence(const bkm_table *table, size_t column)
{
    uint8_t *flags = malloc(table->rows + 1);
    for (size_t i = 0; flags && i < table->rows; i++)
        flags[i] = table->columns[column][i].data != NULL;
    return flags;
}

static bkm_span *steal(bkm_span **array)
{
    bkm_span *stolen = *array;
    *array = NULL;
    return stolen;
}

static bool no_memory(bkm_bolt *bolt)
{
    return bkm_bolt_fail(bolt, BKM_NO_MEMORY, BKM_NO_PAGE);
}

/* Scans the bucket at `steps`; it may be missing at any level. */
static bool scan(bkm_bolt *bolt, const bkm_span *steps, size_t depth, const bkm_path *paths, size_t path_count,
                 bkm_table *table)
{
    bkm_bucket root = bkm_root_bucket(bolt), bucket;
    bool found;
    *table = (bkm_table){0};
    if (!bkm_bucket_descend(bolt, &root, steps, depth, &bucket, &found))
        return false;
    return !found || bkm_scan(bolt, &bucket, paths, path_count, table);
}

/* ---- snapshots ---- */

/* Keeps only snapshots that the snapshotter knows, and sets their kinds. */
static bool join_kinds(bkm_survey *survey, const bkm_span *backend_names, const bkm_table *backend)
{
    enum { AHEAD = 16 };
    const bkm_span *kinds = backend->rows ? backend->columns[0] : NULL;
    bkm_span_table by_name;
    size_t kept = 0;
    int32_t *rows = bkm_column(survey->snapshot_count + 1, sizeof *rows);
    if (!rows || !bkm_span_table_make(&by_name, backend->names, backend->rows)) {
        free(rows);
        return false;
    }
    bkm_span_table_find_all(&by_name, backend_names, survey->snapshot_count, rows);
    for (size_t i = 0; i < survey->snapshot_count; i++) {
        int32_t row = rows[i];
        if (i + 2 * AHEAD < survey->snapshot_count && rows[i + 2 * AHEAD] >= 0)
            __builtin_prefetch(&kinds[rows[i + 2 * AHEAD]]);
        if (i + AHEAD < survey->snapshot_count && rows[i + AHEAD] >= 0)
            bkm_prefetch(kinds[rows[i + AHEAD]]);
        if (row < 0)
            continue;
        bkm_span kind = kinds[row];
        bool is_known = kind.size == 1 && kind.data[0] <= BKM_SNAPSHOT_COMMITTED;
        survey->snapshot[kept] = survey->snapshot[i];
        survey->snapshot_parent[kept] = survey->snapshot_parent[i];
        survey->snapshot_root[kept] = survey->snapshot_root[i];
        survey->snapshot_kind[kept++] = is_known ? kind.data[0] : BKM_SNAPSHOT_UNKNOWN;
    }
    survey->snapshot_count = kept;
    free(rows);
    bkm_span_table_free(&by_name);
    return true;
}

static bool read_snapshots(bkm_survey *survey, bkm_bolt *metadata, const bkm_table *backend, bkm_span name_space,
                           bkm_span snapshotter)
{
    static const bkm_span name = BKM_NAME_SPAN(FIELD_NAME), parent = BKM_NAME_SPAN(FIELD_PARENT);
    const bkm_span steps[] = {BKM_NAME_SPAN(BUCKET_SCHEMA), name_space, BKM_NAME_SPAN(BUCKET_SNAPSHOTS), snapshotter};
    const bkm_path paths[] = {{&name, 1}, {&parent, 1}, {root_label, 2}};
    bkm_table table;

    if (!scan(metadata, steps, 4, paths, 3, &table))
        return false;
    if (table.rows == 0) {
        bkm_table_free(&table);
        return true;
    }
    survey->snapshot_root = presence(&table, 2);
    survey->snapshot_kind = calloc(table.rows, 1);
    survey->snapshot_count = table.rows;
    survey->snapshot = steal(&table.names);
    survey->snapshot_parent = steal(&table.columns[1]);
    bool ok = survey->snapshot_root && survey->snapshot_kind && join_kinds(survey, table.columns[0], backend);
    bkm_table_free(&table);
    return ok || no_memory(metadata);
}

static bool read_kinds(bkm_bolt *snapshots, bkm_table *backend)
{
    static const bkm_span kind = BKM_NAME_SPAN(FIELD_KIND);
    const bkm_span steps[] = {BKM_NAME_SPAN(BUCKET_SCHEMA), BKM_NAME_SPAN(BUCKET_SNAPSHOTS)};
    const bkm_path paths[] = {{&kind, 1}};
    return scan(snapshots, steps, 2, paths, 1, backend);
}

/* ---- content ---- */

/* Decodes a size as containerd does (Go's Varint: zig-zag, base 128; trailing bytes are ignored). 0 for a
 * malformed or negative number. */
static int64_t read_size(bkm_span stored)
{
    enum { LONGEST = 10 };
    uint64_t zigzag = 0;
    for (uint32_t at = 0; at < stored.size && at < LONGEST; at++) {
        uint8_t byte = stored.data[at];
        if (at == LONGEST - 1 && byte > 1)
            break; /* more than 64 bits */
        zigzag |= (uint64_t)(byte & 0x7F) << (7 * at);
        if (byte < 0x80)
            return zigzag & 1 ? 0 : (int64_t)(zigzag >> 1);
    }
    return 0;
}

static int64_t *sizes(const bkm_table *table, size_t column)
{
    int64_t *found = bkm_column(table->rows + 1, sizeof *found);
    for (size_t i = 0; found && i < table->rows; i++)
        found[i] = read_size(table->columns[column][i]);
    return found;
}

static bool read_blobs(bkm_survey *survey, bkm_bolt *metadata, bkm_span name_space)
{
    const bkm_span steps[] = {BKM_NAME_SPAN(BUCKET_SCHEMA), name_space, BKM_NAME_SPAN(BUCKET_CONTENT),
                              BKM_NAME_SPAN(BUCKET_BLOB)};
    static const bkm_span size = BKM_NAME_SPAN(FIELD_SIZE);
    const bkm_path paths[] = {{root_label, 2}, {&size, 1}};
    bkm_table table;

    if (!scan(metadata, steps, 4, paths, 2, &table))
        return false;
    survey->blob_root = presence(&table, 0);
    survey->blob_size = sizes(&table, 1);
    survey->blob_count = table.rows;
    survey->blob = steal(&table.names);
    bkm_table_free(&table);
    return (survey->blob_root && survey->blob_size) || no_memory(metadata);
}

/* ---- leases ---- */

bool bkm_survey_add_resource(bkm_survey *survey, bkm_span id, bool is_content)
{
    size_t wanted = survey->resource_count + 1, ids = survey->resource_capacity, kinds = ids;
    if (!bkm_array_room(&survey->resource, &ids, wanted, sizeof *survey->resource, 64) ||
        !bkm_array_room(&survey->resource_is_content, &kinds, wanted, 1, 64))
        return false;
    survey->resource_capacity = kinds;
    survey->resource[survey->resource_count] = id;
    survey->resource_is_content[survey->resource_count++] = is_content;
    return true;
}

static bool read_resources(bkm_survey *survey, bkm_bolt *metadata, const bkm_bucket *lease, const bkm_span *steps,
                           size_t depth, bool is_content)
{
    bkm_bucket bucket;
    bkm_cursor cursor;
    bool found;
    if (!bkm_bucket_descend(metadata, lease, steps, depth, &bucket, &found))
        return false;
    if (!found)
        return true;
    if (!bkm_cursor_first(&cursor, metadata, &bucket, NULL))
        return false;
    while (!bkm_cursor_end(&cursor)) {
        if (!bkm_survey_add_resource(survey, bkm_cursor_item(&cursor).key, is_content))
            return no_memory(metadata);
        /* Every resource has its own element, unless leases share pages. */
        if (survey->resource_count > metadata->size / BKM_LEAF_ELEMENT)
            return bkm_bolt_fail(metadata, BKM_PAGE_VISITED_TWICE, bkm_cursor_page(&cursor));
        if (!bkm_cursor_next(&cursor))
            return false;
    }
    return true;
}

static bool read_leases(bkm_survey *survey, bkm_bolt *metadata, bkm_span name_space, bkm_span snapshotter)
{
    const bkm_span steps[] = {BKM_NAME_SPAN(BUCKET_SCHEMA), name_space, BKM_NAME_SPAN(BUCKET_LEASES)};
    const bkm_span content[] = {BKM_NAME_SPAN(BUCKET_CONTENT)},
                   snapshots[] = {BKM_NAME_SPAN(BUCKET_SNAPSHOTS), snapshotter};
    bkm_bucket root = bkm_root_bucket(metadata), leases;
    bkm_table table;
    bool found;

    if (!bkm_bucket_descend(metadata, &root, steps, 3, &leases, &found))
        return false;
    if (!found)
        return true;
    const bkm_path paths[] = {{expire_label, 2}};
    if (!bkm_scan(metadata, &leases, paths, 1, &table))
        return false;
    survey->lease_expires = presence(&table, 0);
    survey->lease_count = table.rows;
    survey->lease = steal(&table.names);
    bkm_table_free(&table);
    survey->lease_end = malloc((survey->lease_count + 1) * sizeof *survey->lease_end);
    if (!survey->lease_end || !survey->lease_expires)
        return no_memory(metadata);
    for (size_t i = 0; i < survey->lease_count; i++) {
        bkm_bucket lease;
        if (!bkm_bucket_descend(metadata, &leases, &survey->lease[i], 1, &lease, &found) ||
            !read_resources(survey, metadata, &lease, content, 1, true) ||
            !read_resources(survey, metadata, &lease, snapshots, 2, false))
            return false;
        survey->lease_end[i] = survey->resource_count;
    }
    return true;
}

bkm_bolt *bkm_survey_read(bkm_survey *survey, bkm_bolt *metadata, bkm_bolt *snapshots, bkm_span name_space,
                          bkm_span snapshotter)
{
    bkm_table backend = {0};
    *survey = (bkm_survey){0};
    if (snapshots && !read_kinds(snapshots, &backend))
        return snapshots;
    bool ok = read_snapshots(survey, metadata, &backend, name_space, snapshotter) &&
              read_blobs(survey, metadata, name_space) && read_leases(survey, metadata, name_space, snapshotter);
    bkm_table_free(&backend);
    if (ok)
        return NULL;
    bkm_survey_free(survey);
    return metadata;
}

void bkm_survey_free(bkm_survey *survey)
{
    free(survey->snapshot);
    free(survey->snapshot_parent);
    free(survey->snapshot_kind);
    free(survey->snapshot_root);
    free(survey->blob);
    free(survey->blob_root);
    free(survey->blob_size);
    free(survey->lease);
    free(survey->lease_expires);
    free(survey->lease_complete);
    free(survey->lease_end);
    free(survey->resource);
    free(survey->resource_is_content);
    *survey = (bkm_survey){0};
}
