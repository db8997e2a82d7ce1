/* Stored metadata values: those that are surely well-formed are recognised, all others are left to somebody
 * else; and strings as Go writes them (spec buildkit-metadata, section 3). */
#ifndef BKM_JSON_VALUE_H
#define BKM_JSON_VALUE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/span.h"

typedef enum {
    BKM_JSON_ODD,     /* not recognised: may be decodable or not */
    BKM_JSON_OTHER,   /* decodable; neither a string nor a blob mapping */
    BKM_JSON_STRING,  /* `text` is the string */
    BKM_JSON_ESCAPED, /* a string whose bytes are not its text */
    BKM_JSON_MAPPING, /* `text` is the Blobsum and `diff_id` the DiffID */
} bkm_json_kind;

typedef struct {
    bkm_json_kind kind;
    bkm_span text, diff_id; /* within the stored value; never NULL for the kinds that have them */
} bkm_json_value;

/* Recognises {"value":<v>} and {"value":<v>,"index":"<i>"} without spaces, where <v> is a string, an integer,
 * a constant, or a blob mapping as BuildKit writes it. */
bkm_json_value bkm_json_read(bkm_span stored);

/* Length of the UTF-8 character that begins at `at`, 0 if it is none; `size` > 0 bytes follow. */
size_t bkm_utf8_character(const uint8_t *at, size_t size);
bool bkm_utf8_valid(bkm_span text);

/* Bytes that a written string of `size` bytes takes at most. */
static inline size_t bkm_json_string_limit(size_t size)
{
    return 6 * size + 2;
}

/* Writes the string with its quotes; returns where it ends. */
uint8_t *bkm_json_write_string(uint8_t *out, bkm_span text);

#endif
