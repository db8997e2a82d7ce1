/* Writes the puts of a record whose parent has an id of as many bytes as the argument says, of which none is
 * there: it has to be refused before it is read. Prints the key that is refused. */
#include <stdio.h>
#include <stdlib.h>

#include "plan/edits.h"

int main(int count, char **arguments)
{
    uint8_t flags = BKM_PUT_PARENT | BKM_PUT_COMMITTED, state = BKM_CHAIN_EMPTY;
    int32_t snapshot = BKM_NO_INDEX;
    bkm_span id = {(const uint8_t *)"id", 2}, equal_mutable = {(const uint8_t *)"em", 2};
    bkm_span parent = {(const uint8_t *)"parent", count > 1 ? (uint32_t)strtoul(arguments[1], NULL, 10) : 6};
    bkm_records records = {.count = 1, .id = &id, .equal_mutable = &equal_mutable};
    int64_t blob_size = 0;
    bkm_plan plan = {.records = &records, .flags = &flags, .snapshot = &snapshot, .parent = &parent};
    bkm_operations out = {0};
    plan.blob_size = &blob_size;
    plan.chains.state = &state;
    bkm_write_puts(&out, &plan, 0);
    printf("%d %.*s\n", out.failed, (int)out.too_long.size, (const char *)out.too_long.data);
    free(out.data);
    return 0;
}
