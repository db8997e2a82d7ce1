/* What can still be read of a damaged bbolt file, copied into a builder; and what is lost, by name. */
#ifndef BKM_BOLT_SALVAGE_H
#define BKM_BOLT_SALVAGE_H

#include "bolt/builder.h"
#include "bolt/reader.h"

/* Bytes of the file that could not be read, up to `end`; in memory they are zeros. */
typedef struct {
    uint64_t start, end;
} bkm_gap;

/* A file whose pages need not be sound, nor all there. */
typedef struct {
    bkm_bolt bolt;          /* the state that is read; its high-water mark is not beyond the file's end */
    uint64_t stated;        /* the high-water mark as the meta page has it */
    bkm_rule newest;        /* why the newest state is not the one that is read; BKM_OK if it is */
    uint64_t newest_page;   /* the page that breaks that rule */
    bool unverified;        /* both meta pages are invalid; the state is that of one of them all the same */
    const bkm_gap *gaps;    /* in ascending order, apart from each other */
    size_t gap_count;
} bkm_damaged;

/* Something that can't be read. Its keys are from `from` on (NULL data: no limit) and less than `to`. */
typedef struct {
    const bkm_span *path;   /* names of the buckets down to the one that lacks it */
    size_t depth;
    uint64_t page;
    bkm_span from, to;
    bkm_rule rule;
} bkm_loss;

/* Receives what is lost, in the order of the walk. Returning false ends the salvage. */
typedef bool (*bkm_lost)(void *context, const bkm_loss *loss);

typedef struct {
    uint64_t buckets, keys; /* copied */
    uint64_t unreached;     /* see bkm_unreached */
} bkm_kept;

/* Chooses the state to read: the newest one whose root page can be read. If no meta page is valid, the page
 * size is the one at which most pages stand where they say, and both meta pages are tried as they are.
 * Returns false with bolt.rule set if there is none. To be closed with bkm_bolt_close in any case. */
bool bkm_damaged_open(bkm_damaged *damaged, const uint8_t *data, uint64_t size, const bkm_gap *gaps,
                      size_t gap_count);

/* Whether some of these bytes of the file could not be read. */
bool bkm_has_gap(const bkm_damaged *damaged, uint64_t start, uint64_t size);

/* The number of pages that are neither in use nor free; there are none in a sound file. BKM_NO_PAGE if that
 * can't be told, as the free list can't be read. `used`: bitmap of the pages in use; gets the free ones, too. */
uint64_t bkm_unreached(const bkm_damaged *damaged, uint8_t *used);

/* Copies every bucket and key that the tree reaches. The builder's current bucket stays open, and its pages
 * must be of the same size. False if it failed, or `lost` did, or with bolt.rule set if out of memory or
 * interrupted. */
bool bkm_salvage(bkm_damaged *damaged, bkm_builder *builder, bkm_lost lost, void *context, bkm_kept *kept);

#endif
