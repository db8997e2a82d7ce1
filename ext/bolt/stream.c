#include "bolt/stream.h"

#include "bolt/format.h"

static bool take_span(const bkm_edits *edits, size_t *at, bkm_span *span)
{
    if (edits->size - *at < 4)
        return false;
    span->size = bkm_load32(edits->data + *at);
    *at += 4;
    if (edits->size - *at < span->size)
        return false;
    span->data = edits->data + *at;
    *at += span->size;
    return true;
}

static bool decode(const bkm_edits *edits, bkm_edit *next)
{
    size_t at = edits->at;
    next->code = edits->data[at++];
    bool sets_sequence = next->code == BKM_EDIT_SEQUENCE;
    bool has_value = next->code == BKM_EDIT_PUT || next->code == BKM_EDIT_DEFAULT || sets_sequence;
    if (next->code < BKM_EDIT_PUT || next->code > BKM_EDIT_SEQUENCE ||
        (next->code != BKM_EDIT_LEAVE && !take_span(edits, &at, &next->key)) ||
        (has_value && !take_span(edits, &at, &next->value)) ||
        (sets_sequence && next->value.size != sizeof(uint64_t)))
        return false;
    next->bytes = at - edits->at;
    return true;
}

bkm_stream_status bkm_edits_peek(bkm_edits *edits, bkm_edit *next)
{
    while (edits->data && edits->at == edits->size) {
        edits->at = 0;
        edits->size = 0;
        if (!edits->refill(edits))
            return BKM_STREAM_REFILL;
        if (edits->size == 0)
            edits->data = NULL;
    }
    *next = (bkm_edit){0};
    return !edits->data || decode(edits, next) ? BKM_STREAM_OK : BKM_STREAM_MALFORMED;
}

uint64_t bkm_edit_sequence(const bkm_edit *edit, uint64_t before)
{
    return edit->code == BKM_EDIT_SEQUENCE ? bkm_load64(edit->value.data) : before;
}
