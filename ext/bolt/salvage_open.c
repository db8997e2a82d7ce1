#include "bolt/salvage.h"

#include "core/bits.h"

/* ---- which state to read ---- */

/* The page size at which most pages have the number of their place; 0 if none has. */
static uint32_t guess_page_size(const bkm_bolt *bolt)
{
    enum { MOST_PAGES = 1 << 16 };
    uint32_t best = 0, best_count = 0;
    for (uint32_t size = BKM_MIN_PAGE_SIZE; size <= BKM_MAX_PAGE_SIZE; size <<= 1) {
        uint32_t count = 0;
        for (uint64_t id = 1; id < MOST_PAGES && id < bolt->size / size; id++) {
            const uint8_t *page = bolt->data + id * size;
            uint16_t flags = bkm_load16(page + 8);
            count += bkm_load64(page) == id && (flags == BKM_PAGE_LEAF || flags == BKM_PAGE_BRANCH ||
                                                flags == BKM_PAGE_META || flags == BKM_PAGE_FREELIST);
        }
        if (count > best_count) {
            best = size;
            best_count = count;
        }
    }
    return best;
}

bool bkm_has_gap(const bkm_damaged *damaged, uint64_t start, uint64_t size)
{
    size_t low = 0, high = damaged->gap_count;
    while (low < high) { /* the first gap that ends after the start */
        size_t middle = low + (high - low) / 2;
        if (damaged->gaps[middle].end > start)
            high = middle;
        else
            low = middle + 1;
    }
    return low < damaged->gap_count && damaged->gaps[low].start < start + size;
}

/* Whether the root page may be one: its number and type are right. What else is wrong with it is seen when
 * it is read. */
static bool check_root(bkm_damaged *damaged)
{
    bkm_bolt *bolt = &damaged->bolt;
    uint64_t root = bolt->root, stated = damaged->stated;
    if (root < 2 || root >= stated)
        return bkm_bolt_fail(bolt, BKM_BAD_ROOT, root);
    if (root >= bolt->high_water)
        return bkm_bolt_fail(bolt, BKM_TRUNCATED, root);
    if (bkm_has_gap(damaged, root * bolt->page_size, BKM_PAGE_HEADER))
        return bkm_bolt_fail(bolt, BKM_UNREADABLE, root);
    const uint8_t *page = bolt->data + root * bolt->page_size;
    if (bkm_load64(page) != root)
        return bkm_bolt_fail(bolt, BKM_WRONG_PAGE_ID, root);
    uint16_t flags = bkm_load16(page + 8);
    if (flags != BKM_PAGE_LEAF && flags != BKM_PAGE_BRANCH)
        return bkm_bolt_fail(bolt, BKM_WRONG_PAGE_FLAGS, root);
    return true;
}

static bool read_state(bkm_damaged *damaged, uint64_t offset)
{
    bkm_bolt *bolt = &damaged->bolt;
    const uint8_t *meta = bolt->data + offset;
    bolt->root = bkm_load64(meta + 32);
    bolt->root_sequence = bkm_load64(meta + 40);
    bolt->freelist = bkm_load64(meta + 48);
    bolt->transaction = bkm_load64(meta + 64);
    uint64_t pages = bolt->size / bolt->page_size;
    damaged->stated = damaged->unverified ? pages : bkm_load64(meta + 56);
    bolt->high_water = damaged->stated < pages ? damaged->stated : pages;
    return check_root(damaged);
}

/* Tries the two states, the newer one first. */
static bool choose(bkm_damaged *damaged, const bool usable[2])
{
    bkm_bolt *bolt = &damaged->bolt;
    const uint64_t offsets[2] = {0, bolt->page_size};
    int newer = 0;
    if (usable[1] && (!usable[0] || bkm_load64(bolt->data + offsets[1] + 64) > bkm_load64(bolt->data + 64)))
        newer = 1;
    if (read_state(damaged, offsets[newer]))
        return true;
    damaged->newest = bolt->rule;
    damaged->newest_page = bolt->rule_page;
    if (usable[!newer] && read_state(damaged, offsets[!newer]))
        return true;
    return bkm_bolt_fail(bolt, damaged->newest, damaged->newest_page);
}

