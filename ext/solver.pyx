"""Recognizes what nearly all JSON values in cache.db are. The stub documents types."""

from libc.stdint cimport uint8_t

from buildkit_migrate._native.bolt cimport Column
from buildkit_migrate._native.columns cimport Mask, column_of, new_mask
from core_spans cimport bkm_spans


cdef extern from "columns/solver.h" nogil:
    void bkm_plain_results(const bkm_spans *values, const bkm_spans *ids, uint8_t *found)
    void bkm_plain_links(const bkm_spans *texts, uint8_t *found)


def plain_results(values, ids):
    """Rows with `{"CreatedAt":"...","ID":"..."}`, a time and the row's id, written as the daemon does.

    Raises ValueError if the columns differ in length.
    """
    cdef Column left = column_of(values), right = column_of(ids)
    left.idle()
    right.idle()
    if left.spans.count != right.spans.count:
        raise ValueError("columns of different lengths")
    cdef Mask found = new_mask(left.spans.count)
    with nogil:
        bkm_plain_results(&left.spans, &right.spans, found.flags)
    return found


def plain_links(texts):
    """Rows with some of `{"Input":1,"Output":2,"Digest":"...","Selector":"..."}`, in this order.

    Strings with anything else than letters, digits and `_:+.-` are not among them, nor are large numbers.
    """
    cdef Column entries = column_of(texts)
    entries.idle()
    cdef Mask found = new_mask(entries.spans.count)
    with nogil:
        bkm_plain_links(&entries.spans, found.flags)
    return found
