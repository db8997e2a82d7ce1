/* The records of a v1 store as columns over the mapped file. */
#ifndef BKM_RECORDS_H
#define BKM_RECORDS_H

#include "bolt/reader.h"
#include "json/value.h"

/* The migration's own text keys, which v1 never writes but a record may have. */
typedef enum {
    BKM_STORED_PARENT,
    BKM_STORED_DIFF_ID,
    BKM_STORED_BLOB,
    BKM_STORED_CHAIN,
    BKM_STORED_BLOB_CHAIN,
    BKM_STORED_TEXTS
} bkm_stored;

/* What the migration does with a key. The first kinds are those of bkm_stored. */
typedef enum {
    BKM_KEY_WRITTEN = BKM_STORED_TEXTS, /* overwritten, but not read */
    BKM_KEY_BLOB_SIZE,                  /* likewise, but not by upstream */
    BKM_KEY_EQUAL_MUTABLE,
    BKM_KEY_BLOB_MAPPING,
    BKM_KEY_ANY,
} bkm_key_kind;

typedef enum {
    BKM_VALUE_UNDECODABLE,
    BKM_VALUE_IS_BUCKET,
    BKM_BLOB_SIZE_IS_BUCKET, /* not a problem for a plan that does not write it */
} bkm_value_fault;

typedef struct {
    uint32_t record;
    bkm_value_fault fault;
    bkm_span key;
} bkm_value_problem;

/* A value that bkm_json_read does not recognise, to be decided by the caller. */
typedef struct {
    uint32_t record;
    uint32_t kind; /* bkm_key_kind or bkm_stored */
    bkm_span key, value;
} bkm_odd_value;

typedef struct {
    size_t count, capacity;
    bkm_span *id;
    bkm_span *equal_mutable;
    bkm_span *blobsum, *diff_id;        /* of the blob mapping; blobsum.data == NULL if there is none */
    bkm_span *stored[BKM_STORED_TEXTS]; /* NULL until some record has such a value */
    uint8_t *empty_mapping;             /* the blob mapping exists but is empty */

    bkm_value_problem *problems;        /* sorted by record and key after bkm_records_finish */
    size_t problem_count, problem_capacity;
    bkm_odd_value *odd;
    size_t odd_count, odd_capacity;
} bkm_records;

/* Reads the `_main` bucket; keys in it that are not buckets are skipped. False with bolt->rule set on
 * failure. Odd values must be settled afterwards. */
bool bkm_records_read(bkm_records *records, bkm_bolt *bolt);
void bkm_records_free(bkm_records *records);

/* Settle odd value number `odd`: it can't be decoded, or has this text (NULL data for none). */
bool bkm_records_refuse(bkm_records *records, size_t odd);
bool bkm_records_accept(bkm_records *records, size_t odd, bkm_span text, bkm_span diff_id);
/* Call this after settling all odd values. */
void bkm_records_finish(bkm_records *records);

static inline bkm_span bkm_records_stored(const bkm_records *records, bkm_stored which, size_t record)
{
    return records->stored[which] ? records->stored[which][record] : (bkm_span){NULL, 0};
}

#endif
