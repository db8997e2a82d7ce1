/* Decodes columns of numbers and times as containerd stores them (spec containerd-metadata-db, section 2). */
#ifndef BKM_NUMBERS_H
#define BKM_NUMBERS_H

#include "core/spans.h"

/* Numbers above INT64_MAX become INT64_MAX. A number that can't be decoded is 0, and not `known`. */
void bkm_read_numbers(const bkm_spans *column, bool with_sign, int64_t *values, uint8_t *known);
/* Nanoseconds since 1970, or the nearest number that fits. A time that can't be decoded is 0, and not `known`. */
void bkm_read_times(const bkm_spans *column, int64_t *values, uint8_t *known, uint8_t *broken);
/* Values of a single byte; 0 for anything else, or if it is above `last`. */
void bkm_read_bytes(const bkm_spans *column, uint8_t last, int8_t *values);

/* Keys of the snapshotter's bucket `parents`: ids of parent and child, 0 if a key is broken. */
void bkm_read_links(const bkm_spans *column, int64_t *parents, int64_t *children, uint8_t *broken);

/* Numbers in names of snapshots, `<namespace>/<number>/<key>`: 0 if there is none, INT64_MAX if it is larger. */
void bkm_read_counters(const bkm_spans *column, int64_t *values);

#endif
