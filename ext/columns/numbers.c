#include "columns/numbers.h"

enum {
    LONGEST_NUMBER = 10,
    STORED_TIME = 15, /* size in version 1; version 2 has one more byte */
    AHEAD = 16,
};
#define YEAR_1 INT64_C(62135596800) /* seconds before 1970 */

/* Size of the number at the beginning of the stored value, 0 if it can't be decoded. */
static uint32_t read_number(bkm_span stored, uint64_t *number)
{
    *number = 0;
    for (uint32_t i = 0; i < stored.size && i < LONGEST_NUMBER; i++) {
        uint64_t group = stored.data[i] & 0x7F;
        if (i == LONGEST_NUMBER - 1 && group > 1)
            return 0; /* does not fit */
        *number |= group << 7 * i;
        if (stored.data[i] < 0x80)
            return i + 1;
    }
    return 0;
}

void bkm_read_numbers(const bkm_spans *column, bool with_sign, int64_t *values, uint8_t *known)
{
    for (size_t row = 0; row < column->count; row++) {
        uint64_t number;
        bkm_spans_prefetch(column, row + AHEAD);
        known[row] = read_number(bkm_spans_get(column, row), &number) != 0;
        if (!known[row])
            values[row] = 0;
        else if (with_sign)
            values[row] = (int64_t)(number >> 1 ^ -(number & 1));
        else
            values[row] = number > INT64_MAX ? INT64_MAX : (int64_t)number;
    }
}

static uint64_t big_endian(const uint8_t *at, int size)
{
    uint64_t number = 0;
    for (int i = 0; i < size; i++)
        number = number << 8 | at[i];
    return number;
}

/* 64 bits are not enough for the intermediate results. */
static int64_t nanoseconds(const uint8_t *stored)
{
    __extension__ typedef __int128 wide;
    wide seconds = (wide)(int64_t)big_endian(stored + 1, 8) - YEAR_1;
    wide value = seconds * 1000000000 + (int32_t)(uint32_t)big_endian(stored + 9, 4);
    return value > INT64_MAX ? INT64_MAX : value < INT64_MIN ? INT64_MIN : (int64_t)value;
}

void bkm_read_times(const bkm_spans *column, int64_t *values, uint8_t *known, uint8_t *broken)
{
    for (size_t row = 0; row < column->count; row++) {
        bkm_spans_prefetch(column, row + AHEAD);
        bkm_span stored = bkm_spans_get(column, row);
        uint8_t version = stored.size ? stored.data[0] : 0;
        known[row] = (version == 1 || version == 2) && stored.size == (uint32_t)STORED_TIME + version - 1;
        broken[row] = stored.data && !known[row];
        values[row] = known[row] ? nanoseconds(stored.data) : 0;
    }
}

void bkm_read_bytes(const bkm_spans *column, uint8_t last, int8_t *values)
{
    for (size_t row = 0; row < column->count; row++) {
        bkm_spans_prefetch(column, row + AHEAD);
        bkm_span stored = bkm_spans_get(column, row);
        values[row] = stored.size == 1 && stored.data[0] <= last ? (int8_t)stored.data[0] : 0;
    }
}

/* Two numbers with a zero byte between them. */
static bool read_link(bkm_span key, int64_t *parent, int64_t *child)
{
    uint64_t numbers[2];
    uint32_t end = read_number(key, &numbers[0]);
    if (end == 0 || end >= key.size || key.data[end] != 0)
        return false;
    bkm_span rest = {key.data + end + 1, key.size - end - 1};
    if (rest.size == 0 || read_number(rest, &numbers[1]) != rest.size)
        return false;
    if (numbers[0] > INT64_MAX || numbers[1] > INT64_MAX)
        return false;
    *parent = (int64_t)numbers[0];
    *child = (int64_t)numbers[1];
    return true;
}

void bkm_read_links(const bkm_spans *column, int64_t *parents, int64_t *children, uint8_t *broken)
{
    for (size_t row = 0; row < column->count; row++) {
        bkm_spans_prefetch(column, row + AHEAD);
        parents[row] = children[row] = 0;
        broken[row] = !read_link(bkm_spans_get(column, row), &parents[row], &children[row]);
    }
}

static int64_t counter_in(bkm_span name)
{
    const uint8_t *end = name.data + name.size;
    const uint8_t *at = name.size ? memchr(name.data, '/', name.size) : NULL;
    if (!at || ++at == end || *at == '/')
        return 0;
    int64_t number = 0;
    for (; at < end && *at >= '0' && *at <= '9'; at++) {
        int digit = *at - '0';
        number = number > (INT64_MAX - digit) / 10 ? INT64_MAX : number * 10 + digit;
    }
    return at < end && *at == '/' ? number : 0;
}

void bkm_read_counters(const bkm_spans *column, int64_t *values)
{
    for (size_t row = 0; row < column->count; row++) {
        bkm_spans_prefetch(column, row + AHEAD);
        values[row] = counter_in(bkm_spans_get(column, row));
    }
}
