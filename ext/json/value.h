/* Stored metadata values: recognises values that are certainly well-formed, and leaves all others to
 * Python. Also writes strings as Go does (spec buildkit-metadata, section 3). */
#ifndef BKM_JSON_VALUE_H
#define BKM_JSON_VALUE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/span.h"

typedef enum {
    BKM_JSON_ODD,     /* not recognised: may or may not be decodable */
    BKM_JSON_OTHER,   /* decodable, but neither a string nor a blob mapping */
    BKM_JSON_STRING,  /* `text` is the string */
    BKM_JSON_ESCAPED, /* a string that must be unescaped or repaired */
    BKM_JSON_MAPPING, /* `text` is the Blobsum and `diff_id` the DiffID */
} bkm_json_kind;

typedef struct {
    bkm_json_kind kind;
    bkm_span text, diff_id; /* point into the stored value; never NULL for kinds that have them */
    bkm_span index;         /* absent if there is none */
    bool plain_index;       /* its bytes are its text */
} bkm_json_value;

/* Recognises {"value":<v>} and {"value":<v>,"index":"<i>"} without spaces, where <v> is a string, an integer,
 * a constant, or a blob mapping as BuildKit writes it. */
bkm_json_value bkm_json_read(bkm_span stored);

/* Length of the UTF-8 character at `at`, 0 if it is invalid; `size` > 0 bytes are available. */
size_t bkm_utf8_character(const uint8_t *at, size_t size);
bool bkm_utf8_valid(bkm_span text);

/* Maximum size of a string of `size` bytes when written. */
static inline size_t bkm_json_string_limit(size_t size)
{
    return 6 * size + 2;
}

/* Writes the string with quotes. Returns its end. */
uint8_t *bkm_json_write_string(uint8_t *out, bkm_span text);

#endif
