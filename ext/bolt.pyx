"""Python face of the bbolt reader, builder, rewrite, scan and check. The stub documents it."""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from buildkit_migrate._native.guard cimport Guarded, GuardedIterator

from buildkit_migrate.errors import CorruptDatabaseError, EditConflictError


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

cdef extern from "bolt/reader.h" nogil:
    bint bkm_bolt_open(bkm_bolt *bolt, const uint8_t *data, uint64_t size)
    bint bkm_bolt_open_previous(bkm_bolt *bolt, const uint8_t *data, uint64_t size)
    void bkm_bolt_close(bkm_bolt *bolt)
    const char *bkm_rule_text(bkm_rule rule)
    bkm_rule BKM_NO_MEMORY
    bkm_rule BKM_INTERRUPTED
    bkm_bucket bkm_root_bucket(const bkm_bolt *bolt)
    bint bkm_bucket_decode(bkm_bolt *bolt, bkm_span value, uint64_t page, bkm_bucket *bucket)
    bint bkm_bucket_find(bkm_bolt *bolt, const bkm_bucket *bucket, bkm_span key, bkm_item *item,
                         c_bool *found)
    bint bkm_bucket_descend(bkm_bolt *bolt, const bkm_bucket *bucket, const bkm_span *path, size_t depth,
                            bkm_bucket *inner, c_bool *found)
    bint bkm_cursor_seek(bkm_cursor *cursor, bkm_bolt *bolt, const bkm_bucket *bucket, bkm_span start)
    bint bkm_cursor_next(bkm_cursor *cursor)
    bint bkm_cursor_end(const bkm_cursor *cursor)
    bkm_item bkm_cursor_item(const bkm_cursor *cursor)
    uint64_t bkm_cursor_page(const bkm_cursor *cursor)

cdef extern from "bolt/builder.h" nogil:
    ctypedef c_bool (*bkm_sink)(void *context, bkm_block *block, size_t size, size_t wanted)
    const char *bkm_build_status_text(bkm_build_status status)
    bkm_builder *bkm_builder_new(uint32_t page_size, uint32_t fill, bkm_sink sink, void *context)
    void bkm_builder_free(bkm_builder *builder)
    bint bkm_builder_open(bkm_builder *builder, bkm_span key, uint64_t sequence)
    bint bkm_builder_put(bkm_builder *builder, bkm_span key, bkm_span value)
    bint bkm_builder_close(bkm_builder *builder)
    bint bkm_builder_finish(bkm_builder *builder, uint8_t *metas, uint64_t transaction)

cdef extern from "bolt/rewrite.h" nogil:
    ctypedef enum bkm_rewrite_status:
        BKM_REWRITE_OK
        BKM_REWRITE_READ
        BKM_REWRITE_BUILD
        BKM_REWRITE_REFILL
        BKM_REWRITE_MALFORMED
        BKM_REWRITE_CONFLICT
    ctypedef struct bkm_rewrite_result:
        bkm_rewrite_status status
        bkm_span key
        uint64_t changes
    ctypedef struct bkm_edits:
        const uint8_t *data
        size_t size
        size_t at
        c_bool (*refill)(bkm_edits *edits)
        void *context
    bkm_rewrite_result bkm_rewrite(bkm_bolt *bolt, const bkm_bucket *source, bkm_builder *builder,
                                   bkm_edits *edits)

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
    ctypedef c_bool (*bkm_report)(void *context, uint64_t page, const char *text)
    bint bkm_check(bkm_bolt *bolt, bkm_report report, void *context)


@cython.final
cdef class Column(Guarded):
    def __cinit__(self):
        self.spans = NULL
        self.count = 0

    def __dealloc__(self):
        free(self.spans)

    @staticmethod
    cdef Column adopt(bkm_span *spans, Py_ssize_t count, object owner):
        cdef Column column = Column.__new__(Column)
        column.spans = spans
        column.count = count
        column.owner = owner
        column.leave()
        return column

    def __len__(self):
        self.idle()
        return self.count

    def __getitem__(self, Py_ssize_t index):
        self.idle()
        if index < 0:
            index += self.count
        if index < 0 or index >= self.count:
            raise IndexError("column index out of range")
        if self.spans[index].data == NULL:
            return None
        return to_bytes(self.spans[index])

    def __iter__(self):
        cdef Py_ssize_t index
        for index in range(len(self)):
            yield self[index]


cdef c_bool handle_signals(void *context) noexcept nogil:
    with gil:
        return (<Reader>context).handle_signals()


