/* Check of an LMDB data file, version 1, 64 bits: everything that LMDB would follow unchecked. */
#ifndef BKM_LMDB_CHECK_H
#define BKM_LMDB_CHECK_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *rule;      /* the broken rule; NULL if there is none */
    uint64_t page;
    uint64_t transaction;  /* the newest one, which was checked */
} bkm_lmdb_finding;

/* Walks the trees of the newest meta page. A file with named databases is rejected: a store has none. */
bkm_lmdb_finding bkm_lmdb_check(const uint8_t *data, uint64_t size);

#endif
