/* What the containerd services say now, as columns sorted by name. */
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
    uint8_t *snapshot_kind, *snapshot_root; /* root: has the label containerd.io/gc.root */

    size_t blob_count;
    bkm_span *blob;
    uint8_t *blob_root;
    int64_t *blob_size; /* bytes; 0: containerd does not say */

    size_t lease_count;
    bkm_span *lease;
    uint8_t *lease_expires;  /* has the label containerd.io/gc.expire; NULL: none */
    uint8_t *lease_complete; /* has all that its record wants, without being listed here; NULL: none */
    size_t *lease_end; /* the resources of lease i end before resource lease_end[i] */

    size_t resource_count, resource_capacity;
    bkm_span *resource;
    uint8_t *resource_is_content; /* else it is a snapshot of this snapshotter; no others are kept */
} bkm_survey;

/* Reads containerd's database and the snapshotter's own one (spec containerd-metadata-db, sections 3 to 5).
 * `snapshots` may be NULL: no snapshot exists then. Returns NULL, or on failure the file with the error. */
bkm_bolt *bkm_survey_read(bkm_survey *survey, bkm_bolt *metadata, bkm_bolt *snapshots, bkm_span name_space,
                          bkm_span snapshotter);
void bkm_survey_free(bkm_survey *survey);

/* Appends a resource to those of the lease that is read now. */
bool bkm_survey_add_resource(bkm_survey *survey, bkm_span id, bool is_content);

#endif
