/* Memory for columns that are read and written in random order: on huge pages where the system has them,
 * because looking up a small page often costs more than the access itself. */
#ifndef BKM_COLUMN_H
#define BKM_COLUMN_H

#include <stddef.h>
#include <stdint.h>

/* Most rows of a table: rows refer to each other by numbers of 31 bits. A test sets it lower. */
#ifndef BKM_MAX_ROWS
#define BKM_MAX_ROWS ((size_t)INT32_MAX - 1)
#endif

/* Room for `count` elements of `size` bytes, aligned to a cache line at least; for free(). NULL when out of
 * memory. */
void *bkm_column(size_t count, size_t size);

/* As realloc(), for a column that grows; its alignment is that of malloc(). */
void *bkm_column_resize(void *column, size_t count, size_t size);

#endif
