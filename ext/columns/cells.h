/* The records of a v2 store: one walk checks all their values, and keeps them by key. */
#ifndef BKM_CELLS_H
#define BKM_CELLS_H

#include "bolt/reader.h"
#include "core/span_table.h"
#include "core/spans.h"

/* What a value is decoded into. */
typedef enum {
    BKM_CELL_TEXT,
    BKM_CELL_INTEGER,
    BKM_CELL_FLAG,
    BKM_CELL_TEXTS,
    BKM_CELL_ANY,
    BKM_CELL_FORMS
} bkm_cell_form;

typedef struct {
    bkm_span name;
    bkm_cell_form form;
    bool kept; /* as a column */
} bkm_cell_key;

enum { BKM_MAX_CELL_KEYS = 100 };

/* A value that the caller must check: its key is unknown, it is a bucket, or it is not written exactly as
 * BuildKit writes values of its form. */
typedef struct {
    uint32_t row;
    bkm_span key;
    bkm_span value; /* absent: a bucket */
} bkm_odd_cell;

/* The value of a row has an index, and its entry in `_index` would have this hash. */
typedef struct {
    uint64_t hash;
    uint32_t row;
} bkm_wanted_entry;

typedef struct {
    bkm_span_table hash;      /* used only for its secret */
    bool unchecked;           /* values are kept, not checked: an earlier walk has done that */
    size_t key_count;
    bkm_cell_key keys[BKM_MAX_CELL_KEYS];
    uint8_t slots[1024];      /* key number + 1, by a hash of the key's name */

    bkm_spans ids;
    uint32_t *first;          /* [rows + 1]: index of the first kept value of each row */
    size_t first_capacity;
    uint8_t *kinds;           /* of each kept value: key number, and whether it is of the key's form */
    size_t kinds_capacity;
    bkm_spans values;         /* decoded strings; numbers in their place; lists and others as they are stored */
    bkm_spans plain;          /* keys of `_main` that are not buckets */
    bkm_odd_cell *odd;
    size_t odd_count, odd_capacity;
    bkm_wanted_entry *wanted;
    size_t wanted_count, wanted_capacity;
    uint8_t *scratch;         /* for building an index key */
    size_t scratch_capacity;
} bkm_cells;

/* `keys` must be set before; bkm_cells_begin initialises the rest. */
void bkm_cells_begin(bkm_cells *cells);
/* Reads the bucket `_main`, NULL if it does not exist. False with bolt->rule set on failure. */
bool bkm_cells_read(bkm_cells *cells, bkm_bolt *bolt, const bkm_bucket *main_bucket);
void bkm_cells_free(bkm_cells *cells);

/* Adds the index that an odd value of the row has. False when out of memory. */
bool bkm_cells_want(bkm_cells *cells, uint32_t row, bkm_span index);

/* Compares the entries with the wanted ones. `missing` has room for a row per wanted entry; the first
 * `*missing_count` are set to the rows whose entry is missing. `stray[i]` = 1 for entries that no value wants.
 * False when out of memory or there are too many entries. */
bool bkm_cells_compare(const bkm_cells *cells, const bkm_spans *entries, uint32_t *missing, size_t *missing_count,
                       uint8_t *stray);

/* Gives back the memory of the values of keys for which `dropped` is set, by number. There are none then. */
void bkm_cells_drop(bkm_cells *cells, const bool *dropped);

/* Decoded strings of a key of that form, or values of BKM_CELL_ANY as they are stored; the column must be empty.
 * False when out of memory. */
bool bkm_cells_spans(const bkm_cells *cells, uint8_t key, bkm_spans *column);
/* Of a key whose form is a number or a flag. Missing ones are 0 and not known; flags are 0 or 1. */
void bkm_cells_numbers(const bkm_cells *cells, uint8_t key, int64_t *values, uint8_t *known);
/* Sets found[row] to 1 for rows with a value of the key, of its form or not. */
void bkm_cells_has(const bkm_cells *cells, uint8_t key, uint8_t *found);
/* The strings of lists, and the row of each string (malloc'ed). */
bool bkm_cells_lists(const bkm_cells *cells, uint8_t key, int32_t **rows, bkm_spans *strings);

#endif
