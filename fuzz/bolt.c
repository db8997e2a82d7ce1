/* Reader, check, scan, rewrite, builder, compare and salvage. The input is a bbolt file; what follows its pages
 * in use, which mean nothing to a reader, is a stream of edits. */
#include "bolt/compare.h"
#include "bolt/salvage.h"
#include "bolt/scan.h"
#include "common.h"

#define NAME(text) {(const uint8_t *)(text), sizeof(text) - 1}

static bool count_finding(void *context, bkm_part part, uint64_t page, const char *text)
{
    BKM_DEMAND(text[0]);
    (void)part;
    (void)page;
    ++*(size_t *)context;
    return true;
}

/* Every key that a walk comes by is found by looking it up. `walked` counts the bytes, which can't be more
 * than the file has: nothing is followed twice. */
static bool walk(bkm_bolt *bolt, const bkm_bucket *bucket, uint8_t *visited, int nesting, uint64_t *walked)
{
    bkm_cursor cursor;
    if (nesting > BKM_MAX_NESTING)
        return false;
    if (!bkm_cursor_first(&cursor, bolt, bucket, visited)) {
        bkm_fuzz_demand_error(bolt);
        return false;
    }
    while (!bkm_cursor_end(&cursor)) {
        bkm_item item = bkm_cursor_item(&cursor), same;
        bool found;
        *walked += (uint64_t)item.key.size + item.value.size;
        BKM_DEMAND(item.key.data >= bolt->data && item.key.size > 0);
        BKM_DEMAND(item.value.data + item.value.size <= bolt->data + bolt->size);
        if (bkm_bucket_find(bolt, bucket, item.key, &same, &found))
            BKM_DEMAND(found && same.key.data == item.key.data && same.value.data == item.value.data);
        if (item.bucket) {
            bkm_bucket inner;
            if (!bkm_bucket_decode(bolt, item.value, bkm_cursor_page(&cursor), &inner) ||
                !walk(bolt, &inner, visited, nesting + 1, walked))
                return false;
        }
        if (!bkm_cursor_next(&cursor)) {
            bkm_fuzz_demand_error(bolt);
            return false;
        }
    }
    return true;
}

static void scan(bkm_bolt *bolt)
{
    static const bkm_span steps[] = {NAME("labels"), NAME("containerd.io/gc.root")}, name = NAME("name");
    const bkm_path paths[] = {{&name, 1}, {steps, 2}};
    bkm_bucket root = bkm_root_bucket(bolt);
    bkm_table table;
    if (!bkm_scan(bolt, &root, paths, 2, &table)) {
        bkm_fuzz_demand_error(bolt);
        return;
    }
    for (size_t column = 0; column < table.column_count; column++) {
        uint64_t bytes = 0;
        for (size_t row = 0; row < table.rows; row++)
            bytes += table.columns[column][row].size;
        BKM_DEMAND(bytes <= bolt->size);
    }
    bkm_table_free(&table);
}

/* What edits were made is what a comparison with them finds, and without them it is seen whether any changed
 * something. The image has no sequence of the root bucket. */
static void compare(bkm_bolt *bolt, const bkm_image *image, bkm_span edits, uint64_t changes)
{
    bkm_bolt made;
    BKM_DEMAND(bkm_bolt_open(&made, image->data, image->size));
    if (bkm_root_bucket(bolt).sequence == 0) {
        BKM_DEMAND(bkm_compare(bolt, &made, edits) == BKM_SAME);
        if (changes == 0)
            BKM_DEMAND(bkm_compare(bolt, &made, (bkm_span){0}) == BKM_SAME);
    }
    bkm_bolt_close(&made);
}

static void rewrite(bkm_bolt *bolt, bool walkable)
{
    uint64_t end = bolt->high_water * bolt->page_size;
    bkm_edits nothing = bkm_fuzz_one_chunk(NULL, 0);
    bkm_edits edits = bkm_fuzz_one_chunk(bolt->data + end, bolt->size - end);
    bkm_image image;
    bkm_rewrite_result result;
    bkm_build_status built;

    bool copied = bkm_fuzz_rewrite(bolt, &nothing, &image, &result, &built);
    BKM_DEMAND(copied == walkable);
    BKM_DEMAND(!copied || result.changes == 0);
    /* Page sizes and fill are the same, so a copy is of about the size of what is in use. */
    BKM_DEMAND(image.size <= 8 * end + (2u << 20));
    free(image.data);

    bkm_span stream = {edits.data, (uint32_t)edits.size};
    if (bkm_fuzz_rewrite(bolt, &edits, &image, &result, &built))
        compare(bolt, &image, stream, result.changes);
    else
        BKM_DEMAND(result.status != BKM_REWRITE_BUILD || built == BKM_BUILD_KEY_ORDER ||
                   built == BKM_BUILD_KEY_SIZE || built == BKM_BUILD_NESTING);
    free(image.data);
}

static bool count_loss(void *context, const bkm_loss *loss)
{
    BKM_DEMAND(loss->rule > BKM_NO_MEMORY && bkm_rule_text(loss->rule)[0]);
    BKM_DEMAND(loss->depth <= BKM_MAX_NESTING + 1);
    for (size_t i = 0; i < loss->depth; i++)
        BKM_DEMAND(loss->path[i].data && loss->path[i].size);
    BKM_DEMAND(!loss->from.data || !loss->to.data || bkm_span_compare(loss->from, loss->to) < 0);
    ++*(uint64_t *)context;
    return true;
}

/* What is left of any file is a sound one of about its size; of a walkable file all is left. */
static void salvage(const uint8_t *file, size_t size, bool walkable)
{
    bkm_damaged damaged;
    if (!bkm_damaged_open(&damaged, file, size, NULL, 0)) {
        BKM_DEMAND(!walkable);
        bkm_fuzz_demand_error(&damaged.bolt);
    } else {
        bkm_image image;
        bkm_kept kept;
        uint64_t losses = 0;
        bkm_builder *builder = bkm_fuzz_builder(damaged.bolt.page_size, &image);
        BKM_DEMAND(bkm_salvage(&damaged, builder, count_loss, &losses, &kept));
        bkm_fuzz_finish(builder, damaged.bolt.page_size, &image);
        BKM_DEMAND(image.size <= 8 * size + (2u << 20) + 8 * (uint64_t)damaged.bolt.page_size);
        free(image.data);
    }
    bkm_bolt_close(&damaged.bolt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *file = bkm_fuzz_copy(data, size);
    bkm_bolt bolt;
    bool walkable = false;
    if (!bkm_bolt_open(&bolt, file, size)) {
        bkm_fuzz_demand_error(&bolt);
    } else {
        size_t findings = 0;
        bkm_counts counts;
        uint64_t walked = 0;
        bkm_bucket root = bkm_root_bucket(&bolt);
        uint8_t *visited = bkm_bolt_bitmap(&bolt);
        BKM_DEMAND(visited && bkm_check(&bolt, count_finding, &findings, &counts));
        walkable = walk(&bolt, &root, visited, 0, &walked);
        free(visited);
        BKM_DEMAND(walked <= 2 * (uint64_t)size); /* what is in an inline bucket is a value, too */
        BKM_DEMAND(walkable || findings > 0);
        scan(&bolt);
        rewrite(&bolt, walkable);
    }
    bkm_bolt_close(&bolt);
    salvage(file, size, walkable);
    free(file);
    return 0;
}
