#include "plan/index_keys.h"

#include <stdlib.h>

#include "core/array.h"
#include "core/span_table.h"
#include "plan/names.h"

static const bkm_span blob_chain_prefix = BKM_NAME_SPAN(INDEX_BLOB_CHAIN);
static const bkm_span chain_prefix = BKM_NAME_SPAN(INDEX_CHAIN);
static const bkm_span separator = BKM_NAME_SPAN(INDEX_SEPARATOR);

/* ---- sorting new keys ---- */

/* A record with the leading bytes of its key, which mostly suffice to sort it. */
typedef struct {
    uint64_t rank;
    uint32_t record;
} entry;

typedef bkm_span (*id_text)(const bkm_chain_input *, const bkm_chain_output *, size_t, uint8_t *);

typedef struct {
    const bkm_plan *plan;
    id_text text;
} order;

/* Increases with the key, whose `parts` follow the index prefix; keys of equal rank need a full
 * comparison. Made of the eight bytes after the algorithm, which is nearly always the same. */
static uint64_t rank(const bkm_span parts[3])
{
    uint8_t start[15] = {0};
    size_t filled = 0;
    for (int i = 0; i < 3 && filled < sizeof start; i++) {
        size_t size = parts[i].size < sizeof start - filled ? parts[i].size : sizeof start - filled;
        memcpy(start + filled, parts[i].data, size);
        filled += size;
    }
    int side = memcmp(start, "sha256:", 7);
    if (side != 0)
        return side < 0 ? 0 : UINT64_MAX;
    return __builtin_bswap64(bkm_load64(start + 7));
}

static uint8_t byte_of(const bkm_span *parts, size_t at)
{
    for (; at >= parts->size; parts++)
        at -= parts->size;
    return parts->data[at];
}

/* Compares keys without building them. Id texts may have any length, so "::" may be compared with other
 * bytes. */
static int compare_keys(const order *by, uint32_t left, uint32_t right)
{
    uint8_t space[2][BKM_ID_SIZE];
    const bkm_chain_input *in = &by->plan->chain_input;
    const bkm_chain_output *out = &by->plan->chains;
    const bkm_span *ids = by->plan->records->id;
    const bkm_span a[] = {by->text(in, out, left, space[0]), separator, ids[left]};
    const bkm_span b[] = {by->text(in, out, right, space[1]), separator, ids[right]};
    if (a[0].size == b[0].size) {
        int texts = bkm_span_compare(a[0], b[0]);
        return texts ? texts : (left > right) - (left < right);
    }
    size_t a_size = (size_t)a[0].size + 2 + a[2].size, b_size = (size_t)b[0].size + 2 + b[2].size;
    for (size_t i = 0; i < a_size && i < b_size; i++)
        if (byte_of(a, i) != byte_of(b, i))
            return byte_of(a, i) < byte_of(b, i) ? -1 : 1;
    return (a_size > b_size) - (a_size < b_size);
}

static bool is_above(const order *by, const entry *left, const entry *right)
{
    if (left->rank != right->rank)
        return left->rank > right->rank;
    return compare_keys(by, left->record, right->record) > 0;
}

/* Bottom-up merge sort. Returns whichever of the two arrays holds the result. */
static entry *sort(const order *by, entry *from, entry *to, size_t count)
{
    for (size_t run = 1; run < count; run *= 2) {
        for (size_t start = 0; start < count; start += 2 * run) {
            size_t middle = start + run < count ? start + run : count;
            size_t end = start + 2 * run < count ? start + 2 * run : count;
            size_t left = start, right = middle;
            for (size_t at = start; at < end; at++) {
                bool take_right = left == middle || (right < end && is_above(by, &from[left], &from[right]));
                to[at] = take_right ? from[right++] : from[left++];
            }
        }
        entry *swapped = from;
        from = to;
        to = swapped;
    }
    return from;
}

static uint32_t *sorted(const bkm_plan *plan, id_text text, size_t count)
{
    const order by = {plan, text};
    uint32_t *result = malloc((count + 1) * sizeof *result);
    entry *entries = malloc(2 * (count + 1) * sizeof *entries);
    if (!result || !entries) {
        free(result);
        free(entries);
        return NULL;
    }
    size_t filled = 0;
    for (uint32_t i = 0; i < plan->records->count; i++) {
        uint8_t space[BKM_ID_SIZE];
        if (!bkm_plan_writes_chain(plan, i))
            continue;
        const bkm_span parts[] = {text(&plan->chain_input, &plan->chains, i, space), separator, plan->records->id[i]};
        entries[filled++] = (entry){rank(parts), i};
    }
    const entry *in_order = sort(&by, entries, entries + count, count);
    for (size_t i = 0; i < count; i++)
        result[i] = in_order[i].record;
    free(entries);
    return result;
}

/* ---- keys to delete ---- */

/* Record id in an index key: the part after the last "::". Size 0 if there is none. */
static bkm_span record_of(bkm_span key)
{
    for (uint32_t at = key.size; at >= 2; at--)
        if (key.data[at - 1] == ':' && key.data[at - 2] == ':')
            return (bkm_span){key.data + at, key.size - at};
    return (bkm_span){NULL, 0};
}

