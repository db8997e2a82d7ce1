"""core/column.h"""


cdef extern from "core/column.h" nogil:
    const size_t BKM_MAX_ROWS

    void *bkm_column(size_t count, size_t size)
    void bkm_column_give_back()
