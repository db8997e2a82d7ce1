/* Raw parts of values that BuildKit has written (spec buildkit-metadata, section 3), decoded. */
#ifndef BKM_DECODE_H
#define BKM_DECODE_H

#include "core/spans.h"
#include "json/value.h"

/* The raw part of a value that bkm_json_read has recognised, or of a list; from its first byte on. */
static inline bkm_span bkm_raw_part(bkm_span stored)
{
    enum { BEFORE = sizeof "{\"value\":" - 1 };
    return stored.size > BEFORE ? (bkm_span){stored.data + BEFORE, stored.size - BEFORE} : (bkm_span){NULL, 0};
}

/* The text of a string without its quotes, as Go decodes it: `out` has room for three times its bytes.
 * Returns how many were written. The escapes must be valid. */
size_t bkm_unescape(uint8_t *out, bkm_span string);

/* An integer at the beginning of a raw part; false if it does not fit. */
bool bkm_decode_integer(bkm_span raw, int64_t *number);

/* What comes next in {"value":["a","b"]} without spaces. */
typedef struct {
    const uint8_t *at, *end;
    bkm_span string; /* without quotes */
    bool plain;      /* its bytes are its text */
} bkm_list;

/* Begins to read a list; false if it is none in this form. */
bool bkm_list_open(bkm_list *list, bkm_span stored);
/* The next string. False at the end, or where it is not in this form: bkm_list_ended tells. */
bool bkm_list_next(bkm_list *list);
/* Whether all of the value was read. */
bool bkm_list_ended(const bkm_list *list);

#endif
