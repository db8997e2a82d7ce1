/* Memory management of plans. */
#include "plan/plan.h"

#include <stdlib.h>

#include "core/column.h"

struct bkm_plan_text {
    bkm_plan_text *next;
    uint8_t bytes[];
};

bool bkm_plan_allocate(bkm_plan *plan)
{
    /* One more than needed, so that no allocation has zero bytes. */
    size_t room = plan->records->count + 1;
    plan->reason = calloc(room, 1);
    plan->flags = calloc(room, sizeof *plan->flags);
    plan->parent = bkm_column(room, sizeof *plan->parent);
    plan->parent_index = bkm_column(room, sizeof *plan->parent_index);
    plan->snapshot = bkm_column(room, sizeof *plan->snapshot);
    plan->diff_id = bkm_column(room, sizeof *plan->diff_id);
    plan->blob = bkm_column(room, sizeof *plan->blob);
    plan->blob_size = calloc(room, sizeof *plan->blob_size);
    plan->chains.ids = bkm_column(room, sizeof *plan->chains.ids);
    plan->chains.state = calloc(room, 1);
    plan->unlabel_snapshot = calloc(plan->survey->snapshot_count + 1, 1);
    plan->unlabel_blob = calloc(plan->survey->blob_count + 1, 1);
    return plan->reason && plan->flags && plan->parent && plan->parent_index && plan->snapshot && plan->diff_id &&
           plan->blob && plan->blob_size && plan->chains.ids && plan->chains.state && plan->unlabel_snapshot &&
           plan->unlabel_blob;
}

bool bkm_plan_text_as_read(bkm_plan *plan, bkm_span *text)
{
    if (bkm_utf8_valid(*text))
        return true;
    /* A text that could outgrow a span is treated as out of memory. */
    bkm_plan_text *copy = text->size > UINT32_MAX / 3 ? NULL : malloc(sizeof *copy + 3 * (size_t)text->size);
    if (!copy)
        return false;
    uint8_t *out = copy->bytes;
    for (uint32_t at = 0; at < text->size;) {
        size_t length = bkm_utf8_character(text->data + at, text->size - at);
        memcpy(out, length ? (const char *)text->data + at : "\xEF\xBF\xBD", length ? length : 3);
        out += length ? length : 3;
        at += length ? (uint32_t)length : 1;
    }
    copy->next = plan->texts;
    plan->texts = copy;
    *text = (bkm_span){copy->bytes, (uint32_t)(out - copy->bytes)};
    return true;
}

void bkm_plan_free(bkm_plan *plan)
{
    free(plan->reason);
    free(plan->flags);
    free(plan->parent);
    free(plan->parent_index);
    free(plan->snapshot);
    free(plan->diff_id);
    free(plan->blob);
    free(plan->blob_size);
    free(plan->chains.ids);
    free(plan->chains.state);
    free(plan->unlabel_snapshot);
    free(plan->unlabel_blob);
    while (plan->texts) {
        bkm_plan_text *next = plan->texts->next;
        free(plan->texts);
        plan->texts = next;
    }
    *plan = (bkm_plan){0};
}
