/* Records, survey, plan and both streams of edits. The input is one bbolt file that is all three databases:
 * the v1 store, containerd's own (namespace "buildkit") and that of the snapshotter "overlayfs". */
#include "common.h"
#include "plan/edits.h"

static const bkm_sha256_kernel portable = {"portable", bkm_sha256_portable, 6, &bkm_hex_plain};

/* In place of the decoder that Python has: some odd values decode, to a text that lies in the file. */
static void settle(bkm_records *records)
{
    for (size_t odd = 0; odd < records->odd_count; odd++) {
        bkm_span text = records->odd[odd].value;
        bool ok = text.size % 2 ? bkm_records_refuse(records, odd) : bkm_records_accept(records, odd, text, text);
        BKM_DEMAND(ok);
    }
    bkm_records_finish(records);
}

/* An edit can meet a bucket in the place of a value; nothing else may be wrong with the edits of a plan. */
static void apply(bkm_bolt *bolt, bkm_edits *edits)
{
    bkm_image image;
    bkm_rewrite_result result;
    bkm_build_status built;
    if (!bkm_fuzz_rewrite(bolt, edits, &image, &result, &built))
        BKM_DEMAND(result.status == BKM_REWRITE_READ || result.status == BKM_REWRITE_CONFLICT);
    free(image.data);
}

typedef struct {
    bkm_store_edits *store;
    bkm_containerd_edits *containerd;
    bkm_operations out;
} source;

static bool refill(bkm_edits *edits)
{
    source *from = edits->context;
    if (from->store)
        bkm_store_edits_fill(from->store, &from->out);
    else
        bkm_containerd_edits_fill(from->containerd, &from->out);
    edits->data = from->out.data;
    edits->size = from->out.size;
    return !from->out.failed;
}

static void apply_store(bkm_bolt *bolt, const bkm_plan *plan)
{
    source from = {.store = bkm_store_edits_new(plan, bolt)};
    if (!from.store) {
        bkm_fuzz_demand_error(bolt);
        return;
    }
    bkm_edits edits = {.data = (const uint8_t *)"", .refill = refill, .context = &from};
    apply(bolt, &edits);
    bkm_store_edits_free(from.store);
    free(from.out.data);
}

static void apply_containerd(bkm_bolt *bolt, const bkm_plan *plan)
{
    const bkm_containerd_terms terms = {
        .name_space = BKM_NAME("buildkit"),
        .snapshotter = BKM_NAME("overlayfs"),
        .created = BKM_NAME("\1\0\0\0\0\0\0\0\0\0\0\0\0\xFF\xFF"),
        .flat = BKM_NAME("2020-01-01T00:00:00Z"),
    };
    source from = {.containerd = bkm_containerd_edits_new(plan, terms)};
    BKM_DEMAND(from.containerd);
    bkm_edits edits = {.data = (const uint8_t *)"", .refill = refill, .context = &from};
    apply(bolt, &edits);
    bkm_containerd_edits_free(from.containerd);
    free(from.out.data);
}

static void make_plan(bkm_bolt *bolt, const bkm_records *records, const bkm_survey *survey, bool upstream_exact)
{
    bkm_plan plan;
    BKM_DEMAND(bkm_plan_make(&plan, records, survey, upstream_exact, &portable, 1));
    BKM_DEMAND(plan.counts.kept <= plan.counts.records && plan.counts.records == records->count);
    BKM_DEMAND(plan.counts.blob_sizes <= (upstream_exact ? 0 : plan.counts.blobs));
    apply_store(bolt, &plan);
    apply_containerd(bolt, &plan);
    bkm_plan_free(&plan);
}

static void make_plans(bkm_bolt *bolt, const bkm_records *records)
{
    bkm_survey survey;
    if (bkm_survey_read(&survey, bolt, bolt, BKM_NAME("buildkit"), BKM_NAME("overlayfs"))) {
        bkm_fuzz_demand_error(bolt);
        return;
    }
    BKM_DEMAND(survey.resource_count <= bolt->size / BKM_LEAF_ELEMENT);
    BKM_DEMAND(survey.snapshot_count <= bolt->size / BKM_LEAF_ELEMENT);
    for (size_t i = 0; i < survey.blob_count; i++)
        BKM_DEMAND(survey.blob_size[i] >= 0);
    make_plan(bolt, records, &survey, false);
    make_plan(bolt, records, &survey, true);
    bkm_survey_free(&survey);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *file = bkm_fuzz_copy(data, size);
    bkm_bolt bolt;
    bkm_records records;
    if (bkm_bolt_open(&bolt, file, size)) {
        if (bkm_records_read(&records, &bolt)) {
            settle(&records);
            make_plans(&bolt, &records);
            bkm_records_free(&records);
        } else {
            bkm_fuzz_demand_error(&bolt);
        }
    }
    bkm_bolt_close(&bolt);
    free(file);
    return 0;
}
