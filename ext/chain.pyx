"""Chain ids of many records at once (buildkit-metadata, section 4, pass 4). Types are in the stub."""

cimport cython
from cpython cimport array as c_array
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, UINT32_MAX, int32_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from buildkit_migrate._native.bolt cimport Column
from buildkit_migrate._native.columns cimport Mask, column_of, new_mask, rows_of, unshared
from buildkit_migrate._native.guard cimport Guarded
from chain_engine cimport (
    BKM_CHAIN_BAD_INPUT,
    BKM_CHAIN_NO_MEMORY,
    BKM_CHAIN_OK,
    BKM_CHAIN_STATES,
    BKM_ID_SIZE,
    bkm_blob_chain_id,
    bkm_chain_id,
    bkm_chain_ids,
    bkm_chain_input,
    bkm_chain_output,
    bkm_chain_run,
    bkm_chain_status,
)
from core_column cimport bkm_column
from core_span cimport bkm_span, to_bytes
from core_spans cimport bkm_spans_get
from sha256_kernel cimport bkm_sha256_kernel, select_kernel


# In the order of bkm_chain_state.
STATES = ("empty", "given", "base", "computed", "no-parent", "cycle", "blocked", "skipped")
assert len(STATES) == BKM_CHAIN_STATES


cdef int fill(bkm_span *spans, list values) except -1:
    """Points ``spans`` at the bytes objects in ``values``, which must outlive them."""
    cdef Py_ssize_t i
    cdef bytes value
    for i in range(len(values)):
        value = values[i]
        if value is None:
            raise TypeError("a value must be bytes, not None")
        if PyBytes_GET_SIZE(value) > <Py_ssize_t>UINT32_MAX:
            raise OverflowError("a value must be shorter than 4 GiB")
        spans[i].data = <const uint8_t *>PyBytes_AS_STRING(value)
        spans[i].size = PyBytes_GET_SIZE(value)
    return 0


