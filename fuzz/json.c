/* Record values: what the recogniser takes is JSON by an independent judge, and what is written is taken. */
#include "common.h"
#include "json/value.h"

/* ---- the judge: RFC 8259, without regard to text encoding ---- */

typedef struct {
    const uint8_t *at, *end;
} text;

static bool value(text *in, int depth);

static bool next_is(text *in, uint8_t byte)
{
    bool same = in->at < in->end && *in->at == byte;
    in->at += same;
    return same;
}

static void space(text *in)
{
    while (in->at < in->end && strchr(" \t\r\n", *in->at) && *in->at)
        in->at++;
}

static bool string(text *in)
{
    if (!next_is(in, '"'))
        return false;
    while (in->at < in->end && *in->at != '"') {
        if (*in->at < 0x20)
            return false;
        if (*in->at++ != '\\')
            continue;
        if (in->at == in->end || !*in->at || !strchr("\"\\/bfnrtu", *in->at))
            return false;
        if (*in->at++ == 'u')
            for (int i = 0; i < 4; i++, in->at++)
                if (in->at == in->end || !*in->at || !strchr("0123456789abcdefABCDEF", *in->at))
                    return false;
    }
    return next_is(in, '"');
}

static bool digits(text *in)
{
    const uint8_t *start = in->at;
    while (in->at < in->end && *in->at >= '0' && *in->at <= '9')
        in->at++;
    return in->at > start;
}

static bool number(text *in)
{
    next_is(in, '-');
    if (!next_is(in, '0') && !digits(in))
        return false;
    if (next_is(in, '.') && !digits(in))
        return false;
    if (next_is(in, 'e') || next_is(in, 'E')) {
        if (!next_is(in, '-'))
            next_is(in, '+');
        return digits(in);
    }
    return true;
}

static bool literal(text *in, const char *word)
{
    while (*word && next_is(in, (uint8_t)*word))
        word++;
    return !*word;
}

static bool members(text *in, uint8_t closing, int depth)
{
    in->at++;
    space(in);
    if (next_is(in, closing))
        return true;
    do {
        space(in);
        if (closing == '}') {
            if (!string(in))
                return false;
            space(in);
            if (!next_is(in, ':'))
                return false;
        }
        if (!value(in, depth + 1))
            return false;
    } while (next_is(in, ','));
    return next_is(in, closing);
}

static bool value(text *in, int depth)
{
    space(in);
    if (in->at == in->end || depth > 100)
        return false;
    bool ok;
    switch (*in->at) {
    case '{':
        ok = members(in, '}', depth);
        break;
    case '[':
        ok = members(in, ']', depth);
        break;
    case '"':
        ok = string(in);
        break;
    case 't':
        ok = literal(in, "true");
        break;
    case 'f':
        ok = literal(in, "false");
        break;
    case 'n':
        ok = literal(in, "null");
        break;
    default:
        ok = number(in);
    }
    space(in);
    return ok;
}

static bool is_object(const uint8_t *data, size_t size)
{
    text in = {data, data + size};
    return size > 0 && data[0] == '{' && value(&in, 0) && in.at == in.end;
}

/* ---- the demands ---- */

static void demand_plain(bkm_span stored, bkm_span part)
{
    BKM_DEMAND(part.data >= stored.data && part.data + part.size <= stored.data + stored.size);
    for (uint32_t i = 0; i < part.size; i++)
        BKM_DEMAND(part.data[i] >= 0x20 && part.data[i] < 0x7F && part.data[i] != '"' && part.data[i] != '\\');
}

static void read_back(bkm_span original)
{
    static const char start[] = "{\"value\":";
    size_t limit = sizeof start - 1 + bkm_json_string_limit(original.size) + 1;
    uint8_t *stored = malloc(limit);
    BKM_DEMAND(stored);
    memcpy(stored, start, sizeof start - 1);
    uint8_t *end = bkm_json_write_string(stored + sizeof start - 1, original);
    *end++ = '}';
    BKM_DEMAND((size_t)(end - stored) <= limit);
    bkm_span written = {stored, (uint32_t)(end - stored)};
    bkm_json_value found = bkm_json_read(written);
    BKM_DEMAND(is_object(written.data, written.size) && bkm_utf8_valid(written));
    BKM_DEMAND(found.kind == BKM_JSON_STRING || found.kind == BKM_JSON_ESCAPED);
    if (found.kind == BKM_JSON_STRING)
        BKM_DEMAND(bkm_span_compare(found.text, original) == 0);
    free(stored);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 1 << 16)
        return 0;
    uint8_t *copy = bkm_fuzz_copy(data, size);
    bkm_span stored = {copy, (uint32_t)size};
    bkm_json_value found = bkm_json_read(stored);
    if (found.kind != BKM_JSON_ODD)
        BKM_DEMAND(is_object(copy, size));
    if (found.kind == BKM_JSON_STRING || found.kind == BKM_JSON_MAPPING)
        demand_plain(stored, found.text);
    if (found.kind == BKM_JSON_MAPPING)
        demand_plain(stored, found.diff_id);
    read_back(stored);
    free(copy);
    return 0;
}
