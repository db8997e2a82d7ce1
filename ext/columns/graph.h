/* Directed edges between numbered nodes. */
#ifndef BKM_GRAPH_H
#define BKM_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int32_t source, target;
} bkm_edge;

typedef struct {
    size_t nodes; /* at most INT32_MAX - 1 */
    bkm_edge *edges;
    size_t count, capacity;
    size_t *first;    /* [nodes + 1]: index of each node's first target; NULL while edges are added */
    int32_t *targets;
} bkm_graph;

/* All functions but the last return false when out of memory. `source` and `target` must be nodes. */
bool bkm_graph_add(bkm_graph *graph, int32_t source, int32_t target);
/* found[node] is 1 for the start nodes; sets it to 1 for all nodes that can be reached from them. */
bool bkm_graph_reach(bkm_graph *graph, uint8_t *found);
/* Sets found[node] to 1 for all nodes that can be reached from themselves; all must be 0 before. */
bool bkm_graph_cycles(bkm_graph *graph, uint8_t *found);
void bkm_graph_free(bkm_graph *graph);

#endif
