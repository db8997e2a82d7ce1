/* Reads a file's records ("_main", with the key "k") and the entries below its rows; prints what is wrong with it.
 * Compiled with few BKM_MAX_ROWS. */
#include <stdio.h>
#include <stdlib.h>

#include "bolt/rows.h"
#include "columns/cells.h"

static void read_records(bkm_bolt *bolt, const bkm_bucket *bucket)
{
    static bkm_cells cells = {.key_count = 1, .keys = {{BKM_NAME_SPAN("k"), BKM_CELL_ANY, true}}};
    bkm_cells_begin(&cells);
    if (!bkm_cells_read(&cells, bolt, bucket))
        puts(bkm_rule_text(bolt->rule));
    bkm_cells_free(&cells);
}

static void read_entries(bkm_bolt *bolt, const bkm_bucket *bucket)
{
    bkm_entries entries;
    if (bkm_entries_below(&entries, bolt, bucket, NULL, 0, (bkm_span){NULL, 0}))
        bkm_entries_free(&entries);
    else
        puts(bkm_rule_text(bolt->rule));
    if (bkm_entries_in(&entries, bolt, bucket))
        bkm_entries_free(&entries);
    else
        puts(bkm_rule_text(bolt->rule));
}

int main(int count, char **arguments)
{
    static uint8_t data[1 << 20];
    static const bkm_span name = BKM_NAME_SPAN("_main");
    FILE *file = fopen(arguments[count - 1], "rb");
    if (!file)
        return 1;
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);

    bkm_bolt bolt;
    bkm_bucket root, bucket;
    bool found;
    if (!bkm_bolt_open(&bolt, data, size))
        return 1;
    root = bkm_root_bucket(&bolt);
    if (!bkm_bucket_descend(&bolt, &root, &name, 1, &bucket, &found) || !found)
        return 1;
    read_records(&bolt, &bucket);
    read_entries(&bolt, &bucket);
    bkm_bolt_close(&bolt);
    return 0;
}
