"""Whole columns at once: sets of rows, look-ups, numbers. The stub documents types."""

cimport cython
from cpython cimport array as c_array
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcmp, memcpy, memset

from buildkit_migrate._native.bolt cimport Column
from buildkit_migrate._native.guard cimport Guarded
from columns_lookup cimport (
    bkm_find_repeated,
    bkm_lookup,
    bkm_lookup_find,
    bkm_lookup_find_all,
    bkm_lookup_free,
    bkm_lookup_hash,
    bkm_lookup_make,
)
from core_column cimport BKM_MAX_ROWS, bkm_column_give_back
from core_span cimport bkm_span, to_span
from core_spans cimport bkm_spans, bkm_spans_add, bkm_spans_free, bkm_spans_get, bkm_spans_room

from array import array as _array


cdef extern from "columns/compare.h" nogil:
    void bkm_present(const bkm_spans *column, uint8_t *found)
    void bkm_equal(const bkm_spans *left, const bkm_spans *right, uint8_t *found)
    void bkm_equal_to(const bkm_spans *column, bkm_span value, uint8_t *found)
    void bkm_starting_with(const bkm_spans *column, bkm_span prefix, uint8_t *found)
    bint bkm_split_last(const bkm_spans *column, bkm_span separator, bkm_spans *before, bkm_spans *after)
    bint bkm_take(const bkm_spans *column, const int32_t *rows, size_t count, bkm_spans *taken)


cdef c_array.array ROWS = _array("i")
cdef c_array.array NUMBERS = _array("q")


cdef c_array.array rows_of(object numbers):
    """Row numbers as an array of type code "i"."""
    if isinstance(numbers, _array) and numbers.typecode == "i":
        return numbers
    return _array("i", numbers)


cdef c_array.array unshared(c_array.array made, object given):
    """Of an array that the caller has, a copy: another thread may change that while the GIL is released."""
    return c_array.copy(made) if made is given and len(made) else made


cdef c_array.array numbers_of(object numbers):
    if isinstance(numbers, _array) and numbers.typecode == "q":
        return numbers
    return _array("q", numbers)


# --- Sets of rows

cdef Mask new_mask(Py_ssize_t size):
    """An empty mask."""
    cdef Mask mask = Mask.__new__(Mask)
    mask.flags = <uint8_t *>calloc(size + 1, 1)
    if mask.flags == NULL:
        raise MemoryError
    mask.rows = size
    mask.leave()
    return mask


@cython.final
cdef class Mask(Guarded):
    """A set of rows of a table with `size` rows. `&`, `|`, `^`, `-`, `~` return new masks.

    `len` is the number of rows in the set; iteration is in ascending order. Combining masks of different
    sizes raises ValueError.
    """

    def __init__(self, Py_ssize_t size, rows=()):
        self.begin()
        if size < 0 or <size_t>size > BKM_MAX_ROWS:
            raise ValueError("a table can't have so many rows")
        self.flags = <uint8_t *>calloc(size + 1, 1)
        if self.flags == NULL:
            raise MemoryError
        self.rows = size
        cdef c_array.array numbers
        cdef Py_ssize_t at
        if isinstance(rows, _array) and rows.typecode == "i":
            numbers = rows
            for at in range(len(numbers)):
                self.put(numbers.data.as_ints[at])
        else:
            for row in rows:
                self.put(row)
        self.leave()

    def __dealloc__(self):
        free(self.flags)

    @property
    def size(self):
        """Number of rows of the table."""
        self.idle()
        return self.rows

    cdef int put(self, Py_ssize_t row) except -1:
        if row < 0 or row >= self.rows:
            raise IndexError("row out of range")
        self.flags[row] = 1
        return 0

    def add(self, Py_ssize_t row):
        """Adds a row. Raises IndexError if the table does not have it."""
        self.idle()
        self.put(row)

    def __contains__(self, row):
        self.idle()
        cdef Py_ssize_t at = row
        return 0 <= at < self.rows and self.flags[at] != 0

    def __iter__(self):
        self.idle()
        cdef const uint8_t *found
        cdef Py_ssize_t at = 0
        while True:
            found = <const uint8_t *>memchr(self.flags + at, 1, self.rows - at)
            if found == NULL:
                return
            at = found - self.flags
            yield at
            at += 1

    def __len__(self):
        self.idle()
        cdef Py_ssize_t row, count = 0
        for row in range(self.rows):
            count += self.flags[row]
        return count

    def __bool__(self):
        self.idle()
        return memchr(self.flags, 1, self.rows) != NULL

    def __eq__(self, other):
        if not isinstance(other, Mask):
            return NotImplemented
        self.idle()
        (<Mask>other).idle()
        return self.rows == (<Mask>other).rows and memcmp(self.flags, (<Mask>other).flags, self.rows) == 0

    __hash__ = None

    cdef Mask paired(self, Mask other):
        """A copy to combine with `other` in place."""
        self.idle()
        other.idle()
        if self.rows != other.rows:
            raise ValueError("masks of tables of different sizes")
        cdef Mask result = new_mask(self.rows)
        memcpy(result.flags, self.flags, self.rows)
        return result

    def __and__(Mask self not None, Mask other not None):
        cdef Mask result = self.paired(other)
        cdef Py_ssize_t row
        for row in range(result.rows):
            result.flags[row] &= other.flags[row]
        return result

    def __or__(Mask self not None, Mask other not None):
        cdef Mask result = self.paired(other)
        cdef Py_ssize_t row
        for row in range(result.rows):
            result.flags[row] |= other.flags[row]
        return result

    def __xor__(Mask self not None, Mask other not None):
        cdef Mask result = self.paired(other)
        cdef Py_ssize_t row
        for row in range(result.rows):
            result.flags[row] ^= other.flags[row]
        return result

    def __sub__(Mask self not None, Mask other not None):
        cdef Mask result = self.paired(other)
        cdef Py_ssize_t row
        for row in range(result.rows):
            result.flags[row] &= other.flags[row] ^ 1
        return result

    def __invert__(self):
        self.idle()
        cdef Mask result = new_mask(self.rows)
        cdef Py_ssize_t row
        for row in range(result.rows):
            result.flags[row] = self.flags[row] ^ 1
        return result

    def take(self, rows):
        """The mask of another table: its rows that refer to a row in this set.

        `rows`: the row that each row refers to, or a negative number. Raises IndexError for a row that
        this table does not have.
        """
        self.idle()
        cdef c_array.array numbers = rows_of(rows)
        cdef Py_ssize_t count = len(numbers), at
        cdef Mask result = new_mask(count)
        cdef int row
        for at in range(count):
            row = numbers.data.as_ints[at]
            if row >= self.rows:
                raise IndexError("row out of range")
            result.flags[at] = row >= 0 and self.flags[row]
        return result


