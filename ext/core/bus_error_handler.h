/* The last words of a process that touches a mapped file where it has no bytes any more (SIGBUS). */
#ifndef BKM_BUS_ERROR_HANDLER_H
#define BKM_BUS_ERROR_HANDLER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    const char *text;
    size_t size;
} bkm_words;

/* From now on such an access, in any thread, writes `error` to descriptor 2 and `output` to descriptor 1, and
 * ends the process with `status`; nothing else is done. All texts must stay. Other bus errors, of broken
 * memory or sent by somebody, go the way they went before. False, with errno set, on failure. */
bool bkm_bus_error_install(bkm_words error, bkm_words output, int status);

/* Gives the signal back to who had it before. */
void bkm_bus_error_remove(void);

#endif
