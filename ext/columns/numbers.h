/* Columns of numbers and times as containerd stores them (spec containerd-metadata-db, section 2). */
#ifndef BKM_NUMBERS_H
#define BKM_NUMBERS_H

#include "core/spans.h"

/* Numbers; 0 where there is none that decodes, which `known` tells. What is above INT64_MAX is that. */
void bkm_read_numbers(const bkm_spans *column, bool with_sign, int64_t *values, uint8_t *known);
/* Nanoseconds since 1970, or the nearest number that fits; 0 where there is none that decodes. */
void bkm_read_times(const bkm_spans *column, int64_t *values, uint8_t *known, uint8_t *broken);
/* A single byte, 0 where it is none or above `last`. */
void bkm_read_bytes(const bkm_spans *column, uint8_t last, int8_t *values);

/* Keys of the snapshotter's `parents`: ids of parent and child, 0 where it is no such key. */
void bkm_read_links(const bkm_spans *column, int64_t *parents, int64_t *children, uint8_t *broken);

#endif
