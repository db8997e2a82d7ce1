"""Directed edges between rows. The stub documents types."""

cimport cython
from cpython cimport array as c_array
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcpy

from buildkit_migrate._native.columns cimport Mask, new_mask, rows_of
from buildkit_migrate._native.guard cimport Guarded
from core_column cimport BKM_MAX_ROWS

cdef extern from "columns/graph.h" nogil:
    ctypedef struct bkm_graph:
        size_t nodes
        size_t count  # of edges

    bint bkm_graph_add(bkm_graph *graph, int32_t source, int32_t target)
    bint bkm_graph_reach(bkm_graph *graph, uint8_t *found)
    bint bkm_graph_cycles(bkm_graph *graph, uint8_t *found)
    void bkm_graph_free(bkm_graph *graph)


@cython.final
cdef class Graph(Guarded):
    """A directed graph of nodes 0, 1, ... `size` - 1. A base added to rows distinguishes several tables."""

    cdef bkm_graph graph

    def __init__(self, Py_ssize_t size):
        self.begin()
        if size < 0 or <size_t>size > BKM_MAX_ROWS:
            raise ValueError("a graph can't have so many nodes")
        self.graph.nodes = size
        self.leave()

    def __dealloc__(self):
        bkm_graph_free(&self.graph)

    @property
    def size(self):
        """Number of nodes."""
        self.idle()
        return self.graph.nodes

    def add(self, sources, targets, *, Py_ssize_t source_base=0, Py_ssize_t target_base=0):
        """Adds an edge from each of `sources` to the corresponding one of `targets`.

        None, for one of them, stands for 0, 1, 2, ... Pairs with a negative row (NOT_FOUND, ABSENT) are left
        out. Raises IndexError for a node that does not exist, ValueError for columns of different lengths;
        then no edge is added.
        """
        cdef c_array.array starts = None if sources is None else rows_of(sources)
        cdef c_array.array ends = None if targets is None else rows_of(targets)
        cdef Py_ssize_t count = len(starts) if ends is None else len(ends), at
        cdef Py_ssize_t source, target, nodes = self.graph.nodes
        cdef size_t before = self.graph.count
        self.idle()  # only now: reading the columns may have run Python code, and other threads
        if starts is not None and len(starts) != count:
            raise ValueError("columns of different lengths")
        if source_base < 0 or target_base < 0 or source_base > nodes or target_base > nodes:
            raise IndexError("node out of range")
        try:
            for at in range(count):
                source = at if starts is None else starts.data.as_ints[at]
                target = at if ends is None else ends.data.as_ints[at]
                if source < 0 or target < 0:
                    continue
                if source + source_base >= nodes or target + target_base >= nodes:
                    raise IndexError("node out of range")
                if not bkm_graph_add(&self.graph, source + source_base, target + target_base):
                    raise MemoryError
        except BaseException:
            self.graph.count = before
            raise

    def reached(self, Mask start not None):
        """`start` and all nodes that can be reached from there."""
        start.idle()
        if start.rows != <Py_ssize_t>self.graph.nodes:
            raise ValueError("a mask of a table of another size")
        cdef Mask found = new_mask(start.rows)
        cdef bint ok
        memcpy(found.flags, start.flags, start.rows)
        self.enter()
        try:
            with nogil:
                ok = bkm_graph_reach(&self.graph, found.flags)
        finally:
            self.leave()
        if not ok:
            raise MemoryError
        return found

    def cyclic(self):
        """All nodes that can be reached from themselves, through one or more edges."""
        cdef Mask found
        cdef bint ok
        self.enter()
        try:
            found = new_mask(self.graph.nodes)
            with nogil:
                ok = bkm_graph_cycles(&self.graph, found.flags)
        finally:
            self.leave()
        if not ok:
            raise MemoryError
        return found
