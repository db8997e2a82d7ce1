"""Python face of records, survey, plan and its edits. The stub documents it."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from buildkit_migrate._native.bolt cimport Reader
from buildkit_migrate._native.guard cimport Guarded, GuardedIterator
from bolt_reader cimport bkm_bolt, c_bool
from core_span cimport bkm_span, to_bytes, to_span
from sha256_kernel cimport bkm_sha256_kernel, select_kernel

import os
from collections import namedtuple

from buildkit_migrate.values.times import stored_time, text_time
from buildkit_migrate.errors import CorruptDatabaseError
from buildkit_migrate.values import gojson, keys
from buildkit_migrate.model import Caution, PlainPlan, Problem, Reason, RecordPlan


cdef extern from "plan/records.h" nogil:
    enum:
        BKM_STORED_TEXTS
        BKM_KEY_WRITTEN
        BKM_KEY_BLOB_SIZE
        BKM_KEY_BLOB_MAPPING
        BKM_KEY_ANY

    ctypedef struct bkm_value_problem:
        uint32_t record
        bkm_span key

    ctypedef struct bkm_odd_value:
        uint32_t kind
        bkm_span value

    ctypedef struct bkm_records:
        size_t count
        bkm_span *id
        bkm_span *equal_mutable
        uint8_t *empty_mapping
        bkm_value_problem *problems
        size_t problem_count
        bkm_odd_value *odd
        size_t odd_count

    bint bkm_records_read(bkm_records *records, bkm_bolt *bolt)
    void bkm_records_free(bkm_records *records)
    bint bkm_records_refuse(bkm_records *records, size_t odd)
    bint bkm_records_accept(bkm_records *records, size_t odd, bkm_span text, bkm_span diff_id)
    void bkm_records_settled(bkm_records *records)

cdef extern from "plan/survey.h" nogil:
    ctypedef struct bkm_survey:
        size_t snapshot_count
        bkm_span *snapshot
        bkm_span *snapshot_parent
        uint8_t *snapshot_kind
        uint8_t *snapshot_root
        size_t blob_count
        bkm_span *blob
        uint8_t *blob_root
        int64_t *blob_size
        size_t lease_count
        bkm_span *lease
        uint8_t *lease_expires
        uint8_t *lease_complete
        size_t *lease_end
        size_t resource_count

    bkm_bolt *bkm_survey_read(
        bkm_survey *survey, bkm_bolt *metadata, bkm_bolt *snapshots, bkm_span name_space, bkm_span snapshotter
    )
    void bkm_survey_free(bkm_survey *survey)
    bint bkm_survey_add_resource(bkm_survey *survey, bkm_span id, bint is_content)

cdef extern from "plan/plan.h" nogil:
    enum:
        BKM_ID_SIZE
        BKM_SOUND
        BKM_REPAIRED
        BKM_BAD_ID
        BKM_UNDECODABLE
        BKM_KEY_IS_BUCKET
        BKM_EQUAL_MUTABLE_CYCLE
        BKM_NO_TARGET
        BKM_NO_SNAPSHOT
        BKM_BAD_DIGEST
        BKM_KEY_TOO_LONG
        BKM_NO_PARENT
        BKM_PARENT_CYCLE
        BKM_TARGET_DROPPED
        BKM_PARENT_DROPPED
        BKM_PUT_COMMITTED
        BKM_CREATE_LEASE
        BKM_ADD_SNAPSHOT
        BKM_ADD_CONTENT
        BKM_PARENT_WITHOUT_RECORD
        BKM_KEEP_LEASE

    ctypedef struct bkm_chain_input:
        pass

    ctypedef struct bkm_chain_output:
        pass

    ctypedef struct bkm_plan_counts:
        uint64_t records
        uint64_t snapshots_needed
        uint64_t snapshots_found
        uint64_t kept
        uint64_t committed
        uint64_t blobs
        uint64_t blob_sizes
        uint64_t chains
        uint64_t leases_to_create
        uint64_t leases_to_keep
        uint64_t resources_to_add
        uint64_t unlabel_snapshots
        uint64_t unlabel_blobs
        uint64_t views
        uint64_t labels_left_snapshots
        uint64_t labels_left_blobs

    ctypedef struct bkm_plan:
        uint8_t *reason
        uint16_t *flags
        bkm_span *parent
        bkm_span *diff_id
        bkm_span *blob
        bkm_chain_input chain_input
        bkm_chain_output chains
        uint8_t *unlabel_snapshot
        uint8_t *unlabel_blob
        bkm_plan_counts counts

    bint bkm_plan_make(bkm_plan *plan, const bkm_records *records, const bkm_survey *survey,
                       c_bool upstream_exact, const bkm_sha256_kernel *kernel, unsigned threads)
    void bkm_plan_free(bkm_plan *plan)
    bint bkm_plan_dropped(const bkm_plan *plan, size_t record)
    bint bkm_plan_minds(const bkm_plan *plan, const bkm_value_problem *problem)
    bint bkm_plan_lacks_blob_size(const bkm_plan *plan, size_t record)
    bint bkm_plan_writes_chain(const bkm_plan *plan, size_t record)
    bkm_span bkm_chain_id(const bkm_chain_input *input, const bkm_chain_output *output, size_t record,
                          uint8_t *space)
    bkm_span bkm_blob_chain_id(const bkm_chain_input *input, const bkm_chain_output *output, size_t record,
                               uint8_t *space)

cdef extern from "bolt/reader.h" nogil:
    int BKM_OK

cdef extern from "core/column.h" nogil:
    size_t BKM_MAX_ROWS

cdef extern from "plan/edits.h" nogil:
    ctypedef struct bkm_operations:
        uint8_t *data
        size_t size
        size_t capacity
        c_bool failed
        bkm_span too_long

    ctypedef struct bkm_store_edits:
        pass

    ctypedef struct bkm_containerd_edits:
        pass

    ctypedef struct bkm_containerd_terms:
        bkm_span name_space
        bkm_span snapshotter
        bkm_span created
        bkm_span flat

    void bkm_write_puts(bkm_operations *out, const bkm_plan *plan, size_t record)
    bkm_store_edits *bkm_store_edits_new(const bkm_plan *plan, bkm_bolt *source)
    void bkm_store_edits_fill(bkm_store_edits *edits, bkm_operations *out)
    void bkm_store_edits_free(bkm_store_edits *edits)
    bkm_containerd_edits *bkm_containerd_edits_new(const bkm_plan *plan, bkm_containerd_terms terms)
    void bkm_containerd_edits_fill(bkm_containerd_edits *edits, bkm_operations *out)
    void bkm_containerd_edits_free(bkm_containerd_edits *edits)


PlannedRecord = namedtuple(
    "PlannedRecord", "id dropped committed parent snapshot blob diff_id chain_id blob_chain_id"
)

cdef dict REASONS = {
    BKM_REPAIRED: Reason.REPAIRED,
    BKM_BAD_ID: Reason.BAD_ID,
    BKM_UNDECODABLE: Reason.UNDECODABLE,
    BKM_KEY_IS_BUCKET: Reason.KEY_IS_BUCKET,
    BKM_EQUAL_MUTABLE_CYCLE: Reason.CYCLE,
    BKM_NO_TARGET: Reason.NO_TARGET,
    BKM_NO_SNAPSHOT: Reason.NO_SNAPSHOT,
    BKM_BAD_DIGEST: Reason.BAD_DIGEST,
    BKM_KEY_TOO_LONG: Reason.KEY_TOO_LONG,
    BKM_NO_PARENT: Reason.NO_PARENT,
    BKM_PARENT_CYCLE: Reason.CYCLE,
    BKM_TARGET_DROPPED: Reason.DESCENDANT,
    BKM_PARENT_DROPPED: Reason.DESCENDANT,
}


@cython.final
cdef class Records(Guarded):
    cdef bkm_records records
    cdef readonly Reader reader
    cdef list owned  # the texts that do not lie in the file as they are

    def __cinit__(self, Reader reader not None):
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
            if not self.settle(odd):
                raise MemoryError
        bkm_records_settled(&self.records)

    def __dealloc__(self):
        bkm_records_free(&self.records)

    cdef bint settle(self, size_t odd) except -1:
        """Decide a value that the native recogniser left open. False when out of memory."""
        cdef bkm_span text
        cdef bkm_span diff_id
        cdef uint32_t kind = self.records.odd[odd].kind
        value = to_bytes(self.records.odd[odd].value)
        text.data = diff_id.data = NULL
        text.size = diff_id.size = 0
        try:
            if kind == BKM_KEY_BLOB_MAPPING:
                mapping = gojson.blob_mapping(value)
                if mapping is not None:
                    self.owned.append(mapping)
                    text = to_span(mapping[0])
                    diff_id = to_span(mapping[1])
            else:
                gojson.decode(value)
                if kind not in (BKM_KEY_ANY, BKM_KEY_WRITTEN, BKM_KEY_BLOB_SIZE):
                    string = gojson.string(value)
                    self.owned.append(string)
                    text = to_span(string)
        except gojson.UndecodableValueError:
            return bkm_records_refuse(&self.records, odd)
        return bkm_records_accept(&self.records, odd, text, diff_id)

    def __len__(self):
        return self.records.count

    def ids(self):
        cdef size_t i
        for i in range(self.records.count):
            yield to_bytes(self.records.id[i])


@cython.final
cdef class Survey(Guarded):
    cdef bkm_survey survey
    cdef list owned  # what the spans point into
    cdef str stated_snapshotter
    cdef str stated_namespace

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
        self.idle()
        return self.stated_snapshotter

    @property
    def namespace(self):
        self.idle()
        return self.stated_namespace

    @staticmethod
    def offline(Reader metadata not None, Reader snapshots, str namespace not None, str snapshotter not None):
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
        """The values one after the other in one block. ValueError for one that no file could hold."""
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


@cython.final
cdef class Plan(Guarded):
    cdef bkm_plan plan
    cdef readonly Records records
    cdef readonly Survey survey

    def __cinit__(self, Records records not None, Survey survey not None, *, bint upstream_exact=False):
        records.idle()
        survey.idle()
        cdef const bkm_sha256_kernel *kernel = select_kernel(None)
        cdef unsigned threads = len(os.sched_getaffinity(0))
        cdef bint made
        self.records = records
        self.survey = survey
        with nogil:
            made = bkm_plan_make(
                &self.plan, &records.records, &survey.survey, upstream_exact, kernel, threads
            )
        if not made:
            raise MemoryError

    def __dealloc__(self):
        bkm_plan_free(&self.plan)

    @property
    def counts(self):
        cdef dict counts = self.plan.counts
        counts["dropped"] = counts["records"] - counts["kept"]
        return counts

    @property
    def problems(self):
        cdef size_t i
        cdef size_t count = self.records.records.count
        return [self.problem(i) for i in range(count) if self.plan.reason[i] != BKM_SOUND]

    cdef object problem(self, size_t record):
        reason = self.plan.reason[record]
        detail = b""
        if reason == BKM_UNDECODABLE or reason == BKM_KEY_IS_BUCKET:
            detail = self.faulty_key(record)
        elif reason in (BKM_REPAIRED, BKM_EQUAL_MUTABLE_CYCLE, BKM_NO_TARGET, BKM_TARGET_DROPPED):
            detail = to_bytes(self.records.records.equal_mutable[record])
        elif reason == BKM_BAD_DIGEST:
            detail = to_bytes(self.plan.blob[record])
        elif reason in (BKM_NO_PARENT, BKM_PARENT_CYCLE, BKM_PARENT_DROPPED):
            detail = to_bytes(self.plan.parent[record])
        return Problem(self.id(record), REASONS[reason], detail)

    cdef bytes faulty_key(self, size_t record):
        cdef size_t low = 0
        cdef size_t high = self.records.records.problem_count
        cdef size_t middle
        while low < high:
            middle = (low + high) // 2
            if self.records.records.problems[middle].record < record:
                low = middle + 1
            else:
                high = middle
        while not bkm_plan_minds(&self.plan, &self.records.records.problems[low]):
            low += 1
        return to_bytes(self.records.records.problems[low].key)

    cdef bytes id(self, size_t record):
        return to_bytes(self.records.records.id[record])

    @property
    def cautions(self):
        cdef size_t i
        cautions = set()
        for i in range(self.records.records.count):
            if bkm_plan_dropped(&self.plan, i):
                continue
            if self.records.records.empty_mapping[i]:
                cautions.add((self.id(i), Caution.EMPTY_BLOB_MAPPING))
            if bkm_plan_lacks_blob_size(&self.plan, i):
                cautions.add((self.id(i), Caution.NO_BLOB_SIZE))
            if self.plan.flags[i] & BKM_PARENT_WITHOUT_RECORD:
                cautions.add((self.id(i), Caution.PARENT_WITHOUT_RECORD))
        return cautions

    cdef bytes chain_id(self, size_t record):
        cdef uint8_t[BKM_ID_SIZE] space
        return to_bytes(bkm_chain_id(&self.plan.chain_input, &self.plan.chains, record, space))

    cdef bytes blob_chain_id(self, size_t record):
        cdef uint8_t[BKM_ID_SIZE] space
        return to_bytes(bkm_blob_chain_id(&self.plan.chain_input, &self.plan.chains, record, space))

    def record(self, Py_ssize_t index):
        if index < 0 or index >= len(self.records):
            raise IndexError("record index out of range")
        id = self.id(index)
        if bkm_plan_dropped(&self.plan, index):
            return PlannedRecord(id, True, False, b"", b"", b"", b"", b"", b"")
        return PlannedRecord(
            id=id,
            dropped=False,
            committed=bool(self.plan.flags[index] & BKM_PUT_COMMITTED),
            parent=to_bytes(self.plan.parent[index]),
            snapshot=id,
            blob=to_bytes(self.plan.blob[index]),
            diff_id=to_bytes(self.plan.diff_id[index]),
            chain_id=self.chain_id(index),
            blob_chain_id=self.blob_chain_id(index),
        )

    cdef dict puts(self, size_t record):
        """Read back from the operations, so that what is shown is what is written."""
        cdef bytes operations = self.put_operations(record)
        found = {}
        at = 0
        while at < len(operations):
            key, at = sized(operations, at + 1)
            found[key], at = sized(operations, at)
        return found

    cdef bytes put_operations(self, size_t record):
        cdef bkm_operations out = [NULL, 0, 0, False, [NULL, 0]]
        bkm_write_puts(&out, &self.plan, record)
        try:
            return chunk(&out, self.records.reader)
        finally:
            free(out.data)

    cdef object resources(self, size_t record):
        cdef uint16_t flags = self.plan.flags[record]
        resources = set()
        if flags & BKM_ADD_SNAPSHOT:
            resources.add((f"snapshots/{self.survey.snapshotter}", self.id(record)))
        if flags & BKM_ADD_CONTENT:
            resources.add(("content", to_bytes(self.plan.blob[record])))
        return frozenset(resources)

    def plain(self):
        cdef size_t i
        result = PlainPlan(
            problems=self.problems,
            cautions=self.cautions,
            unlabel_snapshots=set(self.unlabel_snapshots()),
            unlabel_blobs=set(self.unlabel_blobs()),
        )
        for i in range(self.records.records.count):
            if bkm_plan_dropped(&self.plan, i):
                continue
            id = self.id(i)
            index = set()
            if bkm_plan_writes_chain(&self.plan, i):
                index.add(keys.index_key(keys.CHAIN_ID_INDEX + self.chain_id(i), id))
                index.add(keys.index_key(keys.BLOB_CHAIN_ID_INDEX + self.blob_chain_id(i), id))
            result.records[id] = RecordPlan(
                puts=self.puts(i),
                index=frozenset(index),
                create_lease=bool(self.plan.flags[i] & BKM_CREATE_LEASE),
                keep_lease=bool(self.plan.flags[i] & BKM_KEEP_LEASE),
                add_resources=self.resources(i),
            )
        return result

    def leases(self):
        cdef size_t i
        for i in range(self.records.records.count):
            if self.plan.flags[i] & (BKM_CREATE_LEASE | BKM_KEEP_LEASE | BKM_ADD_SNAPSHOT | BKM_ADD_CONTENT):
                yield self.id(i), bool(self.plan.flags[i] & BKM_CREATE_LEASE), self.resources(i)

    def kept_leases(self):
        cdef size_t i
        for i in range(self.records.records.count):
            if self.plan.flags[i] & BKM_KEEP_LEASE:
                yield self.id(i)

    def unlabel_snapshots(self):
        cdef size_t i
        for i in range(self.survey.survey.snapshot_count):
            if self.plan.unlabel_snapshot[i]:
                yield to_bytes(self.survey.survey.snapshot[i])

    def unlabel_blobs(self):
        cdef size_t i
        for i in range(self.survey.survey.blob_count):
            if self.plan.unlabel_blob[i]:
                yield to_bytes(self.survey.survey.blob[i])

    def store_edits(self):
        return _StoreEdits(self)

    def containerd_edits(self, now_ns):
        return _ContainerdEdits(self, now_ns)


cdef tuple sized(bytes stream, Py_ssize_t at):
    """The sized bytes that begin at ``at``, and where they end."""
    start = at + 4
    end = start + int.from_bytes(stream[at:start], "little")
    return stream[start:end], end


@cython.final
cdef class _StoreEdits(GuardedIterator):
    cdef bkm_store_edits *edits
    cdef bkm_operations out
    cdef Plan plan

    def __cinit__(self, Plan plan not None):
        cdef Reader reader = plan.records.reader
        self.plan = plan
        reader.enter()
        try:
            with nogil:
                self.edits = bkm_store_edits_new(&plan.plan, &reader.bolt)
            if self.edits == NULL:
                raise MemoryError if reader.bolt.rule == BKM_OK else reader.failure()
        finally:
            reader.leave()

    def __dealloc__(self):
        bkm_store_edits_free(self.edits)
        free(self.out.data)

    cdef object step(self):
        with nogil:
            bkm_store_edits_fill(self.edits, &self.out)
        return chunk(&self.out, self.plan.records.reader)


@cython.final
cdef class _ContainerdEdits(GuardedIterator):
    cdef bkm_containerd_edits *edits
    cdef bkm_operations out
    cdef Plan plan
    cdef tuple owned  # what the spans of the terms point at

    def __cinit__(self, Plan plan not None, now_ns):
        cdef bkm_containerd_terms terms
        self.plan = plan
        self.owned = (
            plan.survey.namespace.encode(),
            plan.survey.snapshotter.encode(),
            stored_time(now_ns),
            text_time(now_ns),
        )
        terms.name_space = to_span(self.owned[0])
        terms.snapshotter = to_span(self.owned[1])
        terms.created = to_span(self.owned[2])
        terms.flat = to_span(self.owned[3])
        self.edits = bkm_containerd_edits_new(&plan.plan, terms)
        if self.edits == NULL:
            raise MemoryError

    def __dealloc__(self):
        bkm_containerd_edits_free(self.edits)
        free(self.out.data)

    cdef object step(self):
        with nogil:
            bkm_containerd_edits_fill(self.edits, &self.out)
        return chunk(&self.out, self.plan.records.reader)


cdef bytes chunk(const bkm_operations *out, Reader reader):
    if out.too_long.data != NULL:
        raise CorruptDatabaseError(
            "a new value would be longer than the format allows",
            path=reader.path,
            detail=to_bytes(out.too_long).decode(),
        )
    if out.failed:
        raise MemoryError
    if out.size == 0:
        return None  # the end of the stream
    return PyBytes_FromStringAndSize(<const char *>out.data, out.size)
