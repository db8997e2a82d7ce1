/* State of the containerd services, as columns sorted by name. */
#ifndef BKM_SURVEY_H
#define BKM_SURVEY_H

#include "bolt/reader.h"

enum {
    BKM_SNAPSHOT_UNKNOWN = 0,
    BKM_SNAPSHOT_VIEW = 1,
    BKM_SNAPSHOT_ACTIVE = 2,
    BKM_SNAPSHOT_COMMITTED = 3,
};

typedef struct {
    size_t snapshot_count;
    bkm_span *snapshot, *snapshot_parent;
    uint8_t *snapshot_kind, *snapshot_root; /* root: it has the label containerd.io/gc.root */

    size_t blob_count;
    bkm_span *blob;
    uint8_t *blob_root;
    int64_t *blob_size; /* in bytes; 0 if containerd does not know it */

    size_t lease_count;
    bkm_span *lease;
    uint8_t *lease_expires;  /* it has the label containerd.io/gc.expire; NULL: none has */
    uint8_t *lease_complete; /* it has all resources that its record needs, though not listed here; NULL: none has */
    size_t *lease_end; /* resources of lease i end before resource lease_end[i] */

    size_t resource_count, resource_capacity;
    bkm_span *resource;
    uint8_t *resource_is_content; /* otherwise a snapshot of this snapshotter; others are not stored */
} bkm_survey;

/* Reads containerd's database and the snapshotter's (spec containerd-metadata-db, sections 3 to 5). If
 * `snapshots` is NULL, there are no snapshots. Returns NULL, or on failure the file with the error. */
bkm_bolt *bkm_survey_read(bkm_survey *survey, bkm_bolt *metadata, bkm_bolt *snapshots, bkm_span name_space,
                          bkm_span snapshotter);
void bkm_survey_free(bkm_survey *survey);

/* Adds a resource to the last lease. */
bool bkm_survey_add_resource(bkm_survey *survey, bkm_span id, bool is_content);

#endif
