#include "core/spans.h"

#include <stdlib.h>

#include "core/array.h"
#include "core/column.h"

enum { BLOCK = 1 << 16 };

struct bkm_memory {
    bkm_memory *next;
    size_t used, size;
    uint8_t bytes[];
};

static bool pack(bkm_spans *spans, bkm_span span, uint64_t *packed)
{
    uint64_t distance = (uint64_t)((uintptr_t)span.data - (uintptr_t)spans->base);
    if (!span.data) {
        *packed = BKM_ABSENT;
        return true;
    }
    if (distance <= BKM_DISTANCE && span.size < BKM_ELSEWHERE) {
        *packed = (uint64_t)span.size << BKM_DISTANCE_BITS | distance;
        return true;
    }
    if (!bkm_array_room(&spans->elsewhere, &spans->elsewhere_capacity, spans->elsewhere_count + 1,
                        sizeof *spans->elsewhere, 16))
        return false;
    *packed = BKM_ELSEWHERE << BKM_DISTANCE_BITS | spans->elsewhere_count;
    spans->elsewhere[spans->elsewhere_count++] = span;
    return true;
}

static bool has_room(bkm_spans *spans)
{
    if (spans->count < spans->capacity)
        return true;
    size_t capacity = spans->capacity ? spans->capacity * 2 : 1024;
    uint64_t *larger = bkm_column_resize(spans->packed, capacity, sizeof *larger);
    if (!larger)
        return false;
    spans->packed = larger;
    spans->capacity = capacity;
    return true;
}

bool bkm_spans_add(bkm_spans *spans, bkm_span span)
{
    if (!has_room(spans) || !pack(spans, span, &spans->packed[spans->count]))
        return false;
    spans->count++;
    return true;
}

bool bkm_spans_add_number(bkm_spans *spans, uint64_t number)
{
    if (!has_room(spans))
        return false;
    spans->packed[spans->count++] = number;
    return true;
}

bool bkm_spans_set(bkm_spans *spans, size_t at, bkm_span span)
{
    return pack(spans, span, &spans->packed[at]);
}

bool bkm_spans_fill(bkm_spans *spans, size_t count, const uint8_t *base)
{
    *spans =
        (bkm_spans){.base = base, .packed = bkm_column(count, sizeof(uint64_t)), .count = count, .capacity = count};
    if (!spans->packed) {
        *spans = (bkm_spans){0};
        return false;
    }
    memset(spans->packed, 0xFF, count * sizeof(uint64_t));
    return true;
}

bool bkm_spans_adopt(bkm_spans *spans, bkm_span *array, size_t count, const uint8_t *base)
{
    *spans = (bkm_spans){.base = base, .count = count, .capacity = count};
    uint8_t *bytes = (uint8_t *)array;
    for (size_t i = 0; i < count; i++) {
        bkm_span span;
        uint64_t packed;
        memcpy(&span, bytes + i * sizeof span, sizeof span);
        if (!pack(spans, span, &packed)) {
            free(array);
            free(spans->elsewhere);
            *spans = (bkm_spans){0};
            return false;
        }
        memcpy(bytes + i * sizeof packed, &packed, sizeof packed);
    }
    uint64_t *smaller = count ? bkm_column_resize(array, count, sizeof *smaller) : NULL;
    spans->packed = smaller ? smaller : (uint64_t *)(void *)bytes;
    return true;
}

uint8_t *bkm_spans_room(bkm_spans *spans, size_t size)
{
    bkm_memory *block = spans->blocks;
    if (!block || block->size - block->used < size) {
        size_t room = size > BLOCK ? size : BLOCK;
        block = room > SIZE_MAX - sizeof *block ? NULL : malloc(sizeof *block + room);
        if (!block)
            return NULL;
        *block = (bkm_memory){.next = spans->blocks, .size = room};
        spans->blocks = block;
    }
    block->used += size;
    return block->bytes + block->used - size;
}

void bkm_spans_give_back(bkm_spans *spans, size_t size)
{
    spans->blocks->used -= size;
}

void bkm_spans_free(bkm_spans *spans)
{
    free(spans->packed);
    free(spans->elsewhere);
    while (spans->blocks) {
        bkm_memory *next = spans->blocks->next;
        free(spans->blocks);
        spans->blocks = next;
    }
    *spans = (bkm_spans){0};
}