@cython.final
cdef class Reader(Guarded):
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
        return self.bolt.page_size

    @property
    def high_water(self):
        return self.bolt.high_water

    @property
    def transaction(self):
        return self.bolt.transaction

    @property
    def freelist(self):
        return None if self.bolt.freelist == BKM_NO_FREELIST else self.bolt.freelist

    @property
    def other_meta(self):
        return bkm_rule_text(self.bolt.other_meta).decode()

    @property
    def root(self):
        return make_bucket(self, bkm_root_bucket(&self.bolt))


cdef Bucket make_bucket(Reader reader, bkm_bucket handle):
    cdef Bucket bucket = Bucket.__new__(Bucket, reader)
    bucket.handle = handle
    bucket.leave()
    return bucket


@cython.final
cdef class Bucket(Guarded):
    def __cinit__(self, Reader reader not None):
        # Valid from the start, however it is made: the root bucket.
        self.reader = reader
        self.handle = bkm_root_bucket(&reader.bolt)

    @property
    def sequence(self):
        return self.handle.sequence

    def get(self, bytes key not None):
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


cdef enum:
    ALIGNMENT = 4096      # of blocks; what the system asks of memory that goes to a disk directly
    BLOCK_SIZE = 4 << 20  # bytes; large enough for a disk to work at ease and for the calls to cost nothing


@cython.final
cdef class _Block:
    """Memory that a builder fills, and a view of which its sink gets."""

    def __cinit__(self, size_t size):
        size = (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        self.block.data = <uint8_t *>aligned_alloc(ALIGNMENT, size)
        if self.block.data == NULL:
            raise MemoryError
        self.block.capacity = size

    def __dealloc__(self):
        free(self.block.data)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.block.data, <Py_ssize_t>self.block.capacity, 1, flags)


cdef c_bool call_sink(void *context, bkm_block *block, size_t size, size_t wanted) noexcept nogil:
    with gil:
        return (<Builder>context).give(block, size, wanted)


@cython.final
cdef class Builder(Guarded):
    def __cinit__(self, sink, uint32_t page_size=4096, double fill=0.9):
        if page_size < 1024 or page_size > 16 << 20 or page_size & (page_size - 1):
            raise ValueError("page_size must be a power of two from 1024 to 16 MiB")
        if not 0.5 <= fill <= 1.0:
            raise ValueError("fill must be from 0.5 to 1.0")
        self.sink = sink
        self.page_size = page_size
        self.builder = bkm_builder_new(page_size, <uint32_t>(page_size * fill), call_sink, <void *>self)
        if self.builder == NULL:
            raise MemoryError

    def __dealloc__(self):
        bkm_builder_free(self.builder)

    cdef bint give(self, bkm_block *block, size_t size, size_t wanted):
        try:
            if size:
                self.sink(memoryview(self.block)[:size])
            if wanted:
                self.block, self.other = self.other, self.block
                if self.block is None or self.block.block.capacity < wanted:
                    self.block = _Block(max(wanted, <size_t>BLOCK_SIZE))
                block[0] = self.block.block
            return True
        except BaseException as error:
            self.sink_error = error
            return False

    cdef object failure(self):
        cdef bkm_build_status status = bkm_builder_status(self.builder)
        if status == BKM_BUILD_SINK_FAILED:
            return self.sink_error
        if status == BKM_BUILD_NO_MEMORY:
            return MemoryError()
        return ValueError(bkm_build_status_text(status).decode())

    def open_bucket(self, bytes key not None, uint64_t sequence=0):
        cdef bkm_span name = to_span(key)
        self.enter()
        try:
            if not bkm_builder_open(self.builder, name, sequence):
                raise self.failure()
        finally:
            self.leave()

    def put(self, bytes key not None, bytes value not None):
        cdef bkm_span name = to_span(key)
        cdef bkm_span content = to_span(value)
        self.enter()
        try:
            if not bkm_builder_put(self.builder, name, content):
                raise self.failure()
        finally:
            self.leave()

    def close_bucket(self):
        self.enter()
        try:
            if not bkm_builder_close(self.builder):
                raise self.failure()
        finally:
            self.leave()

    def finish(self, uint64_t transaction=2):
        if transaction < 2 or transaction == <uint64_t>-1:
            raise ValueError("transaction must be from 2 to 2**64 - 2")
        cdef bytes metas = PyBytes_FromStringAndSize(NULL, 2 * <Py_ssize_t>self.page_size)
        self.enter()
        try:
            if not bkm_builder_finish(self.builder, <uint8_t *><char *>metas, transaction):
                raise self.failure()
        finally:
            self.leave()
        return metas


