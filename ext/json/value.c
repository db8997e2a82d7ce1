#include "json/value.h"

/* Strings are mostly ids and digests: plain bytes are processed in steps of this size. */
enum { STEP = 16 };

/* Whether all bytes of a step stand for themselves in JSON, both when reading and when writing. */
static bool is_plain_step(const uint8_t *at)
{
    typedef uint8_t bytes __attribute__((vector_size(STEP)));
    bytes step;
    uint64_t halves[2];

    memcpy(&step, at, sizeof step);
    step = (bytes)(step - 0x20 > 0x5E) | (bytes)(step == '"') | (bytes)(step == '\\') | (bytes)(step == '<') |
           (bytes)(step == '>') | (bytes)(step == '&');
    memcpy(halves, &step, sizeof halves);
    return (halves[0] | halves[1]) == 0;
}

/* The rest of the value being read. */
typedef struct {
    const uint8_t *at, *end;
} input;

static bool take(input *in, const char *text, size_t size)
{
    if ((size_t)(in->end - in->at) < size || memcmp(in->at, text, size) != 0)
        return false;
    in->at += size;
    return true;
}
#define TAKE(in, text) take(in, text, sizeof text - 1)

static bool is_hex(uint8_t byte)
{
    return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
}

static bool take_escape(input *in)
{
    if (in->end - in->at < 2)
        return false;
    uint8_t kind = in->at[1];
    in->at += 2;
    if (kind != 'u')
        return kind != 0 && strchr("\"\\/bfnrt", kind) != NULL;
    if (in->end - in->at < 4 || !is_hex(in->at[0]) || !is_hex(in->at[1]) || !is_hex(in->at[2]) || !is_hex(in->at[3]))
        return false;
    in->at += 4;
    return true;
}

/* A quoted string. `plain`: its bytes are its text, with nothing to unescape or replace. */
static bool take_string(input *in, bkm_span *text, bool *plain)
{
    if (!TAKE(in, "\""))
        return false;
    const uint8_t *start = in->at;
    const uint8_t *step = start; /* where the next step may be tried */
    *plain = true;
    while (in->at < in->end && *in->at != '"') {
        if (in->at >= step && in->end - in->at >= STEP) {
            step = in->at + STEP;
            if (is_plain_step(in->at)) {
                in->at = step;
                continue;
            }
        }
        if (*in->at < 0x20)
            return false;
        if (*in->at == '\\') {
            *plain = false;
            if (!take_escape(in))
                return false;
            continue;
        }
        /* Beyond ASCII there may be invalid UTF-8 to replace. */
        *plain &= *in->at < 0x7F;
        in->at++;
    }
    *text = (bkm_span){start, (uint32_t)(in->at - start)};
    return TAKE(in, "\"");
}

static bool take_integer(input *in)
{
    (void)TAKE(in, "-");
    const uint8_t *start = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9')
        in->at++;
    return in->at > start && (*start != '0' || in->at == start + 1);
}

static bool take_mapping(input *in, bkm_json_value *value)
{
    bool plain_blob, plain_diff;
    return TAKE(in, "{\"Blobsum\":") && take_string(in, &value->text, &plain_blob) && TAKE(in, ",\"DiffID\":") &&
           take_string(in, &value->diff_id, &plain_diff) && TAKE(in, "}") && plain_blob && plain_diff;
}

static bool take_value(input *in, bkm_json_value *value)
{
    bool plain;
    if (in->at == in->end)
        return false;
    switch (*in->at) {
    case '"':
        if (!take_string(in, &value->text, &plain))
            return false;
        value->kind = plain ? BKM_JSON_STRING : BKM_JSON_ESCAPED;
        return true;
    case '{':
        value->kind = BKM_JSON_MAPPING;
        return take_mapping(in, value);
    case 't':
        return TAKE(in, "true");
    case 'f':
        return TAKE(in, "false");
    case 'n':
        return TAKE(in, "null");
    default:
        return take_integer(in);
    }
}

bkm_json_value bkm_json_read(bkm_span stored)
{
    input in = {stored.data, stored.data + stored.size};
    bkm_json_value value = {.kind = BKM_JSON_OTHER};

    bool known = TAKE(&in, "{\"value\":") && take_value(&in, &value);
    if (known && TAKE(&in, ",\"index\":"))
        known = take_string(&in, &value.index, &value.plain_index);
    known = known && TAKE(&in, "}") && in.at == in.end;
    return known ? value : (bkm_json_value){.kind = BKM_JSON_ODD};
}

size_t bkm_utf8_character(const uint8_t *at, size_t size)
{
    uint8_t first = at[0];
    if (first < 0x80)
        return 1;
    size_t length = first < 0xC2 ? 0 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : first < 0xF5 ? 4 : 0;
    if (length == 0 || length > size)
        return 0;
    /* The range of the second byte excludes overlong forms, surrogates and code points above U+10FFFF. */
    uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    if (at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    return length;
}

bool bkm_utf8_valid(bkm_span text)
{
    for (uint32_t i = 0; i < text.size;) {
        if (text.data[i] < 0x80) {
            i++;
            continue;
        }
        size_t length = bkm_utf8_character(text.data + i, text.size - i);
        if (length == 0)
            return false;
        i += (uint32_t)length;
    }
    return true;
}

static uint8_t *write_text(uint8_t *out, const char *text)
{
    size_t size = strlen(text);
    memcpy(out, text, size);
    return out + size;
}

static uint8_t *write_control(uint8_t *out, uint8_t byte)
{
    switch (byte) {
    case '\b':
        return write_text(out, "\\b");
    case '\f':
        return write_text(out, "\\f");
    case '\n':
        return write_text(out, "\\n");
    case '\r':
        return write_text(out, "\\r");
    case '\t':
        return write_text(out, "\\t");
    }
    out = write_text(out, "\\u00");
    *out++ = (uint8_t)"0123456789abcdef"[byte >> 4];
    *out++ = (uint8_t)"0123456789abcdef"[byte & 15];
    return out;
}

static uint8_t *write_beyond_ascii(uint8_t *out, const uint8_t *at, size_t length)
{
    if (length == 0)
        return write_text(out, "\\ufffd");
    if (length == 3 && memcmp(at, "\u2028", 3) == 0)
        return write_text(out, "\\u2028");
    if (length == 3 && memcmp(at, "\u2029", 3) == 0)
        return write_text(out, "\\u2029");
    memcpy(out, at, length);
    return out + length;
}

uint8_t *bkm_json_write_string(uint8_t *out, bkm_span text)
{
    *out++ = '"';
    const uint8_t *at = text.size ? text.data : out, *end = at + text.size;
    const uint8_t *step = at; /* where the next step may be tried */
    while (at < end) {
        uint8_t byte = *at;
        if (at >= step && end - at >= STEP) {
            step = at + STEP;
            if (is_plain_step(at)) {
                memcpy(out, at, STEP);
                out += STEP, at = step;
                continue;
            }
        }
        if (byte >= 0x80) {
            size_t length = bkm_utf8_character(at, (size_t)(end - at));
            out = write_beyond_ascii(out, at, length);
            at += length ? length : 1;
            continue;
        }
        if (byte == '"' || byte == '\\') {
            *out++ = '\\';
            *out++ = byte;
        } else if (byte < 0x20) {
            out = write_control(out, byte);
        } else if (byte == '<' || byte == '>' || byte == '&') {
            out = write_text(out, byte == '<' ? "\\u003c" : byte == '>' ? "\\u003e" : "\\u0026");
        } else {
            *out++ = byte;
        }
        at++;
    }
    *out++ = '"';
    return out;
}
