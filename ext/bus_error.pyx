"""Python face of the handler of bus errors. The stub documents it."""

from cpython.exc cimport PyErr_SetFromErrno


cdef extern from "core/bus_error_handler.h" nogil:
    ctypedef struct bkm_words:
        const char *text
        size_t size

    bint bkm_bus_error_install(bkm_words error, bkm_words output, int status)
    void bkm_bus_error_remove()


cdef tuple said = ()  # what the handler points at


cdef bkm_words words(bytes text) except *:
    return bkm_words(<const char *>text, <size_t>len(text))


def install(bytes error not None, bytes output not None, int status):
    global said
    if said:
        raise RuntimeError("the handler of bus errors is installed already")
    said = (error, output)
    if not bkm_bus_error_install(words(error), words(output), status):
        said = ()
        PyErr_SetFromErrno(OSError)


def remove():
    global said
    if said:
        bkm_bus_error_remove()
        said = ()
