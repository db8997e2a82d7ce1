/* Mapping the pages of a file that is about to be read as a whole. */
#ifndef BKM_BOLT_MAPPING_H
#define BKM_BOLT_MAPPING_H

#include "bolt/reader.h"

/* Maps all pages many at once, unless half of them are free: one by one takes as long as reading them. Where the
 * system can't do it, and after the first call, nothing happens. False if interrupted. */
bool bkm_map_pages(bkm_bolt *bolt);

#endif
