/* Growing arrays and byte buffers. */
#ifndef BKM_ARRAY_H
#define BKM_ARRAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The slow path of bkm_array_room, kept out of line so that only the test is inlined. */
static __attribute__((noinline)) bool bkm_array_grow(void *array, size_t *capacity, size_t wanted, size_t size,
                                                     size_t first)
{
    if (wanted > SIZE_MAX / 2 / size)
        return false;
    size_t larger = *capacity ? *capacity : first;
    while (larger < wanted)
        larger *= 2;
    void *elements;
    memcpy(&elements, array, sizeof elements);
    elements = realloc(elements, larger * size);
    if (!elements)
        return false;
    memcpy(array, &elements, sizeof elements);
    *capacity = larger;
    return true;
}

/* Ensures room for `wanted` elements of `size` bytes. `array` is the address of the pointer to them. Capacity
 * starts at `first` and doubles. False when out of memory; then nothing has changed. */
static inline bool bkm_array_room(void *array, size_t *capacity, size_t wanted, size_t size, size_t first)
{
    return wanted <= *capacity || bkm_array_grow(array, capacity, wanted, size, first);
}

/* A growing byte buffer. The owner frees `data`. */
typedef struct {
    uint8_t *data;
    size_t size, capacity;
} bkm_buffer;

static inline bool bkm_buffer_room(bkm_buffer *buffer, size_t more, size_t first)
{
    if (more <= buffer->capacity - buffer->size)
        return true;
    return more <= SIZE_MAX - buffer->size &&
           bkm_array_room(&buffer->data, &buffer->capacity, buffer->size + more, 1, first);
}

#endif
