/* Mutations that keep a bbolt file one: bytes that the format gives a meaning are changed to values that
 * might matter, pages are copied, and then the meta pages are signed again. */
#include <stdbool.h>
#include <stddef.h>

#include "bolt/format.h"

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

static uint32_t draw(uint32_t *state)
{
    /* xorshift32 */
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static uint32_t page_size_of(const uint8_t *data, size_t size)
{
    uint32_t stated = size >= 2 * BKM_MIN_PAGE_SIZE ? bkm_load32(data + 24) : 0;
    bool fits = stated >= BKM_MIN_PAGE_SIZE && (stated & (stated - 1)) == 0 && stated <= size / 2;
    return fits ? stated : BKM_MIN_PAGE_SIZE;
}

static void sign(uint8_t *data, size_t size)
{
    uint32_t page_size = page_size_of(data, size);
    for (size_t id = 0; id < 2 && (id + 1) * page_size <= size; id++) {
        uint8_t *meta = data + id * page_size;
        bkm_store32(meta + 16, BKM_META_MAGIC);
        bkm_store32(meta + 20, BKM_META_VERSION);
        bkm_store32(meta + 24, page_size);
        bkm_store64(meta + 72, bkm_meta_checksum(meta));
    }
}

static void number_pages(uint8_t *data, size_t size)
{
    uint32_t page_size = page_size_of(data, size);
    for (uint64_t id = 2; (id + 1) * page_size <= size;) {
        uint8_t *page = data + id * page_size;
        uint16_t flags = bkm_load16(page + 8);
        uint64_t run = 1;
        if (flags == BKM_PAGE_LEAF || flags == BKM_PAGE_BRANCH || flags == BKM_PAGE_FREELIST) {
            bkm_store64(page, id);
            if (bkm_load32(page + 12) < 4)
                run += bkm_load32(page + 12);
        }
        id += run;
    }
}

/* A number that is likely to be on the edge of something. */
static uint64_t edge(uint32_t *state, uint64_t pages, uint64_t now)
{
    static const uint64_t values[] = {0,      1,      2,      15,         16,         17,         31,
                                      32,     0xFF,   0x100,  0x3FF,      0x400,      0x7FFF,     0x8000,
                                      0x8001, 0xFFFE, 0xFFFF, 0x7FFFFFFE, 0x7FFFFFFF, 0xFFFFFFFF, UINT64_MAX};
    switch (draw(state) % 4) {
    case 0:
        return values[draw(state) % (sizeof values / sizeof *values)];
    case 1:
        return pages ? draw(state) % (pages + 1) : 0;
    case 2:
        return now + 1;
    default:
        return now - 1;
    }
}

static void set_field(uint8_t *at, size_t bytes, uint32_t *state, uint64_t pages)
{
    uint64_t now = bytes == 2 ? bkm_load16(at) : bytes == 4 ? bkm_load32(at) : bkm_load64(at);
    uint64_t value = edge(state, pages, now);
    memcpy(at, &value, bytes); /* little-endian */
}

static void change_meta(uint8_t *data, size_t size, uint32_t *state)
{
    uint32_t page_size = page_size_of(data, size);
    static const uint8_t fields[] = {32, 40, 48, 56, 64};
    uint8_t *meta = data + (draw(state) & 1) * page_size;
    set_field(meta + fields[draw(state) % sizeof fields], 8, state, size / page_size);
}

/* A field of the page header or of an element, on a page or in an inline bucket. */
static void change_page(uint8_t *page, size_t room, uint32_t *state, uint64_t pages)
{
    static const struct {
        uint8_t offset, bytes;
    } fields[] = {{8, 2}, {10, 2}, {12, 4}};
    uint32_t count = bkm_load16(page + 10);
    uint32_t shown = (uint32_t)((room - BKM_PAGE_HEADER) / BKM_LEAF_ELEMENT);
    count = count < shown ? count : shown;
    if (count == 0 || draw(state) % 6 == 0) {
        uint32_t field = draw(state) % 3;
        set_field(page + fields[field].offset, fields[field].bytes, state, pages);
        return;
    }
    uint32_t index = draw(state) % count;
    uint8_t *element = page + BKM_PAGE_HEADER + (size_t)index * BKM_LEAF_ELEMENT;
    if (bkm_load16(page + 8) == BKM_PAGE_BRANCH) {
        if (draw(state) & 1)
            set_field(element + 8, 8, state, pages);
        else
            set_field(element + 4 * (draw(state) & 1), 4, state, pages);
        return;
    }
    size_t value = (size_t)(element - page) + bkm_load32(element + 4) + bkm_load32(element + 8);
    if (bkm_load32(element) && draw(state) % 2 && value + BKM_BUCKET_HEADER <= room) {
        size_t inner = value + BKM_BUCKET_HEADER;
        if (bkm_load64(page + value) || inner + BKM_PAGE_HEADER + BKM_LEAF_ELEMENT > room)
            set_field(page + value, 8, state, pages);
        else
            change_page(page + inner, room - inner, state, pages);
        return;
    }
    set_field(element + 4 * (draw(state) & 3), 4, state, pages);
}

static void copy_page(uint8_t *data, size_t size, uint32_t *state)
{
    uint32_t page_size = page_size_of(data, size);
    uint32_t pages = (uint32_t)(size / page_size);
    if (pages < 4)
        return;
    size_t from = 2 + draw(state) % (pages - 2), to = 2 + draw(state) % (pages - 2);
    if (from != to)
        memcpy(data + to * page_size, data + from * page_size, page_size);
}

/* Adds an edit behind the pages in use. */
static size_t add_edit(uint8_t *data, size_t size, size_t max_size, uint32_t *state)
{
    static const char *const words[] = {"a", "b", "_main", "_index", "v1", "labels", "k", "zz"};
    uint8_t code = (uint8_t)(1 + draw(state) % 5);
    const char *key = words[draw(state) % 8];
    uint32_t key_size = (uint32_t)strlen(key), value_size = draw(state) % 64;
    size_t bytes = 1 + (code == 4 ? 0 : 4 + key_size) + (code == 1 || code == 5 ? 4 + value_size : 0);
    if (size + bytes > max_size)
        return size;
    uint8_t *at = data + size;
    *at++ = code;
    if (code != 4) {
        bkm_store32(at, key_size);
        memcpy(at + 4, key, key_size);
        at += 4 + key_size;
    }
    if (code == 1 || code == 5) {
        bkm_store32(at, value_size);
        memset(at + 4, 'v', value_size);
    }
    return size + bytes;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    uint32_t state = seed | 1;
    draw(&state);
    bool is_file = size >= 4 * BKM_MIN_PAGE_SIZE;
    uint32_t times = 1 + draw(&state) % 3;
    for (uint32_t i = 0; i < times; i++) {
        uint32_t page_size = page_size_of(data, size);
        uint64_t pages = size / page_size;
        uint32_t kind = is_file && pages > 2 ? draw(&state) % 8 : 7;
        if (kind < 4) {
            size_t at = (2 + draw(&state) % (pages - 2)) * page_size;
            change_page(data + at, size - at, &state, pages);
        } else if (kind == 4) {
            change_meta(data, size, &state);
        } else if (kind == 5) {
            copy_page(data, size, &state);
        } else if (kind == 6) {
            size = add_edit(data, size, max_size, &state);
        } else {
            size = LLVMFuzzerMutate(data, size, max_size);
        }
    }
    if (draw(&state) % 16)
        sign(data, size);
    if (draw(&state) % 8)
        number_pages(data, size);
    return size;
}
