"""Packed buckets, the entries of an LMDB store. Types are in the stub."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from buildkit_migrate._native.bolt cimport Bucket, Reader
from buildkit_migrate._native.building cimport Builder
from buildkit_migrate._native.guard cimport Guarded, GuardedIterator
from bolt_builder cimport (
    BKM_BUILD_NO_MEMORY,
    BKM_BUILD_SINK_FAILED,
    bkm_build_status,
    bkm_builder,
    bkm_builder_status,
)
from bolt_reader cimport (
    BKM_NO_PAGE,
    bkm_bolt,
    bkm_bolt_bitmap,
    bkm_cursor,
    bkm_cursor_end,
    bkm_cursor_first,
    bkm_cursor_item,
    bkm_cursor_next,
    bkm_cursor_page,
    bkm_item,
    c_bool,
)
from core_span cimport bkm_span, to_bytes, to_span

from buildkit_migrate.errors import CorruptDatabaseError, StorageError


cdef extern from "lmdb/packed.h" nogil:
    ctypedef struct bkm_buffer:
        uint8_t *data
        size_t size
    ctypedef enum bkm_pack_status:
        BKM_PACK_OK
        BKM_PACK_READ
        BKM_PACK_NO_MEMORY
    ctypedef struct bkm_unpacker:
        bkm_span rest
        bkm_span last
    ctypedef enum bkm_unpack_status:
        BKM_UNPACK_ITEM
        BKM_UNPACK_END
    ctypedef enum bkm_push_status:
        BKM_PUSH_OK
        BKM_PUSH_MALFORMED
    bkm_pack_status bkm_pack(bkm_bolt *bolt, const bkm_item *item, uint64_t page, uint8_t *visited,
                             bkm_buffer *out)
    bkm_pack_status bkm_pack_item(bkm_bolt *bolt, bkm_span key, const bkm_item *item, uint64_t page,
                                  uint8_t *visited, bkm_buffer *out)
    bkm_unpack_status bkm_unpack_next(bkm_unpacker *unpacker, bkm_span *key, bkm_span *node)
    bint bkm_node_parts(bkm_span node, c_bool *bucket, uint64_t *sequence, bkm_span *content)
    bkm_push_status bkm_push(bkm_builder *builder, bkm_span key, bkm_span node)

cdef extern from "lmdb/check.h" nogil:
    ctypedef struct bkm_lmdb_finding:
        const char *rule
        uint64_t page
        uint64_t transaction
    bkm_lmdb_finding bkm_lmdb_check(const uint8_t *data, uint64_t size)

LONG_KEY = 511
cdef enum:
    MAX_KEY = 511    # longest key that every LMDB build accepts; an entry with such a key is a group
    BATCH = 4 << 20  # bytes of entries per batch


cdef inline bytes with_tag(bytes tag, bkm_span name):
    cdef bytes key = PyBytes_FromStringAndSize(NULL, 1 + <Py_ssize_t>name.size)
    PyBytes_AS_STRING(key)[0] = PyBytes_AS_STRING(tag)[0]
    memcpy(PyBytes_AS_STRING(key) + 1, name.data, name.size)
    return key


@cython.final
cdef class Packer(Guarded):
    """Converts buckets of a bolt file into entries of an LMDB store (docs/format.md).

    A packer reads each page at most once: a second visit raises `errors.CorruptDatabaseError`, as any damage
    does.
    """

    cdef Reader reader
    cdef uint8_t *visited

    def __cinit__(self, Reader reader not None):
        self.reader = reader
        reader.idle()
        self.visited = bkm_bolt_bitmap(&reader.bolt)
        if self.visited == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.visited)

    def batches(self, Bucket bucket not None, bytes tag not None, frozenset skip=frozenset()):
        """Iterates over (key, value) entries for all keys of `bucket`, in order, in batches of a few MiB.

        `skip`: names of buckets to leave out. Raises `errors.StorageError` for a nested bucket of 2 GiB or
        more.
        """
        if bucket.reader is not self.reader:
            raise ValueError("the bucket belongs to another reader")
        if len(tag) != 1:
            raise ValueError("a tag must be one byte")
        if skip is not None and any([type(name) is not bytes for name in skip]):
            raise TypeError("the names to skip must be bytes")
        return _Batches(self, bucket, tag, skip)


@cython.final
cdef class _Batches(GuardedIterator):
    """Iterator of `Packer.batches`."""

    cdef Packer packer
    cdef Bucket bucket
    cdef bytes tag
    cdef frozenset skip
    cdef bkm_cursor cursor
    cdef bint started
    cdef bytes group_key  # key of the open group, whose items are in `group`; None if no group is open
    cdef bkm_buffer group
    cdef bkm_buffer node

    def __cinit__(self, Packer packer not None, Bucket bucket not None, bytes tag not None,
                  frozenset skip not None):
        self.packer = packer
        self.bucket = bucket
        self.tag = tag
        self.skip = skip

    def __dealloc__(self):
        free(self.group.data)
        free(self.node.data)

    cdef object failure(self, bkm_pack_status status):
        if status == BKM_PACK_READ:
            return self.packer.reader.failure()
        if status == BKM_PACK_NO_MEMORY:
            return MemoryError()
        return StorageError(f"{self.packer.reader.path}: a bucket of 2 GiB or more is too large for LMDB")

    cdef list end_group(self, list batch):
        if self.group_key is not None:
            batch.append((
                self.group_key,
                PyBytes_FromStringAndSize(<const char *>self.group.data, <Py_ssize_t>self.group.size),
            ))
            self.group_key = None
            self.group.size = 0
        return batch

    cdef size_t add(self, list batch, bkm_item item, uint64_t page) except? 0:
        """Adds an item to the batch or to the open group. Returns its size."""
        cdef bkm_bolt *bolt = &self.packer.reader.bolt
        cdef bkm_pack_status status
        cdef bkm_span name = item.key
        cdef bytes key
        if name.size + 1 < MAX_KEY:
            self.end_group(batch)
            self.node.size = 0
            status = bkm_pack(bolt, &item, page, self.packer.visited, &self.node)
            if status != BKM_PACK_OK:
                raise self.failure(status)
            batch.append((
                with_tag(self.tag, name),
                PyBytes_FromStringAndSize(<const char *>self.node.data, <Py_ssize_t>self.node.size),
            ))
            return self.node.size + name.size
        name.size = MAX_KEY - 1
        key = with_tag(self.tag, name)
        if key != self.group_key:
            self.end_group(batch)
            self.group_key = key
        cdef bkm_span rest
        rest.data = item.key.data + name.size
        rest.size = item.key.size - name.size
        cdef size_t before = self.group.size
        status = bkm_pack_item(bolt, rest, &item, page, self.packer.visited, &self.group)
        if status != BKM_PACK_OK:
            raise self.failure(status)
        if self.group.size > 0x7FFFFFFF:
            raise StorageError(f"{self.packer.reader.path}: too many long keys with the same prefix")
        return self.group.size - before + name.size

    cdef object step(self):
        cdef Reader reader = self.packer.reader
        reader.enter()
        try:
            self.packer.enter()
            try:
                batch = self.next_batch()
            except BaseException:
                self.packer.fail()  # some pages are marked as visited but were only partly read
                raise
            self.packer.leave()
        finally:
            reader.leave()
        return batch or None

    cdef list next_batch(self):
        cdef list batch = []
        cdef size_t size = 0
        cdef bkm_item item
        cdef bint ok = True
        if not self.started:
            self.started = True
            ok = bkm_cursor_first(&self.cursor, &self.packer.reader.bolt, &self.bucket.handle,
                                  self.packer.visited)
        while ok and not bkm_cursor_end(&self.cursor) and size < BATCH:
            item = bkm_cursor_item(&self.cursor)
            if not (item.bucket and self.skip and to_bytes(item.key) in self.skip):
                size += self.add(batch, item, bkm_cursor_page(&self.cursor))
            ok = bkm_cursor_next(&self.cursor)
        if not ok:
            raise self.packer.reader.failure()
        if bkm_cursor_end(&self.cursor):
            self.end_group(batch)
        return batch


cdef object malformed(str path, bytes key):
    name = key[:80].decode(errors="backslashreplace")
    return CorruptDatabaseError("malformed entry", path=path, detail=f"key {name!r}")


cdef int push_node(Builder builder, str path, bytes key, bkm_span name, bkm_span node) except -1:
    cdef bkm_push_status status
    cdef bkm_build_status built
    builder.enter()
    status = bkm_push(builder.builder, name, node)
    if status == BKM_PUSH_MALFORMED:
        builder.fail()  # the node may have been written in part
    else:
        builder.leave()
    if status == BKM_PUSH_OK:
        return 0
    if status != BKM_PUSH_MALFORMED:
        built = bkm_builder_status(builder.builder)
        if built == BKM_BUILD_SINK_FAILED or built == BKM_BUILD_NO_MEMORY:
            raise builder.failure()
    raise malformed(path, key)


def push(Builder builder not None, bytes name not None, bytes node not None, str path=""):
    """Adds a node to the open bucket of `builder`.

    Raises `errors.CorruptDatabaseError`, naming `path`, if it is malformed.
    """
    push_node(builder, path, name, to_span(name), to_span(node))


def push_all(Builder builder not None, pairs, bytes tag not None, str path=""):
    """Pushes entries of an LMDB store, up to the first with another tag. Raises the same errors as `push`."""
    cdef bkm_span name, node
    cdef bytes key, value
    for pair in pairs:
        key, value = pair
        if key is None or value is None:
            raise TypeError("keys and values must be bytes, not None")
        if PyBytes_GET_SIZE(key) < 2 or not key.startswith(tag):
            return
        name = to_span(key)
        name.data += 1
        name.size -= 1
        node = to_span(value)
        if PyBytes_GET_SIZE(key) < MAX_KEY:
            push_node(builder, path, key, name, node)
            continue
        for rest_bytes, inner in unpack_items(value, key, path):
            long_name = key[1:] + rest_bytes
            push_node(builder, path, key, to_span(long_name), to_span(inner))


def unpack_items(bytes items not None, bytes key=b"", str path=""):
    """Decodes a group into keys and nodes. Raises the same errors as `unpack`."""
    cdef bkm_unpacker unpacker
    cdef bkm_span name, node
    cdef bkm_unpack_status status
    cdef list found = []
    unpacker.rest = to_span(items)
    unpacker.last.data = NULL
    unpacker.last.size = 0
    while True:
        status = bkm_unpack_next(&unpacker, &name, &node)
        if status == BKM_UNPACK_END:
            return found
        if status != BKM_UNPACK_ITEM:
            raise malformed(path, key)
        found.append((to_bytes(name), to_bytes(node)))


def unpack(bytes node not None, bytes key=b"", str path=""):
    """Decodes a node into a value, or the sequence number and items of a bucket.

    Raises `errors.CorruptDatabaseError`, naming `path` and `key`, if it is malformed.
    """
    cdef c_bool bucket = False
    cdef uint64_t sequence = 0
    cdef bkm_span content
    if not bkm_node_parts(to_span(node), &bucket, &sequence, &content):
        raise malformed(path, key)
    cdef bytes rest = to_bytes(content)
    return (sequence, unpack_items(rest, key, path)) if bucket else rest


def check_lmdb(data, str path=""):
    """Checks all pages in use of an LMDB file in memory, because LMDB itself follows page numbers unchecked.

    Raises `errors.CorruptDatabaseError`.
    """
    cdef const unsigned char[::1] view = data
    cdef const uint8_t *start = &view[0] if view.shape[0] else NULL
    cdef uint64_t size = <uint64_t>view.shape[0]
    cdef bkm_lmdb_finding finding
    cdef object page
    with nogil:
        finding = bkm_lmdb_check(start, size)
    if finding.rule != NULL:
        page = -1 if finding.page == BKM_NO_PAGE else finding.page
        raise CorruptDatabaseError(finding.rule.decode(), path=path, page=page)
