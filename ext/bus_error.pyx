"""Handler of bus errors: accesses to a mapped file that was cut off. The stub documents types."""

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
    """From now on, an access to a mapped file where it has been cut off (SIGBUS) ends the process.

    ``error`` is written to descriptor 2, ``output`` to 1, and the exit status is ``status``; no Python code
    runs, and nothing is cleaned up. It is for a program that owns its process, not for a library. Raises
    RuntimeError if it is installed already.
    """
    global said
    if said:
        raise RuntimeError("the handler of bus errors is installed already")
    said = (error, output)
    if not bkm_bus_error_install(words(error), words(output), status):
        said = ()
        PyErr_SetFromErrno(OSError)


def remove():
    """Give the signal back to who had it before; nothing if the handler is not installed."""
    global said
    if said:
        bkm_bus_error_remove()
        said = ()
