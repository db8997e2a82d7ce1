/* Asks the processor for memory that is about to be read. */
#ifndef BKM_PREFETCH_H
#define BKM_PREFETCH_H

/* Any address will do. The empty statement is there because GCC takes a function that only prefetches for one
 * without effect, and leaves its calls out. */
static inline void bkm_prefetch_at(const void *at)
{
    __builtin_prefetch(at);
    __asm__ volatile("" : : "r"(at));
}

#endif
