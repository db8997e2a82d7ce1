"""The inputs of a plan: the records of a v1 store, and the state of the containerd services."""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.stdlib cimport calloc, free, malloc

from buildkit_migrate._native.bolt cimport Reader
from buildkit_migrate._native.guard cimport Guarded
from bolt_reader cimport bkm_bolt
from core_column cimport BKM_MAX_ROWS
from core_span cimport bkm_span, to_bytes, to_span
from plan_records cimport (
    BKM_KEY_ANY,
    BKM_KEY_BLOB_MAPPING,
    BKM_KEY_BLOB_SIZE,
    BKM_KEY_WRITTEN,
    bkm_records_accept,
    bkm_records_free,
    bkm_records_read,
    bkm_records_refuse,
    bkm_records_finish,
)
from plan_survey cimport bkm_survey_add_resource, bkm_survey_free, bkm_survey_read


# Forms of a value. The number is also how many texts the plan needs of it.
ANY_VALUE, STRING, MAPPING = range(3)


@cython.final
cdef class Records(Guarded):
    """The records of the v1 store in `reader`, as columns over its file; empty if there is no `_main` bucket.

    `decode` is called for the few values that are not written exactly as BuildKit writes them, with the form
    (ANY_VALUE, STRING or MAPPING) and the bytes. It returns the texts that the plan needs: none, the string,
    or Blobsum and DiffID; an empty tuple for an empty mapping; None if the value can't be decoded, which the
    plan reports as a fault. Its exceptions are passed on.

    Raises `errors.CorruptDatabaseError`.
    """

    def __cinit__(self, Reader reader not None, decode not None):
        cdef size_t odd
        cdef bint read
        self.reader = reader
        self.owned = []
        reader.enter()
        try:
            with nogil:
                read = bkm_records_read(&self.records, &reader.bolt)
            if not read:
                raise reader.failure()
        finally:
            reader.leave()
        for odd in range(self.records.odd_count):
            if not self.settle(odd, decode):
                raise MemoryError
        bkm_records_finish(&self.records)

    def __dealloc__(self):
        bkm_records_free(&self.records)

    cdef bint settle(self, size_t odd, decode) except -1:
        """Decodes a value that native code did not recognise. Returns False when out of memory."""
        cdef bkm_span text
        cdef bkm_span diff_id
        cdef uint32_t kind = self.records.odd[odd].kind
        text.data = diff_id.data = NULL
        text.size = diff_id.size = 0
        if kind == BKM_KEY_BLOB_MAPPING:
            form = MAPPING
        elif kind == BKM_KEY_ANY or kind == BKM_KEY_WRITTEN or kind == BKM_KEY_BLOB_SIZE:
            form = ANY_VALUE
        else:
            form = STRING
        cdef tuple texts = decode(form, to_bytes(self.records.odd[odd].value))
        if texts is None:
            return bkm_records_refuse(&self.records, odd)
        if len(texts) != form and not (form == MAPPING and len(texts) == 0):
            raise ValueError(f"{len(texts)} texts of a value of form {form}")
        self.owned.append(texts)
        if len(texts) > 0:
            text = to_span(texts[0])
        if len(texts) > 1:
            diff_id = to_span(texts[1])
        return bkm_records_accept(&self.records, odd, text, diff_id)

    def __len__(self):
        return self.records.count

    def ids(self):
        """All ids, in byte order."""
        cdef size_t i
        for i in range(self.records.count):
            yield to_bytes(self.records.id[i])