static bool add_gone(bkm_index_keys *keys, bkm_span key)
{
    if (!bkm_array_room(&keys->gone, &keys->gone_capacity, keys->gone_count + 1, sizeof *keys->gone, 64))
        return false;
    keys->gone[keys->gone_count++] = key;
    return true;
}

static bool find_gone(bkm_index_keys *keys, bkm_bolt *source, const bkm_span_table *records)
{
    static const bkm_span index_name = BKM_NAME_SPAN(BUCKET_INDEX);
    bkm_bucket root = bkm_root_bucket(source), bucket;
    bkm_cursor cursor;
    bool found;
    if (!bkm_bucket_descend(source, &root, &index_name, 1, &bucket, &found))
        return false;
    if (!found)
        return true;
    if (!bkm_cursor_first(&cursor, source, &bucket, NULL))
        return false;
    while (!bkm_cursor_end(&cursor)) {
        bkm_item item = bkm_cursor_item(&cursor);
        int32_t record = item.bucket ? BKM_NO_INDEX : bkm_span_table_find(records, record_of(item.key));
        if (record >= 0 && bkm_plan_dropped(keys->plan, (size_t)record) && !add_gone(keys, item.key))
            return false;
        if (!bkm_cursor_next(&cursor))
            return false;
    }
    return true;
}

/* Upper bound of the size of keys to put. */
static size_t key_limit(const bkm_plan *plan)
{
    size_t limit = 0;
    for (size_t i = 0; i < plan->records->count; i++) {
        size_t text = plan->diff_id[i].size > BKM_ID_SIZE ? plan->diff_id[i].size : BKM_ID_SIZE;
        if (bkm_plan_writes_chain(plan, i) && text + plan->records->id[i].size > limit)
            limit = text + plan->records->id[i].size;
    }
    return blob_chain_prefix.size + limit + separator.size;
}

bool bkm_index_keys_make(bkm_index_keys *keys, const bkm_plan *plan, bkm_bolt *source)
{
    *keys = (bkm_index_keys){.plan = plan, .count = plan->counts.chains};
    source->rule = BKM_OK;
    keys->by_blob_chain = sorted(plan, bkm_blob_chain_id, keys->count);
    keys->by_chain = sorted(plan, bkm_chain_id, keys->count);
    keys->next_key = malloc(key_limit(plan));
    keys->last_key = malloc(key_limit(plan));
    bool ok = keys->by_blob_chain && keys->by_chain && keys->next_key && keys->last_key;
    if (ok && plan->counts.kept < plan->counts.records) {
        bkm_span_table records;
        ok = bkm_span_table_make(&records, plan->records->id, plan->records->count) &&
             find_gone(keys, source, &records);
        bkm_span_table_free(&records);
    }
    if (!ok)
        bkm_index_keys_free(keys);
    return ok;
}

void bkm_index_keys_free(bkm_index_keys *keys)
{
    free(keys->by_blob_chain);
    free(keys->by_chain);
    free(keys->gone);
    free(keys->next_key);
    free(keys->last_key);
    *keys = (bkm_index_keys){0};
}

/* ---- the merge ---- */

/* Builds key number `at` of those to put. */
static bkm_span make_key(bkm_index_keys *keys, size_t at)
{
    bool is_blob = at < keys->count;
    uint32_t record = is_blob ? keys->by_blob_chain[at] : keys->by_chain[at - keys->count];
    const bkm_plan *plan = keys->plan;
    uint8_t space[BKM_ID_SIZE];
    const bkm_span parts[] = {
        is_blob ? blob_chain_prefix : chain_prefix,
        is_blob ? bkm_blob_chain_id(&plan->chain_input, &plan->chains, record, space)
                : bkm_chain_id(&plan->chain_input, &plan->chains, record, space),
        separator,
        plan->records->id[record],
    };
    uint8_t *end = keys->next_key;
    for (int i = 0; i < 4; i++) {
        memcpy(end, parts[i].data, parts[i].size);
        end += parts[i].size;
    }
    return (bkm_span){keys->next_key, (uint32_t)(end - keys->next_key)};
}

/* Builds the next key to put. Two records may have the same key if an id contains "::". */
static bool prepare_put(bkm_index_keys *keys)
{
    while (!keys->put.data && keys->put_at < 2 * keys->count) {
        bkm_span key = make_key(keys, keys->put_at);
        if (keys->last_put.data && bkm_span_compare(key, keys->last_put) == 0)
            keys->put_at++;
        else
            keys->put = key;
    }
    return keys->put.data != NULL;
}

bool bkm_index_keys_next(bkm_index_keys *keys, bkm_index_change *change)
{
    bool has_put = prepare_put(keys), has_gone = keys->gone_at < keys->gone_count;
    if (!has_put && !has_gone)
        return false;
    int order = !has_gone ? -1 : !has_put ? 1 : bkm_span_compare(keys->put, keys->gone[keys->gone_at]);
    *change = (bkm_index_change){order <= 0 ? keys->put : keys->gone[keys->gone_at], order <= 0};
    if (order >= 0)
        keys->gone_at++;
    if (order <= 0) {
        uint8_t *place = keys->last_key;
        keys->last_key = keys->next_key;
        keys->next_key = place;
        keys->last_put = keys->put;
        keys->put = (bkm_span){NULL, 0};
        keys->put_at++;
    }
    return true;
}
