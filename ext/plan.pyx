"""The plan of a migration, as codes and columns, and the edits that carry it out."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from libc.stdlib cimport free

from buildkit_migrate._native.bolt cimport Reader
from buildkit_migrate._native.facts cimport Records, Survey
from buildkit_migrate._native.guard cimport Guarded, GuardedIterator
from bolt_reader cimport BKM_OK, bkm_bolt, c_bool
from chain_engine cimport BKM_ID_SIZE, bkm_blob_chain_id, bkm_chain_id, bkm_chain_input, bkm_chain_output
from core_span cimport bkm_span, to_bytes, to_span
from plan_records cimport bkm_records, bkm_value_problem
from plan_survey cimport bkm_survey
from sha256_kernel cimport bkm_sha256_kernel, select_kernel

import os

from buildkit_migrate.errors import CorruptDatabaseError


cdef extern from "plan/plan.h" nogil:
    enum:
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


# Codes of faults.
REPAIRED = BKM_REPAIRED
BAD_ID = BKM_BAD_ID
UNDECODABLE = BKM_UNDECODABLE
KEY_IS_BUCKET = BKM_KEY_IS_BUCKET
EQUAL_MUTABLE_CYCLE = BKM_EQUAL_MUTABLE_CYCLE
NO_TARGET = BKM_NO_TARGET
NO_SNAPSHOT = BKM_NO_SNAPSHOT
BAD_DIGEST = BKM_BAD_DIGEST
KEY_TOO_LONG = BKM_KEY_TOO_LONG
NO_PARENT = BKM_NO_PARENT
PARENT_CYCLE = BKM_PARENT_CYCLE
TARGET_DROPPED = BKM_TARGET_DROPPED
PARENT_DROPPED = BKM_PARENT_DROPPED

# Codes of oddities: findings about records that are migrated all the same.
EMPTY_BLOB_MAPPING, NO_BLOB_SIZE, PARENT_WITHOUT_RECORD = range(3)


@cython.final
cdef class Plan(Guarded):
    """Everything that a migration will do (spec buildkit-metadata, sections 4 and 5); equal to `oracle.plan`.

    `upstream_exact`: omit the sizes of blobs, which upstream does not write. Records are numbered in the
    order of their ids; methods that take a number raise IndexError.
    """

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
        """Counts for the report.

        All records: records, snapshots_needed (records without an equal-mutable target), snapshots_found
        (those of them with a snapshot), kept, dropped.

        Of the kept records: committed, blobs (that get blob keys), blob_sizes (that get the size), chains
        (that get new chain ids), leases_to_create, leases_to_keep (that lose the gc.expire label),
        resources_to_add.

        gc.root labels: unlabel_snapshots (views included), unlabel_blobs and views lose the label;
        labels_left_snapshots and labels_left_blobs keep it.
        """
        cdef dict counts = self.plan.counts
        counts["dropped"] = counts["records"] - counts["kept"]
        return counts

    def faults(self):
        """(Id, fault code, key or target or blob or parent concerned; "" if none), sorted by id.

        One for each record that is dropped or REPAIRED.
        """
        cdef size_t i
        cdef size_t count = self.records.records.count
        return [self.fault(i) for i in range(count) if self.plan.reason[i] != BKM_SOUND]

    cdef tuple fault(self, size_t record):
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
        return self.id(record), reason, detail

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

    def oddities(self):
        """(Id, oddity code) of the kept records, sorted by id."""
        cdef size_t i
        found = []
        for i in range(self.records.records.count):
            if bkm_plan_dropped(&self.plan, i):
                continue
            if self.records.records.empty_mapping[i]:
                found.append((self.id(i), EMPTY_BLOB_MAPPING))
            if bkm_plan_lacks_blob_size(&self.plan, i):
                found.append((self.id(i), NO_BLOB_SIZE))
            if self.plan.flags[i] & BKM_PARENT_WITHOUT_RECORD:
                found.append((self.id(i), PARENT_WITHOUT_RECORD))
        return found

    cdef bytes chain_id(self, size_t record):
        cdef uint8_t[BKM_ID_SIZE] space
        return to_bytes(bkm_chain_id(&self.plan.chain_input, &self.plan.chains, record, space))

    cdef bytes blob_chain_id(self, size_t record):
        cdef uint8_t[BKM_ID_SIZE] space
        return to_bytes(bkm_blob_chain_id(&self.plan.chain_input, &self.plan.chains, record, space))

    def is_dropped(self, Py_ssize_t index):
        """Whether the record can't be migrated.

        The methods below return empty results for it, except for its id.
        """
        if index < 0 or <size_t>index >= self.records.records.count:
            raise IndexError("record index out of range")
        return bool(bkm_plan_dropped(&self.plan, index))

    def is_committed(self, Py_ssize_t index):
        """Whether the record's snapshot is marked as committed."""
        return not self.is_dropped(index) and bool(self.plan.flags[index] & BKM_PUT_COMMITTED)

    def writes_chain(self, Py_ssize_t index):
        """Whether the record gets new chain ids and index entries for them."""
        return not self.is_dropped(index) and bool(bkm_plan_writes_chain(&self.plan, index))

    def texts(self, Py_ssize_t index):
        """Id, parent, blob, diffID, chainID and blobChainID after the migration; "" where there is none."""
        if self.is_dropped(index):
            return self.id(index), b"", b"", b"", b"", b""
        cdef size_t record = index
        return (
            self.id(record),
            to_bytes(self.plan.parent[record]),
            to_bytes(self.plan.blob[record]),
            to_bytes(self.plan.diff_id[record]),
            self.chain_id(record),
            self.blob_chain_id(record),
        )

    def puts(self, Py_ssize_t index):
        """The metadata keys that the record gets, with exact values."""
        if self.is_dropped(index):
            return {}
        # Decoded from the actual operations, so that what is shown is what is written.
        cdef bytes operations = self.put_operations(index)
        found = {}
        at = 0
        while at < len(operations):
            key, at = sized(operations, at + 1)
            found[key], at = sized(operations, at)
        return found

    def lease(self, Py_ssize_t index):
        """(Whether to create the record's lease, whether to stop it from expiring, resources to add)."""
        if self.is_dropped(index):
            return False, False, frozenset()
        cdef size_t record = index
        cdef uint16_t flags = self.plan.flags[record]
        return bool(flags & BKM_CREATE_LEASE), bool(flags & BKM_KEEP_LEASE), self.resources(record)

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

    def leases(self):
        """(Lease id, whether to create it, resources to add) of all leases that need work."""
        cdef size_t i
        for i in range(self.records.records.count):
            if self.plan.flags[i] & (BKM_CREATE_LEASE | BKM_KEEP_LEASE | BKM_ADD_SNAPSHOT | BKM_ADD_CONTENT):
                yield self.id(i), bool(self.plan.flags[i] & BKM_CREATE_LEASE), self.resources(i)

    def kept_leases(self):
        """Ids of existing leases that lose the gc.expire label, sorted. `leases` includes them."""
        cdef size_t i
        for i in range(self.records.records.count):
            if self.plan.flags[i] & BKM_KEEP_LEASE:
                yield self.id(i)

    def unlabel_snapshots(self):
        """Names of snapshots that lose the gc.root label, sorted."""
        cdef size_t i
        for i in range(self.survey.survey.snapshot_count):
            if self.plan.unlabel_snapshot[i]:
                yield to_bytes(self.survey.survey.snapshot[i])

    def unlabel_blobs(self):
        """Digests of blobs that lose the gc.root label, sorted."""
        cdef size_t i
        for i in range(self.survey.survey.blob_count):
            if self.plan.unlabel_blob[i]:
                yield to_bytes(self.survey.survey.blob[i])

    def store_edits(self):
        """Edits of the v1 store's root bucket that turn it into the v2 store, in chunks for `rewrite`.

        Raises `errors.CorruptDatabaseError`, as the store's index must be read.
        """
        return _StoreEdits(self)

    def containerd_edits(self, bytes created not None, bytes flat not None):
        """Edits of the root bucket of containerd's database (spec containerd-metadata-db, section 6).

        `created`: creation time of new leases, in containerd's binary form; `flat`: the same time as text,
        for a label. Yields nothing if there is nothing to do.
        """
        return _ContainerdEdits(self, created, flat)


cdef tuple sized(bytes stream, Py_ssize_t at):
    """Returns the length-prefixed bytes at ``at``, and their end."""
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
    cdef tuple owned  # keeps the memory behind the spans of the terms alive

    def __cinit__(self, Plan plan not None, bytes created not None, bytes flat not None):
        cdef bkm_containerd_terms terms
        self.plan = plan
        self.owned = (plan.survey.namespace.encode(), plan.survey.snapshotter.encode(), created, flat)
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