@cython.final
@cython.auto_pickle(False)
cdef class Batch(Guarded):
    """Input of the chain engine, packed once for any number of runs. Each column holds one value per record.

    ``parents``: index of the parent; -1 for none, -2 for a parent that has no record. ``diff_ids``,
    ``blobs``: b"" if absent; hashed as they are. ``given``: (chainID, blobChainID) already in the store.
    ``skip``: true for records to leave out. ``kernel``: a name from ``sha256.kernels()``.

    Raises ValueError if the columns differ in length, Error if the kernel can't be used.
    """

    cdef bkm_chain_input input
    cdef bkm_chain_output output
    cdef const bkm_sha256_kernel *kernel
    cdef int32_t *parent
    cdef bkm_span *spans  # four columns
    cdef uint8_t *skip
    cdef list held  # owns the bytes that the spans point to

    def __init__(self, parents, diff_ids, blobs, given=None, skip=None, kernel=None):
        cdef list parent_list = list(parents)
        cdef list skips = [] if skip is None else list(skip)
        cdef Py_ssize_t count = len(parent_list)
        cdef Py_ssize_t i
        self.begin()
        self.held = [list(diff_ids), list(blobs)]
        if given is not None:
            pairs = list(given)
            self.held += [[chain for chain, _ in pairs], [blob_chain for _, blob_chain in pairs]]
        lengths = [len(column) for column in self.held] + ([] if skip is None else [len(skips)])
        if any([length != count for length in lengths]):
            raise ValueError("the columns differ in length")
        if count > INT32_MAX:
            raise OverflowError("too many records")
        self.kernel = select_kernel(kernel)

        # One more than needed, because an allocation of zero bytes may return NULL.
        self.parent = <int32_t *>calloc(count + 1, sizeof(int32_t))
        self.spans = <bkm_span *>calloc(4 * count + 1, sizeof(bkm_span))
        self.skip = <uint8_t *>calloc(count + 1, 1)
        self.output.ids = <bkm_chain_ids *>bkm_column(count, sizeof(bkm_chain_ids))
        self.output.state = <uint8_t *>calloc(count + 1, 1)
        if (
            self.parent == NULL or self.spans == NULL or self.skip == NULL or self.output.ids == NULL
            or self.output.state == NULL
        ):
            raise MemoryError
        for i in range(count):
            self.parent[i] = parent_list[i]
        for i in range(len(skips)):
            self.skip[i] = bool(skips[i])
        for i, column in enumerate(self.held):
            fill(self.spans + i * count, column)
        self.input.count = count
        self.input.parent = self.parent
        self.input.diff_id = self.spans
        self.input.blob = self.spans + count
        if given is not None:
            self.input.given_chain = self.spans + 2 * count
            self.input.given_blob_chain = self.spans + 3 * count
        self.input.skip = NULL if skip is None else self.skip
        self.leave()

    def __dealloc__(self):
        free(self.parent)
        free(self.spans)
        free(self.skip)
        free(self.output.ids)
        free(self.output.state)

    def run(self, unsigned threads=1):
        """Computes all ids, without the GIL, on at most this many threads; small batches use only one.

        Raises ValueError if a parent is neither an index nor -1 nor -2.
        """
        cdef bkm_chain_status status
        self.enter()
        with nogil:
            status = bkm_chain_run(&self.input, &self.output, self.kernel, threads)
        self.leave()  # a failed run changes nothing
        if status == BKM_CHAIN_NO_MEMORY:
            raise MemoryError
        if status == BKM_CHAIN_BAD_INPUT:
            raise ValueError("a parent is neither an index of a record nor -1 nor -2")

    def __len__(self):
        self.idle()
        return self.input.count

    def states(self):
        """One byte per record: its index in STATES, as of the last run."""
        self.idle()
        return PyBytes_FromStringAndSize(<const char *>self.output.state, self.input.count)

    def ids(self, Py_ssize_t record):
        """(chainID, blobChainID) of a record, as of the last run. Raises IndexError."""
        cdef uint8_t space[BKM_ID_SIZE]
        self.idle()
        if record < 0 or record >= <Py_ssize_t>self.input.count:
            raise IndexError("record index out of range")
        chain = to_bytes(bkm_chain_id(&self.input, &self.output, record, space))
        return chain, to_bytes(bkm_blob_chain_id(&self.input, &self.output, record, space))

    def results(self):
        """(state, chainID, blobChainID) of each record, as of the last run."""
        return [(STATES[state], *self.ids(i)) for i, state in enumerate(self.states())]


def chain_ids(parents, diff_ids, blobs, given=None, skip=None, kernel=None, unsigned threads=1):
    """Computes (state, chainID, blobChainID) of each record. See Batch and Batch.run for the arguments."""
    batch = Batch(parents, diff_ids, blobs, given, skip, kernel)
    batch.run(threads)
    return batch.results()


cdef enum:
    AT_ONCE = 4096  # layers, each with a stand-in for its parent


cdef bkm_span entry_of(Column column, Py_ssize_t row) noexcept nogil:
    """Of an absent one the empty span, which has bytes to point at."""
    cdef bkm_span entry = bkm_spans_get(&column.spans, row)
    if entry.data == NULL:
        entry.data = <const uint8_t *>b""
        entry.size = 0
    return entry


cdef bint agrees(bkm_span stored, bkm_span right) noexcept nogil:
    """An id that is not there is made when it is needed."""
    return stored.size == 0 or (
        stored.size == right.size and memcmp(stored.data, right.data, stored.size) == 0
    )


