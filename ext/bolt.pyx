"""Reading bbolt files in memory: buckets, scans, check. Types are in the stub."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from buildkit_migrate._native.guard cimport Guarded, GuardedIterator
from bolt_entries cimport bkm_entries, bkm_entries_free, bkm_entries_in
from bolt_reader cimport (
    BKM_INTERRUPTED,
    BKM_NO_FREELIST,
    BKM_NO_MEMORY,
    BKM_NO_PAGE,
    BKM_TOO_SHORT,
    BKM_TRUNCATED,
    BKM_WRONG_PAGE_FLAGS,
    bkm_bolt,
    bkm_bolt_close,
    bkm_bolt_open,
    bkm_bolt_open_previous,
    bkm_bucket,
    bkm_bucket_decode,
    bkm_bucket_descend,
    bkm_bucket_find,
    bkm_cursor,
    bkm_cursor_end,
    bkm_cursor_item,
    bkm_cursor_next,
    bkm_cursor_page,
    bkm_cursor_seek,
    bkm_item,
    bkm_root_bucket,
    bkm_rule_text,
    c_bool,
)
from core_span cimport bkm_span, to_bytes, to_span
from core_spans cimport bkm_spans, bkm_spans_adopt, bkm_spans_free, bkm_spans_get

from buildkit_migrate.errors import CorruptDatabaseError


cdef extern from "bolt/scan.h" nogil:
    ctypedef struct bkm_path:
        const bkm_span *steps
        size_t depth
    ctypedef struct bkm_table:
        size_t rows
        bkm_span *names
        bkm_span **columns
        size_t column_count
    bint bkm_scan(bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_path *paths, size_t path_count,
                  bkm_table *table)
    void bkm_table_free(bkm_table *table)

cdef extern from "bolt/check.h" nogil:
    ctypedef int bkm_part
    bkm_part BKM_IN_META
    bkm_part BKM_IN_FREELIST
    bkm_part BKM_IN_TREE
    bkm_part BKM_USED_AND_FREE
    bkm_part BKM_LEAKED
    enum:
        BKM_PARTS
    ctypedef struct bkm_counts:
        uint64_t *findings
        uint64_t used
        uint64_t content
    ctypedef c_bool (*bkm_report)(void *context, bkm_part part, uint64_t page, const char *text)
    bint bkm_check(bkm_bolt *bolt, bkm_report report, void *context, bkm_counts *counts)


@cython.final
cdef class Column(Guarded):
    """A read-only sequence of byte strings in memory that another object owns. Absent entries are None."""

    def __dealloc__(self):
        if not self.shared:
            bkm_spans_free(&self.spans)

    @staticmethod
    cdef Column share(bkm_spans *spans, object owner):
        cdef Column column = Column.__new__(Column)
        column.spans = spans[0]
        column.shared = True
        column.owner = owner
        column.leave()
        return column

    @staticmethod
    cdef Column adopt(bkm_spans *spans, object owner):
        cdef Column column = Column.__new__(Column)
        column.spans = spans[0]
        memset(spans, 0, sizeof(bkm_spans))
        column.owner = owner
        column.leave()
        return column

    def __len__(self):
        self.idle()
        return self.spans.count

    def __getitem__(self, Py_ssize_t index):
        self.idle()
        if index < 0:
            index += <Py_ssize_t>self.spans.count
        if index < 0 or index >= <Py_ssize_t>self.spans.count:
            raise IndexError("column index out of range")
        cdef bkm_span span = bkm_spans_get(&self.spans, index)
        return None if span.data == NULL else to_bytes(span)

    def __iter__(self):
        cdef Py_ssize_t index
        for index in range(len(self)):
            yield self[index]


cdef c_bool handle_signals(void *context) noexcept nogil:
    with gil:
        return (<Reader>context).handle_signals()


@cython.final
cdef class Reader(Guarded):
    """A bbolt file in memory. Opening checks the meta pages; other pages are checked when first read.

    `data` must not change while the reader, or anything made from it, exists. `previous`: read the state
    before the newest transaction. `path` is only used in error messages. Raises `errors.CorruptDatabaseError`
    (spec bbolt-format, section 14). Long reads handle signals from time to time, and raise what the handlers
    raise.
    """

    def __cinit__(self, data, str path="", bint previous=False):
        cdef const uint8_t *start = NULL
        cdef uint64_t size
        cdef bint opened
        self.path = path
        self.view = data
        if self.view.shape[0]:
            start = &self.view[0]
        size = <uint64_t>self.view.shape[0]
        if previous:
            opened = bkm_bolt_open_previous(&self.bolt, start, size)
        else:
            opened = bkm_bolt_open(&self.bolt, start, size)
        if not opened:
            raise self.failure()
        self.bolt.go_on = handle_signals
        self.bolt.context = <void *>self

    def __dealloc__(self):
        bkm_bolt_close(&self.bolt)

    cdef bint handle_signals(self):
        try:
            PyErr_CheckSignals()
        except BaseException as error:
            self.interrupt = error
            return False
        return True

    cdef object failure(self):
        if self.bolt.rule == BKM_INTERRUPTED:
            error, self.interrupt = self.interrupt, None
            return error
        if self.bolt.rule == BKM_NO_MEMORY:
            return MemoryError()
        cdef object page = -1 if self.bolt.rule_page == BKM_NO_PAGE else self.bolt.rule_page
        return CorruptDatabaseError(bkm_rule_text(self.bolt.rule).decode(), path=self.path, page=page)

    @property
    def page_size(self):
        """Page size in bytes."""
        return self.bolt.page_size

    @property
    def high_water(self):
        """Number of the first page after the pages in use."""
        return self.bolt.high_water

    @property
    def transaction(self):
        """Number of the transaction whose state is read."""
        return self.bolt.transaction

    @property
    def pages_read(self):
        """How many pages were read so far, those read twice counted twice. May be asked by any thread."""
        return self.bolt.pages_read

    @property
    def freelist(self):
        """Page number of the stored free list, None if there is none."""
        return None if self.bolt.freelist == BKM_NO_FREELIST else self.bolt.freelist

    @property
    def other_meta(self):
        """Why the other meta page is invalid; "" if it is valid."""
        return bkm_rule_text(self.bolt.other_meta).decode()

    @property
    def root(self):
        """The root bucket."""
        return make_bucket(self, bkm_root_bucket(&self.bolt))


cdef Bucket make_bucket(Reader reader, bkm_bucket handle):
    cdef Bucket bucket = Bucket.__new__(Bucket, reader)
    bucket.handle = handle
    bucket.leave()
    return bucket


@cython.final
cdef class Bucket(Guarded):
    """A bucket of the file of `reader`. The constructor returns the root bucket.

    Methods raise `errors.CorruptDatabaseError` when they meet a damaged page.
    """

    def __cinit__(self, Reader reader not None):
        # Valid from the start, however it is created: the root bucket.
        self.reader = reader
        self.handle = bkm_root_bucket(&reader.bolt)

    @property
    def sequence(self):
        """The bucket's sequence number, a counter that bbolt keeps for users."""
        return self.handle.sequence

    def get(self, bytes key not None):
        """The value under `key`; None if the key is missing or a bucket."""
        cdef bkm_item item
        cdef c_bool found = False
        cdef bkm_span name = to_span(key)
        cdef bint ok
        self.reader.enter()
        ok = bkm_bucket_find(&self.reader.bolt, &self.handle, name, &item, &found)
        self.reader.leave()
        if not ok:
            raise self.reader.failure()
        if not found or item.bucket:
            return None
        return to_bytes(item.value)

    def bucket(self, *path):
        """The bucket at `path` below this one; None if any step is missing or not a bucket."""
        cdef bkm_bucket handle = self.handle
        cdef bkm_bucket inner
        cdef bkm_span name
        cdef c_bool found = True
        cdef bint ok
        for step in path:
            name = to_span(step)
            self.reader.enter()
            ok = bkm_bucket_descend(&self.reader.bolt, &handle, &name, 1, &inner, &found)
            self.reader.leave()
            if not ok:
                raise self.reader.failure()
            if not found:
                return None
            handle = inner
        return make_bucket(self.reader, handle)

    def items(self, bytes start=b""):
        """Iterates over keys from `start` on, in byte order, each with its value or bucket."""
        return _Items(self, start)


