"""plan/survey.h"""

from libc.stdint cimport int64_t, uint8_t

from bolt_reader cimport bkm_bolt
from core_span cimport bkm_span


cdef extern from "plan/survey.h" nogil:
    ctypedef struct bkm_survey:
        size_t snapshot_count
        bkm_span *snapshot
        bkm_span *snapshot_parent
        uint8_t *snapshot_kind
        uint8_t *snapshot_root
        size_t blob_count
        bkm_span *blob
        uint8_t *blob_root
        int64_t *blob_size
        size_t lease_count
        bkm_span *lease
        uint8_t *lease_expires
        uint8_t *lease_complete
        size_t *lease_end
        size_t resource_count

    bkm_bolt *bkm_survey_read(
        bkm_survey *survey, bkm_bolt *metadata, bkm_bolt *snapshots, bkm_span name_space, bkm_span snapshotter
    )
    void bkm_survey_free(bkm_survey *survey)
    bint bkm_survey_add_resource(bkm_survey *survey, bkm_span id, bint is_content)
