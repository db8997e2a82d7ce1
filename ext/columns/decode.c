#include "columns/decode.h"

/* ---- strings ---- */

static unsigned hex_digit(uint8_t byte)
{
    return byte <= '9' ? byte - '0' : (byte | 0x20) - 'a' + 10;
}

static uint32_t hex_unit(const uint8_t *at)
{
    return hex_digit(at[0]) << 12 | hex_digit(at[1]) << 8 | hex_digit(at[2]) << 4 | hex_digit(at[3]);
}

static uint8_t *write_character(uint8_t *out, uint32_t code)
{
    if (code < 0x80) {
        *out++ = (uint8_t)code;
    } else if (code < 0x800) {
        *out++ = (uint8_t)(0xC0 | code >> 6);
        *out++ = (uint8_t)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *out++ = (uint8_t)(0xE0 | code >> 12);
        *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3F));
        *out++ = (uint8_t)(0x80 | (code & 0x3F));
    } else {
        *out++ = (uint8_t)(0xF0 | code >> 18);
        *out++ = (uint8_t)(0x80 | (code >> 12 & 0x3F));
        *out++ = (uint8_t)(0x80 | (code >> 6 & 0x3F));
        *out++ = (uint8_t)(0x80 | (code & 0x3F));
    }
    return out;
}

enum { REPLACEMENT = 0xFFFD };

/* Decodes the escape at `*at`. A surrogate pair is one character; a lone surrogate becomes U+FFFD. */
static uint8_t *write_escape(uint8_t *out, const uint8_t **at, const uint8_t *end)
{
    static const char escaped[] = "bfnrt", meant[] = "\b\f\n\r\t";
    uint8_t kind = (*at)[1];
    if (kind != 'u') {
        const char *found = strchr(escaped, kind);
        *out++ = found ? (uint8_t)meant[found - escaped] : kind;
        *at += 2;
        return out;
    }
    uint32_t unit = hex_unit(*at + 2);
    *at += 6;
    if (unit < 0xD800 || unit >= 0xE000)
        return write_character(out, unit);
    if (unit < 0xDC00 && end - *at >= 6 && (*at)[0] == '\\' && (*at)[1] == 'u') {
        uint32_t low = hex_unit(*at + 2);
        if (low >= 0xDC00 && low < 0xE000) {
            *at += 6;
            return write_character(out, 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00));
        }
    }
    return write_character(out, REPLACEMENT);
}

size_t bkm_unescape(uint8_t *out, bkm_span string)
{
    const uint8_t *start = out, *at = string.data, *end = at + string.size;
    while (at < end) {
        if (*at == '\\') {
            out = write_escape(out, &at, end);
            continue;
        }
        size_t length = bkm_utf8_character(at, (size_t)(end - at));
        if (length == 0) {
            out = write_character(out, REPLACEMENT);
            at++;
            continue;
        }
        memcpy(out, at, length);
        out += length;
        at += length;
    }
    return (size_t)(out - start);
}

/* ---- integers ---- */

bool bkm_decode_integer(bkm_span raw, int64_t *number)
{
    bool negative = raw.size && raw.data[0] == '-';
    uint64_t limit = negative ? (uint64_t)INT64_MAX + 1 : INT64_MAX, value = 0;
    for (uint32_t i = negative; i < raw.size && raw.data[i] >= '0' && raw.data[i] <= '9'; i++) {
        uint64_t digit = raw.data[i] - '0';
        if (value > (limit - digit) / 10)
            return false;
        value = value * 10 + digit;
    }
    *number = (int64_t)(negative ? 0 - value : value);
    return true;
}

/* ---- lists ---- */

bool bkm_list_open(bkm_list *list, bkm_span stored)
{
    static const bkm_span opening = BKM_NAME_SPAN("{\"value\":[");
    if (stored.size < opening.size || memcmp(stored.data, opening.data, opening.size) != 0)
        return false;
    *list = (bkm_list){.at = stored.data + opening.size, .end = stored.data + stored.size};
    return true;
}

static bool is_hex(uint8_t byte)
{
    return (byte >= '0' && byte <= '9') || ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'f');
}

/* After the backslash. */
static bool skip_escape(bkm_list *list)
{
    if (list->at == list->end)
        return false;
    uint8_t kind = *list->at++;
    if (kind != 'u')
        return kind != 0 && strchr("\"\\/bfnrt", kind) != NULL;
    for (int i = 0; i < 4; i++)
        if (list->at == list->end || !is_hex(*list->at++))
            return false;
    return true;
}

bool bkm_list_next(bkm_list *list)
{
    const uint8_t *before = list->at;
    if (list->at < list->end && *list->at == ',' && list->string.data)
        list->at++;
    else if (list->string.data || (list->at < list->end && *list->at == ']'))
        return false;
    if (list->at == list->end || *list->at != '"') {
        list->at = before;
        return false;
    }
    const uint8_t *start = ++list->at;
    list->plain = true;
    while (list->at < list->end && *list->at != '"') {
        uint8_t byte = *list->at++;
        if (byte == '\\' || byte >= 0x7F)
            list->plain = false;
        if (byte < 0x20 || (byte == '\\' && !skip_escape(list))) {
            list->at = before;
            return false;
        }
    }
    if (list->at == list->end) {
        list->at = before;
        return false;
    }
    list->string = (bkm_span){start, (uint32_t)(list->at++ - start)};
    return true;
}

bool bkm_list_ended(const bkm_list *list)
{
    return list->end - list->at == 2 && list->at[0] == ']' && list->at[1] == '}';
}
