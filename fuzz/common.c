#include "common.h"

/* What is built stays in one piece: a block is what is behind the bytes that are there. */
static bool keep(void *context, bkm_block *block, size_t size, size_t wanted)
{
    bkm_image *image = context;
    image->size += size;
    if (image->capacity - image->size < wanted) {
        image->capacity = 2 * (image->size + wanted);
        image->data = realloc(image->data, image->capacity);
        BKM_DEMAND(image->data);
    }
    *block = (bkm_block){image->data + image->size, image->capacity - image->size};
    return true;
}

static bool no_more(bkm_edits *edits)
{
    edits->size = 0;
    return true;
}

bkm_edits bkm_fuzz_one_chunk(const uint8_t *data, size_t size)
{
    return (bkm_edits){.data = size ? data : (const uint8_t *)"", .size = size, .refill = no_more};
}

void bkm_fuzz_demand_error(const bkm_bolt *bolt)
{
    BKM_DEMAND(bolt->rule > BKM_NO_MEMORY && bolt->rule < BKM_RULES);
    BKM_DEMAND(bkm_rule_text(bolt->rule)[0]);
}

uint8_t *bkm_fuzz_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    BKM_DEMAND(copy);
    if (size)
        memcpy(copy, data, size);
    return copy;
}

bkm_builder *bkm_fuzz_builder(uint32_t page_size, bkm_image *image)
{
    *image = (bkm_image){0};
    bkm_builder *builder = bkm_builder_new(page_size, page_size / 10 * 9, keep, image);
    BKM_DEMAND(builder);
    return builder;
}

static void finish(bkm_builder *builder, uint32_t page_size, bkm_image *image)
{
    uint8_t *metas = malloc(2 * (size_t)page_size);
    BKM_DEMAND(metas && bkm_builder_finish(builder, metas, (bkm_ending){.transaction = 2, .freelist = true}));
    BKM_DEMAND(image->size >= 4 * (size_t)page_size);
    memcpy(image->data, metas, 2 * (size_t)page_size);
    free(metas);
}

static bool write_image(bkm_bolt *bolt, bkm_edits *edits, bkm_image *image, bkm_rewrite_result *result,
                        bkm_build_status *built)
{
    bkm_builder *builder = bkm_fuzz_builder(bolt->page_size, image);
    bkm_bucket root = bkm_root_bucket(bolt);
    *result = bkm_rewrite(bolt, &root, builder, edits);
    bool ok = result->status == BKM_REWRITE_OK;
    if (ok)
        finish(builder, bolt->page_size, image);
    if (result->status == BKM_REWRITE_READ)
        bkm_fuzz_demand_error(bolt);
    *built = bkm_builder_status(builder);
    bkm_builder_free(builder);
    return ok;
}

static bool no_finding(void *context, bkm_part part, uint64_t page, const char *text)
{
    (void)context;
    (void)part;
    fprintf(stderr, "what was written is not sound: page %lld: %s\n", (long long)page, text);
    abort();
}

static void demand_sound(const bkm_image *image)
{
    bkm_bolt again;
    bkm_image copy;
    bkm_counts counts;
    bkm_rewrite_result copied;
    bkm_build_status copy_built;
    bkm_edits nothing = bkm_fuzz_one_chunk(NULL, 0);
    BKM_DEMAND(bkm_bolt_open(&again, image->data, image->size));
    BKM_DEMAND(again.high_water * again.page_size == image->size && again.other_meta == BKM_OK);
    BKM_DEMAND(bkm_check(&again, no_finding, NULL, &counts));
    BKM_DEMAND(write_image(&again, &nothing, &copy, &copied, &copy_built));
    BKM_DEMAND(copied.changes == 0);
    BKM_DEMAND(copy.size == image->size && memcmp(copy.data, image->data, copy.size) == 0);
    bkm_bolt_close(&again);
    free(copy.data);
}

void bkm_fuzz_finish(bkm_builder *builder, uint32_t page_size, bkm_image *image)
{
    finish(builder, page_size, image);
    bkm_builder_free(builder);
    demand_sound(image);
}

bool bkm_fuzz_rewrite(bkm_bolt *bolt, bkm_edits *edits, bkm_image *image, bkm_rewrite_result *result,
                      bkm_build_status *built)
{
    if (!write_image(bolt, edits, image, result, built))
        return false;
    demand_sound(image);
    return true;
}
