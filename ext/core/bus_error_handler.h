/* SIGBUS handler: report a truncated mapping and exit. */
#ifndef BKM_BUS_ERROR_HANDLER_H
#define BKM_BUS_ERROR_HANDLER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    const char *text;
    size_t size;
} bkm_words;

/* Installs the handler: an access beyond the end of a truncated mapped file, in any thread, writes `error`
 * to descriptor 2 and `output` to descriptor 1, and ends the process with `status`, without any cleanup.
 * The texts must stay valid. Other bus errors (broken memory, or signals that were sent) are handled as
 * before. False, with errno set, on failure. */
bool bkm_bus_error_install(bkm_words error, bkm_words output, int status);

/* Restores the previous handler. */
void bkm_bus_error_remove(void);

#endif
