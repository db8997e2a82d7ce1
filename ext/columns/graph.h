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
    size_t *first;    /* [nodes + 1], of the targets of each node; NULL while edges are added */
    int32_t *targets;
} bkm_graph;

/* All but the last are false when out of memory. `source` and `target` are nodes. */
bool bkm_graph_add(bkm_graph *graph, int32_t source, int32_t target);
/* found[node]: 1 for those to begin with; so are in the end all that edges lead to from there. */
bool bkm_graph_reach(bkm_graph *graph, uint8_t *found);
/* found[node] = 1 for those from which edges lead back to them; all start with 0. */
bool bkm_graph_cycles(bkm_graph *graph, uint8_t *found);
void bkm_graph_free(bkm_graph *graph);

#endif
