"""Writing bbolt files: from scratch, or by rewriting another one with edits. Types are in the stub."""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from buildkit_migrate._native.bolt cimport Bucket, Reader
from buildkit_migrate._native.guard cimport Guarded
from bolt_builder cimport (
    BKM_BUILD_NO_MEMORY,
    BKM_BUILD_SINK_FAILED,
    bkm_block,
    bkm_build_status,
    bkm_build_status_text,
    bkm_builder,
    bkm_builder_close,
    bkm_builder_finish,
    bkm_builder_free,
    bkm_builder_new,
    bkm_builder_open,
    bkm_builder_put,
    bkm_builder_status,
    bkm_ending,
)
from bolt_reader cimport bkm_bolt, bkm_bucket, c_bool
from core_span cimport bkm_span, to_bytes, to_span

from buildkit_migrate.errors import EditConflictError


cdef extern from "<stdlib.h>" nogil:
    void *aligned_alloc(size_t alignment, size_t size)

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

cdef extern from "bolt/compare.h" nogil:
    ctypedef enum bkm_comparison:
        BKM_SAME
        BKM_DIFFERENT
        BKM_LEFT_UNREADABLE
        BKM_RIGHT_UNREADABLE
        BKM_MALFORMED_EDITS
    bkm_comparison bkm_compare(bkm_bolt *left, bkm_bolt *right, bkm_span edits)


cdef enum:
    ALIGNMENT = 4096      # of blocks, as direct I/O requires
    BLOCK_SIZE = 4 << 20  # bytes; large enough to keep a disk busy and make the cost of calls negligible


@cython.final
cdef class _Block:
    """Memory that a builder fills and passes to its sink as a view."""

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
    """Writes one bbolt file bottom-up, from front to back (spec bbolt-format, section 13).

    `sink` is called with blocks of bytes, in file order. The first block begins with two pages of zeros, to
    be overwritten with the meta pages that `finish` returns. A block's length is a multiple of the page size,
    and its address a multiple of 4096; it does not change until the sink's next call but one returns. Keys
    must be added in byte order within a bucket; otherwise ValueError is raised. `fill` is the share of a page
    to fill, 0.5 to 1.0. After a failure every later call raises the same error.
    """

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
                self.block, self.last, self.other = self.other, self.block, self.last
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
        """Opens a bucket inside the current one; keys and buckets go into it until it is closed."""
        cdef bkm_span name = to_span(key)
        self.enter()
        try:
            if not bkm_builder_open(self.builder, name, sequence):
                raise self.failure()
        finally:
            self.leave()

    def put(self, bytes key not None, bytes value not None):
        """Adds a key and its value to the current bucket."""
        cdef bkm_span name = to_span(key)
        cdef bkm_span content = to_span(value)
        self.enter()
        try:
            if not bkm_builder_put(self.builder, name, content):
                raise self.failure()
        finally:
            self.leave()

    def close_bucket(self):
        """Closes the innermost open bucket."""
        self.enter()
        try:
            if not bkm_builder_close(self.builder):
                raise self.failure()
        finally:
            self.leave()

    def finish(self, uint64_t transaction=2, *, uint64_t sequence=0, bint free_list=True):
        """Completes the file. Returns the bytes of pages 0 and 1, which belong at offset 0.

        `transaction`: the file's transaction number. It is 2 for a new file; a file that replaces another
        takes the number after the other's, so that the two can't be confused. `sequence`: of the root bucket.
        `free_list`: store one, though it is empty; bbolt can be told to work without.
        """
        if transaction < 2 or transaction == <uint64_t>-1:
            raise ValueError("transaction must be from 2 to 2**64 - 2")
        cdef bytes metas = PyBytes_FromStringAndSize(NULL, 2 * <Py_ssize_t>self.page_size)
        cdef bkm_ending ending
        ending.transaction = transaction
        ending.sequence = sequence
        ending.freelist = free_list
        self.enter()
        try:
            if not bkm_builder_finish(self.builder, <uint8_t *><char *>metas, ending):
                raise self.failure()
        finally:
            self.leave()
        return metas


@cython.final
cdef class _EditSource:
    """Feeds chunks from a Python iterator to the native rewrite."""

    cdef object chunks
    cdef bytes chunk
    cdef object error
    cdef Reader reader      # reader of the source; None if there is no source
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
        # A plan reads the file that is being rewritten while it produces edits.
        self.leave_reader()
        try:
            self.chunk = self.next_nonempty()
            self.enter_reader()
        except BaseException as error:
            self.error = error
            return False
        edits.data = <const uint8_t *><const char *>self.chunk
        edits.size = <size_t>len(self.chunk)
        return True

    cdef bytes next_nonempty(self):
        """The next non-empty chunk; an empty one at the end."""
        for chunk in self.chunks:
            if type(chunk) is not bytes:
                raise TypeError(f"a chunk of edits must be bytes, not {type(chunk).__name__}")
            if chunk:
                return chunk
        return b""


cdef c_bool refill(bkm_edits *edits) noexcept nogil:
    with gil:
        return (<_EditSource>edits.context).next_chunk(edits)


def rewrite(Bucket source, Builder builder not None, edits):
    """Copies the tree below `source` into `builder`, with edits. Returns how many edits changed something.

    `edits`: chunks of whole operations, sorted (see `buildkit_migrate.bolt.edits`). Errors of the iterator,
    and of the builder's sink, are passed on unchanged. After a failure the builder can't be used any more
    (RuntimeError).
    """
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
        # A builder remembers its own failures, but does not know of others, which leave it with half a file.
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
            f"{where}: key {key!r} is a bucket where a value is needed, or vice versa"
        )
    return result.changes


def same_content(Reader left not None, Reader right not None, bytes edits not None=b""):
    """Whether two databases hold the same: all buckets, keys, values and sequences.

    `edits`: a whole stream (see `buildkit_migrate.bolt.edits`); what it makes of `left` is compared with
    `right`. The readers must be two. Raises `errors.CorruptDatabaseError` at a damaged page of either,
    ValueError if the edits can't be made. Releases the GIL.
    """
    cdef bkm_comparison found
    cdef bkm_span stream = to_span(edits)
    left.enter()
    try:
        right.enter()
        try:
            with nogil:
                found = bkm_compare(&left.bolt, &right.bolt, stream)
            if found == BKM_LEFT_UNREADABLE:
                raise left.failure()
            if found == BKM_RIGHT_UNREADABLE:
                raise right.failure()
        finally:
            right.leave()
    finally:
        left.leave()
    if found == BKM_MALFORMED_EDITS:
        raise ValueError("malformed edit stream, or a value where a bucket is, or vice versa")
    return found == BKM_SAME
