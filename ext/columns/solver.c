#include "columns/solver.h"

enum { AHEAD = 16, MOST_DIGITS = 9 };

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} text;

static bool skip(text *t, const char *expected)
{
    size_t size = strlen(expected);
    if ((size_t)(t->end - t->at) < size || memcmp(t->at, expected, size) != 0)
        return false;
    t->at += size;
    return true;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* Characters that mean themselves in a JSON string, and that ids, digests and times are made of. */
static bool is_plain(uint8_t c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':' || c == '+' ||
           c == '.' || c == '-';
}

/* Up to the closing quotation mark, which is passed, too. */
static bool read_plain(text *t, bkm_span *string)
{
    const uint8_t *first = t->at;
    while (t->at < t->end && is_plain(*t->at))
        t->at++;
    *string = (bkm_span){first, (uint32_t)(t->at - first)};
    return skip(t, "\"");
}

/* Digits and other characters, "0" standing for any digit. */
static bool skip_form(text *t, const char *form)
{
    for (; *form; form++, t->at++)
        if (t->at == t->end || (*form == '0' ? !is_digit(*t->at) : *t->at != (uint8_t)*form))
            return false;
    return true;
}

/* As Go writes a time. */
static bool read_time(text *t)
{
    if (!skip_form(t, "0000-00-00T00:00:00"))
        return false;
    if (skip(t, ".")) {
        if (!skip_form(t, "0"))
            return false;
        while (t->at < t->end && is_digit(*t->at))
            t->at++;
    }
    if (skip(t, "Z"))
        return true;
    return (skip(t, "+") || skip(t, "-")) && skip_form(t, "00:00");
}

static bool read_number(text *t)
{
    const uint8_t *first = t->at;
    while (t->at < t->end && is_digit(*t->at))
        t->at++;
    ptrdiff_t digits = t->at - first;
    return digits == 1 || (digits > 1 && digits <= MOST_DIGITS && *first != '0');
}

static bool is_plain_result(bkm_span value, bkm_span id)
{
    text t = {value.data, value.data + value.size};
    bkm_span found;
    return value.data && skip(&t, "{\"CreatedAt\":\"") && read_time(&t) && skip(&t, "\",\"ID\":\"") &&
           read_plain(&t, &found) && skip(&t, "}") && t.at == t.end && found.size == id.size &&
           (id.size == 0 || memcmp(found.data, id.data, id.size) == 0);
}

static bool is_plain_link(bkm_span value)
{
    static const char *const numbers[] = {"\"Input\":", "\"Output\":"};
    static const char *const strings[] = {"\"Digest\":\"", "\"Selector\":\""};
    text t = {value.data, value.data + value.size};
    bkm_span string;
    bool some = false, open = true; /* open: a member may follow */
    if (!value.data || !skip(&t, "{"))
        return false;
    for (int i = 0; i < 2; i++)
        if (open && skip(&t, numbers[i])) {
            if (!read_number(&t))
                return false;
            some = true;
            open = skip(&t, ",");
        }
    for (int i = 0; i < 2; i++)
        if (open && skip(&t, strings[i])) {
            if (!read_plain(&t, &string))
                return false;
            some = true;
            open = skip(&t, ",");
        }
    return open != some && skip(&t, "}") && t.at == t.end;
}

void bkm_plain_results(const bkm_spans *values, const bkm_spans *ids, uint8_t *found)
{
    for (size_t row = 0; row < values->count; row++) {
        bkm_spans_prefetch(values, row + AHEAD);
        bkm_spans_prefetch(ids, row + AHEAD);
        found[row] = is_plain_result(bkm_spans_get(values, row), bkm_spans_get(ids, row));
    }
}

void bkm_plain_links(const bkm_spans *texts, uint8_t *found)
{
    for (size_t row = 0; row < texts->count; row++) {
        bkm_spans_prefetch(texts, row + AHEAD);
        found[row] = is_plain_link(bkm_spans_get(texts, row));
    }
}
