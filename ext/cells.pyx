"""The records of a v2 store, read in one walk. The stub documents types."""

cimport cython
from cpython cimport array as c_array
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from buildkit_migrate._native.bolt cimport Bucket, Column, Reader
from buildkit_migrate._native.columns cimport Mask, new_mask
from buildkit_migrate._native.guard cimport Guarded
from bolt_reader cimport bkm_bolt, bkm_bucket, c_bool
from core_span cimport bkm_span, to_bytes, to_span
from core_spans cimport bkm_spans, bkm_spans_free, bkm_spans_set

from array import array as _array


cdef extern from "columns/cells.h" nogil:
    enum:
        BKM_MAX_CELL_KEYS
        BKM_CELL_TEXT
        BKM_CELL_INTEGER
        BKM_CELL_FLAG
        BKM_CELL_TEXTS
        BKM_CELL_ANY
        BKM_CELL_FORMS

    ctypedef struct bkm_cell_key:
        bkm_span name
        int form
        c_bool kept

    ctypedef struct bkm_odd_cell:
        uint32_t row
        bkm_span key
        bkm_span value

    ctypedef struct bkm_cells:
        c_bool unchecked
        size_t key_count
        bkm_cell_key *keys
        bkm_spans ids
        bkm_spans values
        bkm_spans plain
        bkm_odd_cell *odd
        size_t odd_count
        size_t wanted_count

    void bkm_cells_begin(bkm_cells *cells)
    bint bkm_cells_read(bkm_cells *cells, bkm_bolt *bolt, const bkm_bucket *main_bucket)
    void bkm_cells_free(bkm_cells *cells)
    bint bkm_cells_want(bkm_cells *cells, uint32_t row, bkm_span index)
    bint bkm_cells_compare(const bkm_cells *cells, const bkm_spans *entries, uint32_t *missing,
                           size_t *missing_count, uint8_t *stray)
    void bkm_cells_drop(bkm_cells *cells, const c_bool *dropped)
    bint bkm_cells_spans(const bkm_cells *cells, uint8_t key, bkm_spans *column)
    void bkm_cells_has(const bkm_cells *cells, uint8_t key, uint8_t *found)
    void bkm_cells_numbers(const bkm_cells *cells, uint8_t key, int64_t *values, uint8_t *known)
    bint bkm_cells_lists(const bkm_cells *cells, uint8_t key, int32_t **rows, bkm_spans *strings)


TEXT = BKM_CELL_TEXT
INTEGER = BKM_CELL_INTEGER
FLAG = BKM_CELL_FLAG
TEXTS = BKM_CELL_TEXTS
ANY = BKM_CELL_ANY
cdef tuple ALL = (TEXT, INTEGER, FLAG, TEXTS, ANY)

cdef c_array.array ROWS = _array("i")
cdef c_array.array NUMBERS = _array("q")