# --- Columns

cdef Column column_of(object values):
    return values if isinstance(values, Column) else column(values)


def column(values):
    """A column with copies of byte strings; entries may be None. Raises TypeError for anything else."""
    cdef bkm_spans spans
    cdef bkm_span span
    cdef uint8_t *place
    memset(&spans, 0, sizeof(bkm_spans))
    try:
        for value in values:
            span.data = NULL
            span.size = 0
            if value is not None:
                if not isinstance(value, bytes):
                    raise TypeError(f"an entry is bytes or None, not {type(value).__name__}")
                span = to_span(value)
                place = bkm_spans_room(&spans, <size_t>span.size + 1)
                if place == NULL:
                    raise MemoryError
                memcpy(place, span.data, span.size)
                span.data = place
            if spans.count == BKM_MAX_ROWS or not bkm_spans_add(&spans, span):
                raise MemoryError
        return Column.adopt(&spans, None)
    finally:
        bkm_spans_free(&spans)


cdef enum:
    SEVERAL = 1000  # keys looked up one by one; for more of them a table pays


@cython.final
cdef class Index(Guarded):
    """Finds rows of a column by their entries; the first of several equal ones."""

    cdef bkm_lookup lookup
    cdef Column column
    cdef int asked  # for single keys, up to SEVERAL

    def __init__(self, column):
        self.begin()
        cdef Column keys = column_of(column)
        cdef bint made
        keys.enter()
        try:
            with nogil:
                made = bkm_lookup_make(&self.lookup, &keys.spans)
        finally:
            keys.leave()
        self.column = keys
        if not made:
            raise MemoryError
        self.leave()

    def __dealloc__(self):
        bkm_lookup_free(&self.lookup)

    def row(self, bytes key not None):
        """The row of an entry, or NOT_FOUND (-1)."""
        self.idle()
        cdef bint ok = True
        if self.asked < SEVERAL:
            self.asked += 1
            if self.asked == SEVERAL:
                self.enter()
                with nogil:
                    ok = bkm_lookup_hash(&self.lookup)
                self.leave()
        if not ok:
            raise MemoryError
        return bkm_lookup_find(&self.lookup, to_span(key))

    def rows(self, column):
        """The row of each entry as an array of type code "i"; NOT_FOUND (-1), or ABSENT (-2) for None."""
        cdef Column entries = column_of(column)
        entries.idle()
        cdef c_array.array found = c_array.clone(ROWS, entries.spans.count, False)
        cdef bint ok
        self.enter()
        try:
            with nogil:
                ok = bkm_lookup_find_all(&self.lookup, &entries.spans, <int32_t *>found.data.as_ints)
        finally:
            self.leave()
        if not ok:
            raise MemoryError
        return found


def present(column):
    """Rows whose entry is not None."""
    cdef Column entries = column_of(column)
    entries.idle()
    cdef Mask found = new_mask(entries.spans.count)
    with nogil:
        bkm_present(&entries.spans, found.flags)
    return found


cdef int check_lengths(Column left, Column right) except -1:
    left.idle()
    right.idle()
    if left.spans.count != right.spans.count:
        raise ValueError("columns of different lengths")
    return 0


def equal(left, right):
    """Rows that have the same entry in both columns. Raises ValueError if they differ in length."""
    cdef Column a = column_of(left), b = column_of(right)
    check_lengths(a, b)
    cdef Mask found = new_mask(a.spans.count)
    with nogil:
        bkm_equal(&a.spans, &b.spans, found.flags)
    return found