def following(Mask layers not None, parents, diff_ids, blobs, chains, blob_chains):
    """Those of `layers` whose stored ids, where they have any, follow from what their parents have stored.

    `parents`: row of each record's parent (type code "i"), negative for none. Nothing follows from a
    parent that lacks one of the ids. `chains`, `blob_chains`: the stored ids. Raises ValueError if columns
    differ in length, IndexError for a parent that does not exist.
    """
    layers.idle()
    cdef c_array.array above = unshared(rows_of(parents), parents)
    cdef Py_ssize_t count = layers.rows, row = 0, at, place
    cdef Mask found = new_mask(count)
    cdef bkm_chain_input input
    cdef bkm_chain_output output
    cdef const bkm_sha256_kernel *kernel = select_kernel(None)
    cdef bkm_chain_status status = BKM_CHAIN_OK
    cdef uint8_t[BKM_ID_SIZE] space
    cdef bkm_span none, chain, blob_chain
    cdef int parent
    cdef Column diffs = column_of(diff_ids), contents = column_of(blobs)
    cdef Column own = column_of(chains), own_blob = column_of(blob_chains)
    for column in (diffs, contents, own, own_blob):
        check_length(column, count)
    if len(above) != count:
        raise ValueError("the columns differ in length")
    for at in range(count):
        if above.data.as_ints[at] >= count:
            raise IndexError("row out of range")
    cdef bkm_span *spans = <bkm_span *>calloc(4 * 2 * AT_ONCE, sizeof(bkm_span))
    cdef int32_t *block_parents = <int32_t *>calloc(2 * AT_ONCE, sizeof(int32_t))
    cdef Py_ssize_t *rows = <Py_ssize_t *>calloc(AT_ONCE, sizeof(Py_ssize_t))
    output.ids = <bkm_chain_ids *>bkm_column(2 * AT_ONCE, sizeof(bkm_chain_ids))
    output.state = <uint8_t *>calloc(2 * AT_ONCE, 1)
    none.data = <const uint8_t *>b""
    none.size = 0
    try:
        if (
            spans == NULL or block_parents == NULL or rows == NULL or output.ids == NULL
            or output.state == NULL
        ):
            raise MemoryError
        input.parent = block_parents
        input.diff_id = spans
        input.blob = spans + 2 * AT_ONCE
        input.given_chain = spans + 4 * AT_ONCE
        input.given_blob_chain = spans + 6 * AT_ONCE
        input.skip = NULL
        with nogil:
            while row < count and status == BKM_CHAIN_OK:
                place = 0
                while row < count and place < AT_ONCE:
                    if layers.flags[row]:
                        rows[place] = row
                        parent = above.data.as_ints[row]
                        chain = blob_chain = none
                        if parent >= 0:
                            chain = entry_of(own, parent)
                            blob_chain = entry_of(own_blob, parent)
                        if chain.size == 0 or blob_chain.size == 0:
                            chain = blob_chain = none
                        at = 2 * place
                        # The stand-in has these ids; that it has content as well only makes it one with ids.
                        block_parents[at] = -1
                        spans[at] = spans[2 * AT_ONCE + at] = chain
                        spans[4 * AT_ONCE + at] = chain
                        spans[6 * AT_ONCE + at] = blob_chain
                        block_parents[at + 1] = <int32_t>at if parent >= 0 else -1
                        spans[at + 1] = entry_of(diffs, row)
                        spans[2 * AT_ONCE + at + 1] = entry_of(contents, row)
                        spans[4 * AT_ONCE + at + 1] = spans[6 * AT_ONCE + at + 1] = none
                        place += 1
                    row += 1
                input.count = 2 * place
                status = bkm_chain_run(&input, &output, kernel, 1)
                if status != BKM_CHAIN_OK:
                    break
                for at in range(place):
                    parent = 2 * at + 1
                    chain = entry_of(own, rows[at])
                    blob_chain = entry_of(own_blob, rows[at])
                    found.flags[rows[at]] = (
                        agrees(chain, bkm_chain_id(&input, &output, parent, space))
                        and agrees(blob_chain, bkm_blob_chain_id(&input, &output, parent, space))
                    )
        if status != BKM_CHAIN_OK:
            raise MemoryError
        return found
    finally:
        free(spans)
        free(block_parents)
        free(rows)
        free(output.ids)
        free(output.state)


cdef int check_length(Column column, Py_ssize_t count) except -1:
    column.idle()
    if <Py_ssize_t>column.spans.count != count:
        raise ValueError("the columns differ in length")
    return 0