bool bkm_damaged_open(bkm_damaged *damaged, const uint8_t *data, uint64_t size, const bkm_gap *gaps, size_t gap_count)
{
    *damaged = (bkm_damaged){.gaps = gaps, .gap_count = gap_count};
    bkm_bolt *bolt = &damaged->bolt;
    bolt->data = data;
    bolt->size = size;
    bolt->rule_page = BKM_NO_PAGE;
    if (size < 2 * BKM_MIN_PAGE_SIZE)
        return bkm_bolt_fail(bolt, BKM_TOO_SHORT, BKM_NO_PAGE);

    bkm_rule first = bkm_meta_rule(bolt, 0);
    if (first == BKM_BIG_ENDIAN)
        return bkm_bolt_fail(bolt, first, 0);
    uint64_t second_offset = first == BKM_OK ? bkm_load32(data + 24) : bkm_second_meta(bolt);
    bkm_rule second = second_offset ? bkm_meta_rule(bolt, second_offset) : BKM_BAD_MAGIC;
    /* A second one of another page size is not where it should be, so it is not one. */
    if (second == BKM_OK && bkm_load32(data + second_offset + 24) != second_offset)
        second = BKM_PAGE_SIZES_DIFFER;
    bool usable[2] = {first == BKM_OK, second == BKM_OK};
    bolt->other_meta = first != BKM_OK ? first : second;
    bolt->page_size = (uint32_t)second_offset;
    if (!usable[0] && !usable[1]) {
        damaged->unverified = true;
        bolt->page_size = guess_page_size(bolt);
        if (!bolt->page_size)
            return bkm_bolt_fail(bolt, first, 0);
        usable[0] = true;
        usable[1] = bolt->size / bolt->page_size >= 2;
    }
    if (!choose(damaged, usable))
        return false;
    if (damaged->unverified) {
        damaged->newest = first;
        damaged->newest_page = 0;
    }
    bolt->checked = bkm_bolt_bitmap(bolt);
    return bolt->checked != NULL;
}

/* ---- which pages are free ---- */

uint64_t bkm_unreached(const bkm_damaged *damaged, uint8_t *used)
{
    const bkm_bolt *bolt = &damaged->bolt;
    uint64_t list = bolt->freelist;
    if (list < 2 || list >= bolt->high_water)
        return BKM_NO_PAGE;
    const uint8_t *page = bolt->data + list * bolt->page_size;
    uint64_t pages = bkm_run_pages(page);
    if (bkm_load64(page) != list || bkm_load16(page + 8) != BKM_PAGE_FREELIST || pages > bolt->high_water - list ||
        bkm_has_gap(damaged, list * bolt->page_size, pages * bolt->page_size))
        return BKM_NO_PAGE;
    uint64_t count = bkm_load16(page + 10), first = 0, room = (pages * bolt->page_size - BKM_PAGE_HEADER) / 8;
    if (count == BKM_LONG_FREELIST) {
        count = bkm_load64(page + BKM_PAGE_HEADER);
        first = 1;
    }
    if (count > room - first)
        return BKM_NO_PAGE;
    for (uint64_t id = list; id < list + pages; id++)
        bkm_bits_add(used, id);
    for (uint64_t i = first; i < first + count; i++) {
        uint64_t id = bkm_load64(page + BKM_PAGE_HEADER + i * 8);
        if (id < bolt->high_water)
            bkm_bits_add(used, id);
    }
    uint64_t unreached = 0;
    for (uint64_t id = 2; id < bolt->high_water; id++)
        unreached += !bkm_bits_have(used, id);
    return unreached;
}
