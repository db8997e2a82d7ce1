#include "columns/graph.h"

#include <stdlib.h>

#include "core/array.h"
#include "core/column.h"

bool bkm_graph_add(bkm_graph *graph, int32_t source, int32_t target)
{
    if (!bkm_array_room(&graph->edges, &graph->capacity, graph->count + 1, sizeof *graph->edges, 1024))
        return false;
    free(graph->first);
    free(graph->targets);
    graph->first = NULL;
    graph->targets = NULL;
    graph->edges[graph->count++] = (bkm_edge){source, target};
    return true;
}

/* Sorts the targets by source (counting sort). */
static bool arrange(bkm_graph *graph)
{
    if (graph->first)
        return true;
    size_t *first = bkm_column(graph->nodes + 2, sizeof *first);
    int32_t *targets = bkm_column(graph->count, sizeof *targets);
    if (!first || !targets) {
        free(first);
        free(targets);
        return false;
    }
    memset(first, 0, (graph->nodes + 2) * sizeof *first);
    for (size_t i = 0; i < graph->count; i++)
        first[graph->edges[i].source + 2]++;
    for (size_t node = 2; node < graph->nodes + 2; node++)
        first[node] += first[node - 1];
    for (size_t i = 0; i < graph->count; i++)
        targets[first[graph->edges[i].source + 1]++] = graph->edges[i].target;
    graph->first = first;
    graph->targets = targets;
    return true;
}

bool bkm_graph_reach(bkm_graph *graph, uint8_t *found)
{
    if (!arrange(graph))
        return false;
    int32_t *waiting = bkm_column(graph->nodes, sizeof *waiting);
    size_t count = 0;
    if (!waiting)
        return false;
    for (size_t node = 0; node < graph->nodes; node++)
        if (found[node])
            waiting[count++] = (int32_t)node;
    while (count) {
        int32_t node = waiting[--count];
        for (size_t at = graph->first[node]; at < graph->first[node + 1]; at++) {
            int32_t target = graph->targets[at];
            if (!found[target]) {
                found[target] = 1;
                waiting[count++] = target;
            }
        }
    }
    free(waiting);
    return true;
}

/* ---- Tarjan's algorithm, without recursion, as paths may be long ---- */

typedef struct {
    const bkm_graph *graph;
    uint8_t *found;
    int32_t *low;     /* 0: not seen yet */
    size_t *next;     /* each node's next edge to follow */
    int32_t *path;
    int32_t *stack;   /* nodes whose component is not complete yet */
    size_t path_size, stack_size;
    int32_t counter;
} search;

#define SETTLED INT32_MAX

static void enter(search *search, int32_t node)
{
    search->low[node] = ++search->counter;
    search->next[node] = search->graph->first[node];
    search->path[search->path_size++] = node;
    search->stack[search->stack_size++] = node;
}

static bool leads_to_itself(const search *search, int32_t node)
{
    for (size_t at = search->graph->first[node]; at < search->graph->first[node + 1]; at++)
        if (search->graph->targets[at] == node)
            return true;
    return false;
}

/* Pops a strongly connected component, whose first node is `node`. */
static void settle(search *search, int32_t node)
{
    bool alone = search->stack[search->stack_size - 1] == node;
    uint8_t cyclic = !alone || leads_to_itself(search, node);
    int32_t member;
    do {
        member = search->stack[--search->stack_size];
        search->low[member] = SETTLED;
        search->found[member] = cyclic;
    } while (member != node);
}

/* Takes one step from the end of the path. `number`: the order in which nodes were seen; low[] changes. */
static void step(search *search, int32_t *number)
{
    int32_t node = search->path[search->path_size - 1];
    while (search->next[node] < search->graph->first[node + 1]) {
        int32_t target = search->graph->targets[search->next[node]];
        if (!search->low[target]) {
            enter(search, target);
            number[target] = search->low[target];
            return; /* later continues with the same edge */
        }
        if (search->low[target] < search->low[node])
            search->low[node] = search->low[target];
        search->next[node]++;
    }
    search->path_size--;
    if (search->low[node] == number[node])
        settle(search, node);
}

bool bkm_graph_cycles(bkm_graph *graph, uint8_t *found)
{
    if (!arrange(graph))
        return false;
    size_t nodes = graph->nodes;
    search search = {
        .graph = graph,
        .found = found,
        .low = bkm_column(nodes, sizeof(int32_t)),
        .next = bkm_column(nodes, sizeof(size_t)),
        .path = bkm_column(nodes, sizeof(int32_t)),
        .stack = bkm_column(nodes, sizeof(int32_t)),
    };
    int32_t *number = bkm_column(nodes, sizeof *number);
    bool ok = search.low && search.next && search.path && search.stack && number;
    if (ok) {
        memset(search.low, 0, nodes * sizeof(int32_t));
        for (size_t root = 0; root < nodes; root++) {
            if (search.low[root])
                continue;
            enter(&search, (int32_t)root);
            number[root] = search.low[root];
            while (search.path_size)
                step(&search, number);
        }
    }
    free(search.low);
    free(search.next);
    free(search.path);
    free(search.stack);
    free(number);
    return ok;
}

void bkm_graph_free(bkm_graph *graph)
{
    free(graph->edges);
    free(graph->first);
    free(graph->targets);
    *graph = (bkm_graph){0};
}
