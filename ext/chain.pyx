"""Chain ids of many records at once (buildkit-metadata, section 4, pass 4). Types are in the stub."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MAX, UINT32_MAX, int32_t, uint8_t
from libc.stdlib cimport calloc, free

from buildkit_migrate._native.guard cimport Guarded
from chain_engine cimport (
    BKM_CHAIN_BAD_INPUT,
    BKM_CHAIN_NO_MEMORY,
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
