"""C face of the guard, for the other extension modules. All of it is called with the GIL held."""


cdef enum Use:
    NEW     # not initialised
    IDLE
    BUSY    # a call is running that has released the GIL or called back into Python
    FAILED  # a call failed halfway, and what it left behind means nothing


cdef int refuse(Guarded guarded) except -1
cdef int refuse_again(Guarded guarded) except -1


cdef class Guarded:
    cdef Use use

    cdef inline int begin(self) except -1:
        """First in each ``__init__``, which ends with `leave`: what fails in between is of no use."""
        if self.use != NEW:
            refuse_again(self)
        self.use = FAILED
        return 0

    cdef inline int idle(self) except -1:
        """Before a call that keeps the GIL and runs no Python code."""
        if self.use != IDLE:
            refuse(self)
        return 0

    cdef inline int enter(self) except -1:
        """Before any other call, which ends with `leave` or `fail`."""
        if self.use != IDLE:
            refuse(self)
        self.use = BUSY
        return 0

    cdef inline void leave(self) noexcept:
        self.use = IDLE

    cdef inline void fail(self) noexcept:
        self.use = FAILED


cdef class GuardedIterator(Guarded):
    # The next item; None at the end, however often it is called.
    cdef object step(self)