@cython.final
cdef class Survey(Guarded):
    """State of the containerd services, in any order.

    `snapshots`: name, kind (as `model.Kind`), parent ("" if none), whether it has the gc.root label. `blobs`:
    digest, whether it has the label, size in bytes (1 to 2**63 - 1; None if containerd does not know it).
    `leases`: id and resources; None for all resources that its record needs. Of entries with the same name,
    the last counts. `expiring`: ids of leases with the gc.expire label.
    """

    def __init__(
        self,
        str snapshotter not None,
        snapshots,
        blobs,
        leases,
        str namespace not None="buildkit",
        expiring=(),
    ):
        self.begin()
        self.owned = []
        self.stated_snapshotter = snapshotter
        self.stated_namespace = namespace
        by_name = {name: (kind, parent, root) for name, kind, parent, root in snapshots}
        self.fill_snapshots(sorted(by_name.items()))
        by_digest = {digest: (root, size) for digest, root, size in blobs}
        self.fill_blobs(sorted(by_digest.items()))
        self.fill_leases(dict(leases), frozenset(expiring))
        self.leave()

    def __dealloc__(self):
        bkm_survey_free(&self.survey)

    @property
    def snapshotter(self):
        """Name of the snapshotter."""
        self.idle()
        return self.stated_snapshotter

    @property
    def namespace(self):
        """Name of the namespace."""
        self.idle()
        return self.stated_namespace

    @staticmethod
    def offline(Reader metadata not None, Reader snapshots, str namespace not None, str snapshotter not None):
        """Reads containerd's database and the snapshotter's (spec containerd-metadata-db, section 5).

        Snapshots that are missing in the snapshotter's database are skipped, as containerd does. Raises
        `errors.CorruptDatabaseError`.
        """
        cdef Survey survey = Survey.__new__(Survey)
        cdef bytes name_space = namespace.encode()
        cdef bytes name = snapshotter.encode()
        cdef bkm_bolt *kinds = NULL if snapshots is None else &snapshots.bolt
        survey.owned = [metadata, snapshots]
        survey.stated_namespace = namespace
        survey.stated_snapshotter = snapshotter
        cdef bkm_span name_space_span = to_span(name_space)
        cdef bkm_span name_span = to_span(name)
        cdef bkm_bolt *failed
        cdef Reader second = None if snapshots is metadata else snapshots
        metadata.enter()
        try:
            if second is not None:
                second.enter()
            with nogil:
                failed = bkm_survey_read(&survey.survey, &metadata.bolt, kinds, name_space_span, name_span)
            if second is not None:
                second.leave()
            if failed != NULL:
                raise metadata.failure() if failed == &metadata.bolt else snapshots.failure()
        finally:
            metadata.leave()
        survey.leave()
        return survey

    cdef bkm_span *pack(self, list values) except NULL:
        """Copies the values into one block. Raises ValueError for a value that is too long for any file."""
        if <size_t>len(values) > BKM_MAX_ROWS:
            raise ValueError(f"more than {BKM_MAX_ROWS} snapshots, blobs or leases are not supported")
        cdef bkm_span *spans = <bkm_span *>malloc((len(values) + 1) * sizeof(bkm_span))
        if spans == NULL:
            raise MemoryError
        cdef bytes block
        cdef bytes value
        cdef const uint8_t *at
        cdef Py_ssize_t i
        try:
            block = b"".join(values)
            self.owned.append(block)
            at = <const uint8_t *><const char *>block
            for i, value in enumerate(values):
                spans[i].data = at
                spans[i].size = to_span(value).size
                at += spans[i].size
        except BaseException:
            free(spans)
            raise
        return spans

    cdef int fill_snapshots(self, list rows) except -1:
        cdef size_t i
        self.survey.snapshot = self.pack([name for name, _ in rows])
        self.survey.snapshot_parent = self.pack([row[1] for _, row in rows])
        self.survey.snapshot_kind = <uint8_t *>calloc(len(rows) + 1, 1)
        self.survey.snapshot_root = <uint8_t *>calloc(len(rows) + 1, 1)
        if self.survey.snapshot_kind == NULL or self.survey.snapshot_root == NULL:
            raise MemoryError
        self.survey.snapshot_count = len(rows)
        for i, (_, (kind, _, root)) in enumerate(rows):
            self.survey.snapshot_kind[i] = kind
            self.survey.snapshot_root[i] = bool(root)
        return 0

    cdef int fill_blobs(self, list rows) except -1:
        cdef size_t i
        self.survey.blob = self.pack([digest for digest, _ in rows])
        self.survey.blob_root = <uint8_t *>calloc(len(rows) + 1, 1)
        self.survey.blob_size = <int64_t *>calloc(len(rows) + 1, sizeof(int64_t))
        if self.survey.blob_root == NULL or self.survey.blob_size == NULL:
            raise MemoryError
        self.survey.blob_count = len(rows)
        for i, (_, (root, size)) in enumerate(rows):
            if size is not None and not 0 < size < 1 << 63:
                raise ValueError(f"a blob can't have {size} bytes")
            self.survey.blob_root[i] = bool(root)
            self.survey.blob_size[i] = size or 0
        return 0

    cdef int fill_leases(self, dict leases, frozenset expiring) except -1:
        cdef size_t i
        cdef list ids = sorted(leases)
        cdef bytes resource
        snapshot_type = f"snapshots/{self.stated_snapshotter}"
        self.survey.lease = self.pack(ids)
        self.survey.lease_end = <size_t *>calloc(len(ids) + 1, sizeof(size_t))
        self.survey.lease_complete = <uint8_t *>calloc(len(ids) + 1, 1)
        self.survey.lease_expires = <uint8_t *>calloc(len(ids) + 1, 1)
        if (
            self.survey.lease_end == NULL
            or self.survey.lease_complete == NULL
            or self.survey.lease_expires == NULL
        ):
            raise MemoryError
        self.survey.lease_count = len(ids)
        for i, id in enumerate(ids):
            self.survey.lease_complete[i] = leases[id] is None
            self.survey.lease_expires[i] = id in expiring
            for kind, resource in sorted(leases[id] or ()):
                if kind != "content" and kind != snapshot_type:
                    continue
                self.owned.append(resource)
                if not bkm_survey_add_resource(&self.survey, to_span(resource), kind == "content"):
                    raise MemoryError
            self.survey.lease_end[i] = self.survey.resource_count
        return 0