@cython.final
cdef class _Items(GuardedIterator):
    """Iterator of `Bucket.items`."""

    cdef Reader reader
    cdef bkm_cursor cursor
    cdef bint started
    cdef bytes start
    cdef Bucket bucket

    def __cinit__(self, Bucket bucket not None, bytes start not None):
        self.reader = bucket.reader
        self.bucket = bucket
        self.start = start
        self.started = False

    cdef object step(self):
        cdef bint ok = True
        cdef bkm_span start
        if not self.started:
            self.started = True
            start = to_span(self.start)
            self.reader.enter()
            ok = bkm_cursor_seek(&self.cursor, &self.reader.bolt, &self.bucket.handle, start)
            self.reader.leave()
        elif not bkm_cursor_end(&self.cursor):
            self.reader.enter()
            ok = bkm_cursor_next(&self.cursor)
            self.reader.leave()
        if not ok:
            raise self.reader.failure()
        if bkm_cursor_end(&self.cursor):
            return None
        cdef bkm_item item = bkm_cursor_item(&self.cursor)
        cdef bkm_bucket inner
        if not item.bucket:
            return to_bytes(item.key), to_bytes(item.value)
        if not bkm_bucket_decode(&self.reader.bolt, item.value, bkm_cursor_page(&self.cursor), &inner):
            raise self.reader.failure()
        return to_bytes(item.key), make_bucket(self.reader, inner)


