/* Memory for columns that are accessed in random order: on huge pages where available, because looking up
 * a small page often costs more than the access itself. */
#ifndef BKM_COLUMN_H
#define BKM_COLUMN_H

#include <stddef.h>
#include <stdint.h>

/* Maximum number of rows of a table: rows refer to each other by 31-bit numbers. A test lowers it. */
#ifndef BKM_MAX_ROWS
#define BKM_MAX_ROWS ((size_t)INT32_MAX - 1)
#endif

/* Allocates `count` elements of `size` bytes, aligned to at least a cache line, to be freed with free().
 * NULL when out of memory. */
void *bkm_column(size_t count, size_t size);

/* Like realloc(), for a growing column. Aligned as by malloc(). */
void *bkm_column_resize(void *column, size_t count, size_t size);

/* From now on memory of large columns goes back to the system when it is freed, in the whole process: glibc otherwise
 * keeps more and more of it, for columns of other sizes than those to come. */
void bkm_column_give_back(void);

#endif
