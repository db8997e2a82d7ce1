"""Reading what is left of damaged bbolt files. Types are in the stub."""

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint8_t, uint64_t

from buildkit_migrate._native.building cimport Builder
from buildkit_migrate._native.guard cimport Guarded
from bolt_builder cimport BKM_BUILD_OK, bkm_builder, bkm_builder_status
from bolt_reader cimport (
    BKM_INTERRUPTED,
    BKM_NO_MEMORY,
    BKM_NO_PAGE,
    BKM_OK,
    bkm_bolt,
    bkm_bolt_close,
    bkm_rule,
    bkm_rule_text,
    c_bool,
)
from core_span cimport bkm_span, to_bytes

from buildkit_migrate.errors import CorruptDatabaseError


cdef extern from "bolt/salvage.h" nogil:
    ctypedef struct bkm_damaged:
        bkm_bolt bolt
        bkm_rule newest
        c_bool unverified
    ctypedef struct bkm_loss:
        const bkm_span *path
        size_t depth
        uint64_t page
        bkm_span from_ "from"
        bkm_span to
        bkm_rule rule
    ctypedef struct bkm_kept:
        uint64_t buckets
        uint64_t keys
        uint64_t unreached
    ctypedef c_bool (*bkm_lost)(void *context, const bkm_loss *loss)
    ctypedef struct bkm_gap:
        uint64_t start
        uint64_t end
    bint bkm_damaged_open(
        bkm_damaged *damaged, const uint8_t *data, uint64_t size, const bkm_gap *gaps, size_t gap_count
    )
    bint bkm_salvage(bkm_damaged *damaged, bkm_builder *builder, bkm_lost lost, void *context, bkm_kept *kept)


cdef c_bool handle_signals(void *context) noexcept nogil:
    with gil:
        return (<Damaged>context).handle_signals()


cdef object key_or_none(bkm_span key):
    return None if key.data == NULL else to_bytes(key)


@cython.final
cdef class _Losses:
    """What was lost so far, up to a number of entries; then it is only counted."""

    cdef list found
    cdef size_t most
    cdef uint64_t count
    cdef object error

    def __cinit__(self, size_t most):
        self.found = []
        self.most = most

    cdef bint add(self, const bkm_loss *loss):
        cdef size_t i
        self.count += 1
        if self.count > self.most:
            return True
        try:
            self.found.append(
                (
                    tuple([to_bytes(loss.path[i]) for i in range(loss.depth)]),
                    -1 if loss.page == BKM_NO_PAGE else loss.page,
                    key_or_none(loss.from_),
                    key_or_none(loss.to),
                    bkm_rule_text(loss.rule).decode(),
                )
            )
        except BaseException as error:
            self.error = error
            return False
        return True


cdef c_bool collect(void *context, const bkm_loss *loss) noexcept nogil:
    with gil:
        return (<_Losses>context).add(loss)


@cython.final
cdef class Damaged(Guarded):
    """A bbolt file in memory whose pages need not be sound, nor all there.

    `data` must not change while this exists. `path` is only used in error messages. `gaps`: ranges of bytes,
    (start, end), that could not be read, in ascending order and apart from each other. Raises
    `errors.CorruptDatabaseError` if no root page can be read.
    """

    cdef bkm_damaged damaged
    cdef bkm_gap *gaps
    cdef const unsigned char[::1] view
    cdef str path
    cdef object interrupt

    def __cinit__(self, data, str path="", gaps=()):
        cdef const uint8_t *start = NULL
        cdef size_t count = 0
        self.path = path
        self.view = data
        ranges = tuple(gaps)
        if ranges:
            self.gaps = <bkm_gap *>PyMem_Malloc(len(ranges) * sizeof(bkm_gap))
            if self.gaps == NULL:
                raise MemoryError()
        for first, end in ranges:
            self.gaps[count] = bkm_gap(first, end)
            count += 1
        if self.view.shape[0]:
            start = &self.view[0]
        if not bkm_damaged_open(&self.damaged, start, <uint64_t>self.view.shape[0], self.gaps, count):
            raise self.failure()
        self.damaged.bolt.go_on = handle_signals
        self.damaged.bolt.context = <void *>self

    def __dealloc__(self):
        bkm_bolt_close(&self.damaged.bolt)
        PyMem_Free(self.gaps)

    cdef bint handle_signals(self):
        try:
            PyErr_CheckSignals()
        except BaseException as error:
            self.interrupt = error
            return False
        return True

    cdef object failure(self):
        cdef bkm_bolt *bolt = &self.damaged.bolt
        if bolt.rule == BKM_INTERRUPTED:
            error, self.interrupt = self.interrupt, None
            return error
        if bolt.rule == BKM_NO_MEMORY:
            return MemoryError()
        cdef object page = -1 if bolt.rule_page == BKM_NO_PAGE else bolt.rule_page
        return CorruptDatabaseError(bkm_rule_text(bolt.rule).decode(), path=self.path, page=page)

    @property
    def page_size(self):
        """Page size in bytes."""
        return self.damaged.bolt.page_size

    @property
    def transaction(self):
        """Number of the transaction whose state is read."""
        return self.damaged.bolt.transaction

    @property
    def sequence(self):
        """Sequence of the root bucket."""
        return self.damaged.bolt.root_sequence

    @property
    def other_meta(self):
        """Why a meta page is invalid; "" if both are valid."""
        return bkm_rule_text(self.damaged.bolt.other_meta).decode()

    @property
    def is_newest(self):
        """Whether this is the newest state of which the file knows."""
        return self.damaged.newest == BKM_OK

    @property
    def is_verified(self):
        """Whether the meta page of this state is valid."""
        return not self.damaged.unverified

    def salvage(self, Builder builder not None, size_t most):
        """Copies what can be read into `builder`: (buckets, keys, losses, number of losses, unreached).

        Losses, at most `most` of them: (path of the bucket, page number or -1, first key or None, key after
        the last one or None, broken rule). Unreached: number of pages that are neither in use nor free, None
        if the free list can't be read. Releases the GIL. Errors of the builder's sink are passed on.
        """
        cdef _Losses losses = _Losses(most)
        cdef bkm_kept kept
        cdef bint ok
        self.enter()
        try:
            builder.enter()
            with nogil:
                ok = bkm_salvage(&self.damaged, builder.builder, collect, <void *>losses, &kept)
            if ok or bkm_builder_status(builder.builder) != BKM_BUILD_OK:
                builder.leave()
            else:
                builder.fail()
            if not ok:
                if losses.error is not None:
                    raise losses.error
                if bkm_builder_status(builder.builder) != BKM_BUILD_OK:
                    raise builder.failure()
                raise self.failure()
        finally:
            self.leave()
        unreached = None if kept.unreached == BKM_NO_PAGE else kept.unreached
        return kept.buckets, kept.keys, losses.found, losses.count, unreached
