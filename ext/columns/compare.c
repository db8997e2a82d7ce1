#include "columns/compare.h"

enum { AHEAD = 16 };

void bkm_present(const bkm_spans *column, uint8_t *found)
{
    for (size_t row = 0; row < column->count; row++)
        found[row] = bkm_spans_has(column, row);
}

static bool same(bkm_span a, bkm_span b)
{
    return a.data && b.data && a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

void bkm_equal(const bkm_spans *left, const bkm_spans *right, uint8_t *found)
{
    for (size_t row = 0; row < left->count; row++) {
        bkm_spans_prefetch(left, row + AHEAD);
        bkm_spans_prefetch(right, row + AHEAD);
        found[row] = same(bkm_spans_get(left, row), bkm_spans_get(right, row));
    }
}

void bkm_equal_to(const bkm_spans *column, bkm_span value, uint8_t *found)
{
    for (size_t row = 0; row < column->count; row++) {
        bkm_spans_prefetch(column, row + AHEAD);
        found[row] = same(bkm_spans_get(column, row), value);
    }
}

void bkm_starting_with(const bkm_spans *column, bkm_span prefix, uint8_t *found)
{
    for (size_t row = 0; row < column->count; row++) {
        bkm_spans_prefetch(column, row + AHEAD);
        bkm_span entry = bkm_spans_get(column, row);
        found[row] = entry.data && entry.size >= prefix.size &&
                     (prefix.size == 0 || memcmp(entry.data, prefix.data, prefix.size) == 0);
    }
}

bool bkm_split_last(const bkm_spans *column, bkm_span separator, bkm_spans *before, bkm_spans *after)
{
    if (!bkm_spans_fill(before, column->count, column->base) || !bkm_spans_fill(after, column->count, column->base))
        return false;
    for (size_t row = 0; row < column->count; row++) {
        bkm_spans_prefetch(column, row + AHEAD);
        bkm_span entry = bkm_spans_get(column, row);
        for (uint32_t end = entry.size; entry.data && end >= separator.size; end--) {
            if (memcmp(entry.data + end - separator.size, separator.data, separator.size) != 0)
                continue;
            if (!bkm_spans_set(before, row, (bkm_span){entry.data, end - separator.size}) ||
                !bkm_spans_set(after, row, (bkm_span){entry.data + end, entry.size - end}))
                return false;
            break;
        }
    }
    return true;
}

bool bkm_take(const bkm_spans *column, const int32_t *rows, size_t count, bkm_spans *taken)
{
    if (!bkm_spans_fill(taken, count, column->base))
        return false;
    for (size_t i = 0; i < count; i++)
        if (rows[i] >= 0 && !bkm_spans_set(taken, i, bkm_spans_get(column, (size_t)rows[i])))
            return false;
    return true;
}
