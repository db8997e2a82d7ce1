#include "plan/plan.h"

void bkm_plan_count(bkm_plan *plan)
{
    const bkm_survey *survey = plan->survey;
    bkm_plan_counts *counts = &plan->counts;
    counts->records = plan->records->count;
    for (size_t i = 0; i < plan->records->count; i++) {
        uint16_t flags = plan->flags[i];
        if (plan->records->equal_mutable[i].size == 0) {
            counts->snapshots_needed++;
            counts->snapshots_found += plan->snapshot[i] >= 0;
        }
        if (bkm_plan_dropped(plan, i))
            continue;
        counts->kept++;
        counts->committed += (flags & BKM_PUT_COMMITTED) != 0;
        counts->blobs += (flags & BKM_PUT_BLOB) != 0;
        counts->blob_sizes += plan->blob_size[i] != 0;
        counts->chains += bkm_plan_writes_chain(plan, i);
        counts->leases_to_create += (flags & BKM_CREATE_LEASE) != 0;
        counts->leases_to_keep += (flags & BKM_KEEP_LEASE) != 0;
        counts->resources_to_add += ((flags & BKM_ADD_SNAPSHOT) != 0) + ((flags & BKM_ADD_CONTENT) != 0);
    }
    for (size_t i = 0; i < survey->snapshot_count; i++) {
        bool is_view = survey->snapshot_kind[i] == BKM_SNAPSHOT_VIEW;
        counts->unlabel_snapshots += plan->unlabel_snapshot[i];
        counts->views += is_view && plan->unlabel_snapshot[i];
        counts->labels_left_snapshots += survey->snapshot_root[i] && !plan->unlabel_snapshot[i];
    }
    for (size_t i = 0; i < survey->blob_count; i++) {
        counts->unlabel_blobs += plan->unlabel_blob[i];
        counts->labels_left_blobs += survey->blob_root[i] && !plan->unlabel_blob[i];
    }
}