cdef Column adopt_array(bkm_span *array, size_t count, Reader reader):
    cdef bkm_spans spans
    cdef bint packed
    with nogil:
        packed = bkm_spans_adopt(&spans, array, count, reader.bolt.data)
    if not packed:
        raise MemoryError
    return Column.adopt(&spans, reader)


def scan(Bucket bucket not None, paths):
    """Reads a bucket as a table.

    Returns the names of its child buckets (the rows) and a column for each path.
    """
    cdef list steps = [tuple(path) for path in paths]
    cdef size_t total = sum(len(path) for path in steps)
    if any(not path for path in steps):
        raise ValueError("a path needs at least one step")
    cdef bkm_path *native = <bkm_path *>calloc(len(steps) + 1, sizeof(bkm_path))
    cdef bkm_span *spans = <bkm_span *>malloc((total + 1) * sizeof(bkm_span))
    cdef bkm_table table
    cdef bkm_span *array
    cdef size_t at = 0, i
    cdef bint ok
    table.columns = NULL
    table.names = NULL
    try:
        if native == NULL or spans == NULL:
            raise MemoryError
        for i, path in enumerate(steps):
            native[i].steps = spans + at
            native[i].depth = <size_t>len(path)
            for step in path:
                spans[at] = to_span(step)
                at += 1
        i = <size_t>len(steps)
        bucket.reader.enter()
        try:
            with nogil:
                ok = bkm_scan(&bucket.reader.bolt, &bucket.handle, native, i, &table)
            if not ok:
                raise bucket.reader.failure()
        finally:
            bucket.reader.leave()
        names = adopt_array(table.names, table.rows, bucket.reader)
        table.names = NULL
        columns = []
        for i in range(table.column_count):
            array, table.columns[i] = table.columns[i], NULL
            columns.append(adopt_array(array, table.rows, bucket.reader))
        return names, columns
    finally:
        bkm_table_free(&table)
        free(native)
        free(spans)


def items(Bucket bucket not None):
    """Keys and values of a bucket as columns; values are None for buckets."""
    cdef bkm_entries entries
    cdef bint ok
    bucket.reader.enter()
    try:
        with nogil:
            ok = bkm_entries_in(&entries, &bucket.reader.bolt, &bucket.handle)
        if not ok:
            raise bucket.reader.failure()
    finally:
        bucket.reader.leave()
    try:
        return Column.adopt(&entries.keys, bucket.reader), Column.adopt(&entries.values, bucket.reader)
    finally:
        bkm_entries_free(&entries)


@cython.final
cdef class _Findings:
    """What `check` has found so far, and the error that stopped it from recording a finding."""

    cdef list found
    cdef object error

    def __cinit__(self):
        self.found = []

    cdef bint add(self, int part, uint64_t page, const char *text):
        try:
            self.found.append((part, -1 if page == BKM_NO_PAGE else page, text.decode()))
        except BaseException as error:
            self.error = error
            return False
        return True


cdef c_bool collect(void *context, bkm_part part, uint64_t page, const char *text) noexcept nogil:
    with gil:
        return (<_Findings>context).add(part, page, text)


def check(Reader reader not None):
    """Returns every broken rule as (page number or -1, text); empty if the file is sound.

    Releases the GIL.
    """
    return [(page, text) for _, page, text in count_check(reader)[0]]


def count_check(Reader reader not None):
    """Like `check`, but with counts: (findings, findings per part, pages in use, content).

    Findings: (part, page number or -1, text), where the part is IN_META and so on. The numbers per part
    include findings that are left out of the list. Pages in use: those of the trees and the free list.
    Content: how many bytes of the trees' pages are headers, keys and values.
    """
    cdef _Findings findings = _Findings()
    cdef bkm_counts counts
    cdef bint ok
    cdef int part
    reader.enter()
    try:
        with nogil:
            ok = bkm_check(&reader.bolt, collect, <void *>findings, &counts)
        if not ok:
            raise reader.failure() if findings.error is None else findings.error
    finally:
        reader.leave()
    return findings.found, [counts.findings[part] for part in range(BKM_PARTS)], counts.used, counts.content


IN_META = BKM_IN_META
IN_FREE_LIST = BKM_IN_FREELIST
IN_TREE = BKM_IN_TREE
USED_AND_FREE = BKM_USED_AND_FREE
LEAKED = BKM_LEAKED

TOO_SHORT = bkm_rule_text(BKM_TOO_SHORT).decode()
TRUNCATED = bkm_rule_text(BKM_TRUNCATED).decode()
WRONG_PAGE_TYPE = bkm_rule_text(BKM_WRONG_PAGE_FLAGS).decode()
