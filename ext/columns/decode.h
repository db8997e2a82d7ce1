/* Decodes the raw parts of values written by BuildKit (spec buildkit-metadata, section 3). */
#ifndef BKM_DECODE_H
#define BKM_DECODE_H

#include "core/spans.h"
#include "json/value.h"

/* A value that bkm_json_read has recognised, or a list, from the first byte of its raw part on. */
static inline bkm_span bkm_raw_part(bkm_span stored)
{
    enum { BEFORE = sizeof "{\"value\":" - 1 };
    return stored.size > BEFORE ? (bkm_span){stored.data + BEFORE, stored.size - BEFORE} : (bkm_span){NULL, 0};
}

/* Decodes a string (without its quotes) as Go does. `out` must have room for three times its size. Returns the
 * number of bytes written. The escapes must be valid. */
size_t bkm_unescape(uint8_t *out, bkm_span string);

/* Decodes the integer at the beginning of a raw part. False if it does not fit. */
bool bkm_decode_integer(bkm_span raw, int64_t *number);

/* Iterates over the strings of {"value":["a","b"]}, written without spaces. */
typedef struct {
    const uint8_t *at, *end;
    bkm_span string; /* without quotes */
    bool plain;      /* has no escapes: its bytes are its text */
} bkm_list;

/* Starts reading a list. False if the value is not a list of this form. */
bool bkm_list_open(bkm_list *list, bkm_span stored);
/* Reads the next string. False at the end or at an error; see bkm_list_ended. */
bool bkm_list_next(bkm_list *list);
/* Whether the whole value was read. */
bool bkm_list_ended(const bkm_list *list);

#endif
