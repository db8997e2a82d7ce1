"""Columns of numbers and times as containerd stores them. The stub documents types."""

from cpython cimport array as c_array
from libc.stdint cimport int8_t, int64_t, uint8_t

from buildkit_migrate._native.bolt cimport Column
from buildkit_migrate._native.columns cimport Mask, column_of, new_mask
from core_spans cimport bkm_spans

from array import array as _array


cdef extern from "columns/numbers.h" nogil:
    void bkm_read_numbers(const bkm_spans *column, bint with_sign, int64_t *values, uint8_t *known)
    void bkm_read_times(const bkm_spans *column, int64_t *values, uint8_t *known, uint8_t *broken)
    void bkm_read_links(const bkm_spans *column, int64_t *parents, int64_t *children, uint8_t *broken)
    void bkm_read_bytes(const bkm_spans *column, uint8_t last, int8_t *values)


cdef c_array.array NUMBERS = _array("q")
cdef c_array.array BYTES = _array("b")


def integers(column, bint signed):
    """Decodes base-128 numbers: (values, known). Unsigned ones above 2^63 - 1 become 2^63 - 1.

    Values: an array of type code "q". The mask `known` has the rows that could be decoded; others are 0.
    """
    cdef Column entries = column_of(column)
    entries.idle()
    cdef c_array.array values = c_array.clone(NUMBERS, entries.spans.count, False)
    cdef Mask known = new_mask(entries.spans.count)
    with nogil:
        bkm_read_numbers(&entries.spans, signed, <int64_t *>values.data.as_longlongs, known.flags)
    return values, known


def times(column):
    """Decodes times: (values, known, broken).

    Values: an array of type code "q", in nanoseconds since 1970 or the nearest number that fits. `known` has
    the rows that could be decoded, `broken` those with anything else. Values that are not known are 0.
    """
    cdef Column entries = column_of(column)
    entries.idle()
    cdef c_array.array values = c_array.clone(NUMBERS, entries.spans.count, False)
    cdef Mask known = new_mask(entries.spans.count), broken = new_mask(entries.spans.count)
    with nogil:
        bkm_read_times(&entries.spans, <int64_t *>values.data.as_longlongs, known.flags, broken.flags)
    return values, known, broken


def small(column, uint8_t last):
    """Decodes single bytes up to `last` (at most 127): an array of type code "b", 0 for anything else."""
    cdef Column entries = column_of(column)
    entries.idle()
    if last > 127:
        raise ValueError("a number of a byte is at most 127 here")
    cdef c_array.array values = c_array.clone(BYTES, entries.spans.count, False)
    with nogil:
        bkm_read_bytes(&entries.spans, last, <int8_t *>values.data.as_schars)
    return values


def links(column):
    """Decodes keys of a snapshotter's bucket `parents`: (ids of parents, ids of children, broken).

    Ids: arrays of type code "q", 0 where the key is `broken`.
    """
    cdef Column entries = column_of(column)
    entries.idle()
    cdef c_array.array parents = c_array.clone(NUMBERS, entries.spans.count, False)
    cdef c_array.array children = c_array.clone(NUMBERS, entries.spans.count, False)
    cdef Mask broken = new_mask(entries.spans.count)
    with nogil:
        bkm_read_links(
            &entries.spans,
            <int64_t *>parents.data.as_longlongs,
            <int64_t *>children.data.as_longlongs,
            broken.flags,
        )
    return parents, children, broken
