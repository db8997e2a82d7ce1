"""Buckets whose child buckets are rows, with all columns read in one walk. The stub documents types."""

from cpython cimport array as c_array
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from buildkit_migrate._native.bolt cimport Bucket, Column
from bolt_entries cimport bkm_entries
from bolt_reader cimport bkm_bolt, bkm_bucket
from core_span cimport bkm_span, to_span
from core_spans cimport bkm_spans

from array import array as _array


cdef extern from "bolt/rows.h" nogil:
    ctypedef struct bkm_place:
        const bkm_span *steps
        size_t depth

    ctypedef struct bkm_row_value:
        bkm_place place
        bkm_span key
        bkm_spans values

    ctypedef struct bkm_row_items:
        bkm_place place
        bkm_span prefix
        bkm_entries entries

    ctypedef struct bkm_rows:
        bkm_spans names
        bkm_row_value *values
        size_t value_count
        bkm_row_items *items
        size_t items_count

    bint bkm_rows_read(bkm_rows *rows, bkm_bolt *bolt, const bkm_bucket *bucket)
    void bkm_rows_free(bkm_rows *rows)


cdef c_array.array ROWS = _array("i")


cdef int put_steps(bkm_span *spans, tuple path) except -1:
    cdef size_t at
    for at, step in enumerate(path):
        spans[at] = to_span(step)
    return 0


def read(Bucket bucket not None, values, lists, *, bint keys_only=False):
    """Reads a bucket as a table: (names, columns, lists).

    Names: of its child buckets, the rows. `values`: paths within a row, for each of which there is a column;
    None where there is no such value. `lists`: pairs of a path and a prefix, for each of which there is
    (rows, keys, values): the items there whose keys start with the prefix, an array of type code "i" with the
    row of each, ascending, and two columns; values are None for buckets. `keys_only`: the columns of their
    values are empty. Raises ValueError for an empty path of a value, `errors.CorruptDatabaseError`.
    """
    cdef list paths = [tuple(path) for path in values]
    cdef list places = [(tuple(path), prefix) for path, prefix in lists]
    if not all(paths):
        raise ValueError("a path needs at least one step")
    cdef size_t total = sum(map(len, paths)) + sum(len(path) for path, _ in places), at = 0, i
    cdef bkm_rows rows
    cdef bkm_span *spans = <bkm_span *>calloc(total + 1, sizeof(bkm_span))
    cdef bint ok
    memset(&rows, 0, sizeof(bkm_rows))
    rows.value_count = <size_t>len(paths)
    rows.items_count = <size_t>len(places)
    rows.values = <bkm_row_value *>calloc(rows.value_count + 1, sizeof(bkm_row_value))
    rows.items = <bkm_row_items *>calloc(rows.items_count + 1, sizeof(bkm_row_items))
    try:
        if spans == NULL or rows.values == NULL or rows.items == NULL:
            rows.value_count = rows.items_count = 0
            raise MemoryError
        for i, path in enumerate(paths):
            put_steps(spans + at, path)
            rows.values[i].place.steps = spans + at
            rows.values[i].place.depth = <size_t>len(path) - 1
            at += <size_t>len(path)
            rows.values[i].key = spans[at - 1]
        for i, (path, prefix) in enumerate(places):
            put_steps(spans + at, path)
            rows.items[i].place.steps = spans + at
            rows.items[i].place.depth = <size_t>len(path)
            rows.items[i].prefix = to_span(prefix)
            rows.items[i].entries.keys_only = keys_only
            at += <size_t>len(path)
        bucket.reader.enter()
        try:
            with nogil:
                ok = bkm_rows_read(&rows, &bucket.reader.bolt, &bucket.handle)
            if not ok:
                raise bucket.reader.failure()
        finally:
            bucket.reader.leave()
        names = Column.adopt(&rows.names, bucket.reader)
        columns = [Column.adopt(&rows.values[i].values, bucket.reader) for i in range(rows.value_count)]
        return names, columns, [adopted(&rows.items[i].entries, bucket) for i in range(rows.items_count)]
    finally:
        bkm_rows_free(&rows)
        free(rows.values)
        free(rows.items)
        free(spans)


cdef tuple adopted(bkm_entries *entries, Bucket bucket):
    cdef c_array.array rows = c_array.clone(ROWS, entries.keys.count, False)
    if entries.keys.count:
        memcpy(rows.data.as_ints, entries.rows, entries.keys.count * sizeof(int))
    return rows, Column.adopt(&entries.keys, bucket.reader), Column.adopt(&entries.values, bucket.reader)