def equal_to(column, bytes value not None):
    """Rows with this entry."""
    cdef Column entries = column_of(column)
    cdef bkm_span wanted = to_span(value)
    entries.idle()
    cdef Mask found = new_mask(entries.spans.count)
    with nogil:
        bkm_equal_to(&entries.spans, wanted, found.flags)
    return found


def starting_with(column, bytes prefix not None):
    """Rows with an entry that starts with `prefix`."""
    cdef Column entries = column_of(column)
    cdef bkm_span wanted = to_span(prefix)
    entries.idle()
    cdef Mask found = new_mask(entries.spans.count)
    with nogil:
        bkm_starting_with(&entries.spans, wanted, found.flags)
    return found


def between(numbers, low, high):
    """Rows with a number from `low` to `high`, inclusive.

    `numbers`: row numbers, kinds or other integers; arrays of type codes "i", "q" and "b" are fastest.
    """
    if not isinstance(numbers, _array) or numbers.typecode not in "bq":
        numbers = rows_of(numbers) if isinstance(numbers, _array) else numbers_of(numbers)
    cdef c_array.array values = numbers
    cdef int64_t least = max(low, -(2**63)), most = min(high, 2**63 - 1)
    cdef Py_ssize_t row
    cdef Mask found = new_mask(len(values))
    cdef uint8_t *flags = found.flags
    cdef const int *rows = values.data.as_ints
    cdef const long long *wide = values.data.as_longlongs
    cdef const signed char *narrow = values.data.as_schars
    if values.typecode == "i":
        for row in range(found.rows):
            flags[row] = least <= rows[row] <= most
    elif values.typecode == "q":
        for row in range(found.rows):
            flags[row] = least <= wide[row] <= most
    else:
        for row in range(found.rows):
            flags[row] = least <= narrow[row] <= most
    return found


def take(column, rows):
    """The entries of `rows`, in that order; None for NOT_FOUND and ABSENT. Raises IndexError."""
    cdef Column entries = column_of(column)
    cdef c_array.array numbers = unshared(rows_of(rows), rows)
    cdef Py_ssize_t count = len(numbers), at
    cdef bkm_spans taken
    cdef bint ok
    entries.idle()
    for at in range(count):
        if numbers.data.as_ints[at] >= <Py_ssize_t>entries.spans.count:
            raise IndexError("row out of range")
    with nogil:
        ok = bkm_take(&entries.spans, <const int32_t *>numbers.data.as_ints, count, &taken)
    try:
        if not ok:
            raise MemoryError
        return Column.adopt(&taken, entries)
    finally:
        bkm_spans_free(&taken)


def split_last(column, bytes separator not None):
    """The parts before and after the last `separator` of each entry; both None if it has none.

    Raises ValueError for an empty separator.
    """
    cdef Column entries = column_of(column)
    cdef bkm_span mark = to_span(separator)
    cdef bkm_spans before, after
    cdef bint ok
    if mark.size == 0:
        raise ValueError("empty separator")
    entries.idle()
    memset(&before, 0, sizeof(bkm_spans))
    memset(&after, 0, sizeof(bkm_spans))
    with nogil:
        ok = bkm_split_last(&entries.spans, mark, &before, &after)
    try:
        if not ok:
            raise MemoryError
        return Column.adopt(&before, entries), Column.adopt(&after, entries)
    finally:
        bkm_spans_free(&before)
        bkm_spans_free(&after)


def repeated(numbers):
    """Rows with a number that an earlier row has already."""
    cdef c_array.array values = unshared(numbers_of(numbers), numbers)
    cdef Py_ssize_t count = len(values)
    cdef Mask found = new_mask(count)
    cdef bint ok
    with nogil:
        ok = bkm_find_repeated(<const int64_t *>values.data.as_longlongs, count, found.flags)
    if not ok:
        raise MemoryError
    return found


def count_rows(rows, Py_ssize_t size):
    """How often each row from 0 to `size` - 1 occurs: an array of type code "i".

    Raises IndexError for a row that does not exist, ValueError for a size that no table has.
    """
    if size < 0 or <size_t>size > BKM_MAX_ROWS:
        raise ValueError("a table can't have so many rows")
    cdef c_array.array numbers = rows_of(rows)
    cdef c_array.array counts = c_array.clone(ROWS, size, True)
    cdef Py_ssize_t at
    cdef int row
    for at in range(len(numbers)):
        row = numbers.data.as_ints[at]
        if row >= size:
            raise IndexError("row out of range")
        if row >= 0:
            counts.data.as_ints[row] += 1
    return counts


def lengths(column):
    """Length of each entry in bytes, 0 for None: an array of type code "q"."""
    cdef Column entries = column_of(column)
    entries.idle()
    cdef c_array.array found = c_array.clone(NUMBERS, entries.spans.count, False)
    cdef size_t row
    for row in range(entries.spans.count):
        found.data.as_longlongs[row] = bkm_spans_get(&entries.spans, row).size
    return found


def give_back():
    """Memory of large columns goes back to the system when it is freed, in this process from now on."""
    bkm_column_give_back()
