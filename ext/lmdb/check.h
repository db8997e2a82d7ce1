/* Check of an LMDB data file, version 1, 64 bits: everything that LMDB would follow without looking. */
#ifndef BKM_LMDB_CHECK_H
#define BKM_LMDB_CHECK_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *rule;      /* what is broken; NULL if nothing is */
    uint64_t page;
    uint64_t transaction;  /* the one that was looked at, the newest */
} bkm_lmdb_finding;

/* Walks the trees of the newest meta page. A file with databases in the database breaks the rules: a store
 * has none. */
bkm_lmdb_finding bkm_lmdb_check(const uint8_t *data, uint64_t size);

#endif