@cython.final
cdef class _EditSource:
    """Feeds the chunks of a Python iterator to the native rewrite."""

    cdef object chunks
    cdef bytes chunk
    cdef object error
    cdef Reader reader      # of the rewrite's source; None if it has none
    cdef bint holds_reader

    def __cinit__(self, edits, Reader reader):
        self.chunks = iter(edits)
        self.reader = reader

    cdef int enter_reader(self) except -1:
        if self.reader is not None:
            self.reader.enter()
            self.holds_reader = True
        return 0

    cdef void leave_reader(self) noexcept:
        if self.holds_reader:
            self.reader.leave()
            self.holds_reader = False

    cdef bint next_chunk(self, bkm_edits *edits):
        # The edits of a plan are made from the file that is rewritten.
        self.leave_reader()
        try:
            self.chunk = self.made()
            self.enter_reader()
        except BaseException as error:
            self.error = error
            return False
        edits.data = <const uint8_t *><const char *>self.chunk
        edits.size = <size_t>len(self.chunk)
        return True

    cdef bytes made(self):
        """The next chunk that is not empty; an empty one at the end."""
        for chunk in self.chunks:
            if type(chunk) is not bytes:
                raise TypeError(f"a chunk of edits is bytes, not {type(chunk).__name__}")
            if chunk:
                return chunk
        return b""


cdef c_bool refill(bkm_edits *edits) noexcept nogil:
    with gil:
        return (<_EditSource>edits.context).next_chunk(edits)


def rewrite(Bucket source, Builder builder not None, edits):
    cdef _EditSource chunks = _EditSource(edits, None if source is None else source.reader)
    cdef bkm_edits stream
    cdef bkm_rewrite_result result
    cdef bkm_bolt *bolt = NULL
    cdef const bkm_bucket *bucket = NULL
    stream.data = <const uint8_t *>b""
    stream.size = 0
    stream.at = 0
    stream.refill = refill
    stream.context = <void *>chunks
    if source is not None:
        bolt = &source.reader.bolt
        bucket = &source.handle
    chunks.enter_reader()
    try:
        builder.enter()
        with nogil:
            result = bkm_rewrite(bolt, bucket, builder.builder, &stream)
        # A builder remembers its own failures; of others it does not know that it has half of a file.
        if result.status == BKM_REWRITE_OK or result.status == BKM_REWRITE_BUILD:
            builder.leave()
        else:
            builder.fail()
        if result.status == BKM_REWRITE_READ:
            raise source.reader.failure()
    finally:
        chunks.leave_reader()
    if result.status == BKM_REWRITE_BUILD:
        raise builder.failure()
    if result.status == BKM_REWRITE_REFILL:
        raise chunks.error
    if result.status == BKM_REWRITE_MALFORMED:
        raise ValueError("malformed edit stream")
    if result.status == BKM_REWRITE_CONFLICT:
        key = to_bytes(result.key).decode(errors="backslashreplace")
        where = source.reader.path if source is not None else ""
        raise EditConflictError(
            f"{where}: key {key!r} is a bucket where a value is needed, or the other way round"
        )
    return result.changes


def scan(Bucket bucket not None, paths):
    cdef list steps = [tuple(path) for path in paths]
    cdef size_t total = sum(len(path) for path in steps)
    if any(not path for path in steps):
        raise ValueError("a path needs at least one step")
    cdef bkm_path *native = <bkm_path *>calloc(len(steps) + 1, sizeof(bkm_path))
    cdef bkm_span *spans = <bkm_span *>malloc((total + 1) * sizeof(bkm_span))
    cdef bkm_table table
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
        names = Column.adopt(table.names, table.rows, bucket.reader)
        table.names = NULL
        columns = []
        for i in range(table.column_count):
            column = Column.adopt(table.columns[i], table.rows, bucket.reader)
            table.columns[i] = NULL
            columns.append(column)
        return names, columns
    finally:
        bkm_table_free(&table)
        free(native)
        free(spans)


@cython.final
cdef class _Findings:
    """What `check` has found so far, and what kept it from noting a finding."""

    cdef list found
    cdef object error

    def __cinit__(self):
        self.found = []

    cdef bint add(self, uint64_t page, const char *text):
        try:
            self.found.append((-1 if page == BKM_NO_PAGE else page, text.decode()))
        except BaseException as error:
            self.error = error
            return False
        return True


cdef c_bool collect(void *context, uint64_t page, const char *text) noexcept nogil:
    with gil:
        return (<_Findings>context).add(page, text)


def check(Reader reader not None):
    cdef _Findings findings = _Findings()
    cdef bint ok
    reader.enter()
    try:
        with nogil:
            ok = bkm_check(&reader.bolt, collect, <void *>findings)
        if not ok:
            raise reader.failure() if findings.error is None else findings.error
    finally:
        reader.leave()
    return findings.found
