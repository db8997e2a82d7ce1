"""Columns of numbers and times as containerd stores them, and arrays of numbers. The stub documents types."""

from cpython cimport array as c_array
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t

from buildkit_migrate._native.bolt cimport Column
from buildkit_migrate._native.columns cimport Mask, column_of, new_mask, rows_of, unshared
from columns_lookup cimport bkm_find_pairs
from core_spans cimport bkm_spans

from array import array as _array


cdef extern from "columns/numbers.h" nogil:
    void bkm_read_numbers(const bkm_spans *column, bint with_sign, int64_t *values, uint8_t *known)
    void bkm_read_times(const bkm_spans *column, int64_t *values, uint8_t *known, uint8_t *broken)
    void bkm_read_links(const bkm_spans *column, int64_t *parents, int64_t *children, uint8_t *broken)
    void bkm_read_counters(const bkm_spans *column, int64_t *values)
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


def counters(column):
    """The numbers in names of snapshots, `<namespace>/<number>/<key>`: an array of type code "q".

    0 where there is none, 2^63 - 1 where it is larger.
    """
    cdef Column entries = column_of(column)
    entries.idle()
    cdef c_array.array values = c_array.clone(NUMBERS, entries.spans.count, False)
    with nogil:
        bkm_read_counters(&entries.spans, <int64_t *>values.data.as_longlongs)
    return values


# --- Arrays of type code "i" (row numbers) or "q"

cdef bint is_wide(c_array.array numbers) except -1:
    if numbers.typecode not in "iq":
        raise ValueError("type codes are i and q here")
    return numbers.typecode == "q"


def gather(c_array.array numbers not None, rows):
    """The numbers at `rows`, in that order and of the same type; NOT_FOUND and ABSENT stay what they are.

    Raises IndexError for a row that there is not.
    """
    cdef bint wide = is_wide(numbers)
    cdef c_array.array places = rows_of(rows)
    cdef Py_ssize_t count = len(places), size = len(numbers), at
    cdef c_array.array found = c_array.clone(numbers, count, False)
    cdef int row
    for at in range(count):
        row = places.data.as_ints[at]
        if row >= size:
            raise IndexError("row out of range")
        if wide:
            found.data.as_longlongs[at] = numbers.data.as_longlongs[row] if row >= 0 else row
        else:
            found.data.as_ints[at] = numbers.data.as_ints[row] if row >= 0 else row
    return found


def chosen(c_array.array numbers not None, Mask mask not None):
    """The numbers at the rows of the mask, ascending by row, of the same type.

    Raises ValueError if there are more or fewer numbers than rows.
    """
    cdef bint wide = is_wide(numbers)
    cdef Py_ssize_t count = 0, at
    mask.idle()
    if mask.rows != len(numbers):
        raise ValueError("a mask of a table of another size")
    cdef c_array.array found = c_array.clone(numbers, len(mask), False)
    for at in range(mask.rows):
        if not mask.flags[at]:
            continue
        if wide:
            found.data.as_longlongs[count] = numbers.data.as_longlongs[at]
        else:
            found.data.as_ints[count] = numbers.data.as_ints[at]
        count += 1
    return found


def same(c_array.array left not None, c_array.array right not None):
    """Rows with the same number in both. Raises ValueError for arrays of different lengths or types."""
    cdef bint wide = is_wide(left)
    if wide != is_wide(right) or len(left) != len(right):
        raise ValueError("arrays of different lengths or types")
    cdef Mask found = new_mask(len(left))
    cdef Py_ssize_t at
    for at in range(found.rows):
        if wide:
            found.flags[at] = left.data.as_longlongs[at] == right.data.as_longlongs[at]
        else:
            found.flags[at] = left.data.as_ints[at] == right.data.as_ints[at]
    return found


def paired(left, right, other_left, other_right):
    """Rows whose pair of row numbers also occurs in some row of the other two arrays.

    Pairs with a negative number never do. Raises ValueError if the arrays of a pair differ in length.
    """
    cdef c_array.array a = unshared(rows_of(left), left), b = unshared(rows_of(right), right)
    cdef c_array.array c = unshared(rows_of(other_left), other_left)
    cdef c_array.array d = unshared(rows_of(other_right), other_right)
    cdef size_t count = len(a), others = len(c)
    cdef bint ok
    if count != <size_t>len(b) or others != <size_t>len(d):
        raise ValueError("arrays of different lengths")
    cdef Mask found = new_mask(count)
    with nogil:
        ok = bkm_find_pairs(
            <const int32_t *>a.data.as_ints,
            <const int32_t *>b.data.as_ints,
            count,
            <const int32_t *>c.data.as_ints,
            <const int32_t *>d.data.as_ints,
            others,
            found.flags,
        )
    if not ok:
        raise MemoryError
    return found
