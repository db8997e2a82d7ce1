"""SIGBUS handler for accesses to a mapped file that was truncated. Types are in the stub."""

from cpython.exc cimport PyErr_SetFromErrno


cdef extern from "core/bus_error_handler.h" nogil:
    ctypedef struct bkm_words:
        const char *text
        size_t size

    bint bkm_bus_error_install(bkm_words error, bkm_words output, int status)
    void bkm_bus_error_remove()


cdef tuple texts = ()  # keeps the texts that the handler points to alive


cdef bkm_words as_words(bytes text) except *:
    return bkm_words(<const char *>text, <size_t>len(text))


def install(bytes error not None, bytes output not None, int status):
    """Installs a SIGBUS handler that ends the process when it reads a mapped file beyond its truncated end.

    The handler writes ``error`` to descriptor 2 and ``output`` to 1, and exits with ``status``. It runs no
    Python code and no cleanup, so it is for programs that own their process, not for libraries. Raises
    RuntimeError if it is installed already.
    """
    global texts
    if texts:
        raise RuntimeError("the SIGBUS handler is installed already")
    texts = (error, output)
    if not bkm_bus_error_install(as_words(error), as_words(output), status):
        texts = ()
        PyErr_SetFromErrno(OSError)


def remove():
    """Restores the previous signal handler. Does nothing if this one is not installed."""
    global texts
    if texts:
        bkm_bus_error_remove()
        texts = ()