@cython.final
cdef class Cells(Guarded):
    """All values of the records in the bucket `_main`; `main` is None if the bucket does not exist.

    `keys`: the known keys, each with its form (TEXT, INTEGER, FLAG, TEXTS, ANY) and whether its values are
    kept for the columns. Values in exactly the form that BuildKit writes are checked here; all others are
    `odd`, and the caller must check them. `unchecked`: values are only kept, as an earlier walk has checked
    them; none is odd, and none has an index. Raises `errors.CorruptDatabaseError`.
    """

    cdef bkm_cells cells
    cdef Column others
    cdef Reader reader
    cdef dict numbers     # key to its number
    cdef list names       # memory that the spans of the keys point into

    def __init__(self, Reader reader not None, Bucket main, keys, *, bint unchecked=False):
        self.begin()
        cdef size_t count = 0
        cdef bint read
        cdef bkm_bucket *bucket = NULL
        self.reader = reader
        self.numbers = {}
        self.names = []
        for name, form, kept in keys:
            if not isinstance(name, bytes):
                raise TypeError(f"a key is bytes, not {type(name).__name__}")
            usable = count < BKM_MAX_CELL_KEYS and 0 <= form < BKM_CELL_FORMS
            if not usable or not name or name in self.numbers:
                raise ValueError("unusable keys")
            self.names.append(name)
            self.cells.keys[count].name = to_span(name)
            self.cells.keys[count].form = form
            self.cells.keys[count].kept = kept
            self.numbers[name] = count
            count += 1
        self.cells.key_count = count
        self.cells.unchecked = unchecked
        bkm_cells_begin(&self.cells)
        if main is not None:
            if main.reader is not reader:
                raise ValueError("the bucket is of another file")
            main.idle()
            bucket = &main.handle
        reader.enter()
        try:
            with nogil:
                read = bkm_cells_read(&self.cells, &reader.bolt, bucket)
            if not read:
                raise reader.failure()
        finally:
            reader.leave()
        self.others = Column.adopt(&self.cells.plain, reader)
        self.leave()

    def __dealloc__(self):
        bkm_cells_free(&self.cells)

    @property
    def ids(self):
        """Ids of the records, in byte order."""
        self.idle()
        return Column.share(&self.cells.ids, self)

    @property
    def plain(self):
        """Keys of `_main` that are not buckets."""
        self.idle()
        return self.others

    def __len__(self):
        self.idle()
        return self.cells.ids.count

    cdef uint8_t number(self, bytes key, tuple forms) except? 255:
        self.idle()
        cdef object number = self.numbers.get(key)
        if number is None or not self.cells.keys[<size_t>number].kept:
            raise KeyError(key)
        if self.cells.keys[<size_t>number].form not in forms:
            raise KeyError(key)
        return number

    def odd(self):
        """(Row, key, value) of all values that the caller must check; the value is None for a bucket."""
        self.idle()
        cdef size_t at
        found = []
        for at in range(self.cells.odd_count):
            value = self.cells.odd[at].value
            found.append((
                self.cells.odd[at].row,
                to_bytes(self.cells.odd[at].key),
                None if value.data == NULL else to_bytes(value),
            ))
        return found

    def want(self, Py_ssize_t row, bytes index not None):
        """Adds the index that an odd value of a record has."""
        self.idle()
        if row < 0 or row >= <Py_ssize_t>self.cells.ids.count:
            raise IndexError("row out of range")
        if not bkm_cells_want(&self.cells, row, to_span(index)):
            raise MemoryError

    def compare(self, Column entries not None):
        """Compares the indexes of all values with `entries`, the keys of `_index`: (missing, stray).

        `missing`: rows of records (type code "i"), once for each value whose entry is missing. `stray`: mask
        of entries that belong to no value.
        """
        cdef size_t count = 0
        cdef bint ok
        cdef c_array.array missing
        cdef Mask stray
        entries.idle()
        self.enter()
        try:
            missing = c_array.clone(ROWS, self.cells.wanted_count, False)
            stray = new_mask(entries.spans.count)
            with nogil:
                ok = bkm_cells_compare(
                    &self.cells, &entries.spans, <uint32_t *>missing.data.as_ints, &count, stray.flags
                )
        finally:
            self.leave()
        if not ok:
            raise MemoryError
        return missing[:count], stray

    cdef Column made(self, bkm_spans *spans, bint ok):
        try:
            if not ok:
                raise MemoryError
            return Column.adopt(spans, self)
        finally:
            bkm_spans_free(spans)

    def drop(self, keys):
        """Gives back the memory of the values of these keys, which are not kept any more. Raises KeyError."""
        cdef c_bool dropped[BKM_MAX_CELL_KEYS]
        cdef size_t number
        memset(dropped, 0, sizeof(dropped))
        for key in keys:
            dropped[self.number(key, ALL)] = True
        self.enter()
        try:
            for number in range(self.cells.key_count):
                if dropped[number]:
                    self.cells.keys[number].kept = False
            with nogil:
                bkm_cells_drop(&self.cells, dropped)
        finally:
            self.leave()

    def stored(self, bytes key not None):
        """The values of a key of form ANY as stored, except cleared ones. Raises KeyError."""
        cdef uint8_t number = self.number(key, (ANY,))
        cdef bkm_spans spans
        cdef bint ok
        with nogil:
            ok = bkm_cells_spans(&self.cells, number, &spans)
        return self.made(&spans, ok)

    def has(self, bytes key not None):
        """Rows with a value of a key that is not cleared, of its form or not. Raises KeyError."""
        cdef uint8_t number = self.number(key, ALL)
        cdef Mask found = new_mask(self.cells.ids.count)
        with nogil:
            bkm_cells_has(&self.cells, number, found.flags)
        return found

    def texts(self, bytes key not None, dict others not None):
        """Decoded strings of a key of form TEXT, or None. `others`: strings of odd values by row.

        Raises KeyError.
        """
        cdef uint8_t number = self.number(key, (TEXT,))
        cdef bkm_spans spans
        cdef bint ok
        with nogil:
            ok = bkm_cells_spans(&self.cells, number, &spans)
        cdef Column column = self.made(&spans, ok)
        cdef Py_ssize_t row
        cdef bytes text
        items = list(others.items())
        column.owner = (self, items)  # keeps the texts alive
        for row, text in items:
            if row < 0 or row >= <Py_ssize_t>column.spans.count:
                raise IndexError("row out of range")
            if text is None:
                raise TypeError("a text is bytes, not None")
            if not bkm_spans_set(&column.spans, row, to_span(text)):
                raise MemoryError
        return column

    def integers(self, bytes key not None):
        """Decoded numbers: (values, known), type code "q" and a mask; flags are 0 or 1.

        Raises KeyError, as for a key of another form than INTEGER and FLAG.
        """
        cdef uint8_t number = self.number(key, (INTEGER, FLAG))
        cdef c_array.array values = c_array.clone(NUMBERS, self.cells.ids.count, False)
        cdef Mask known = new_mask(self.cells.ids.count)
        with nogil:
            bkm_cells_numbers(&self.cells, number, <int64_t *>values.data.as_longlongs, known.flags)
        return values, known

    def lists(self, bytes key not None):
        """Strings of decoded lists: (rows, strings), each with its row (type code "i").

        Raises KeyError, as for a key of another form than TEXTS.
        """
        cdef uint8_t number = self.number(key, (TEXTS,))
        cdef int32_t *rows
        cdef bkm_spans spans
        cdef bint ok
        with nogil:
            ok = bkm_cells_lists(&self.cells, number, &rows, &spans)
        cdef c_array.array numbers
        try:
            numbers = c_array.clone(ROWS, spans.count, False)
            if spans.count:
                memcpy(numbers.data.as_ints, rows, spans.count * sizeof(int))
            return numbers, self.made(&spans, ok)
        finally:
            free(rows)
            bkm_spans_free(&spans)
