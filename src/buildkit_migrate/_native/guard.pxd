"""C interface of the guard, for the other extension modules. Call all of it with the GIL held."""


cdef enum Use:
    NEW     # not initialised
    IDLE
    BUSY    # a call is running that has released the GIL or called back into Python
    FAILED  # a call failed halfway and left the object in an undefined state


cdef int refuse(Guarded guarded) except -1
cdef int refuse_again(Guarded guarded) except -1


cdef class Guarded:
    cdef Use use

    cdef inline int begin(self) except -1:
        """Call this first in each ``__init__``, and `leave` last: objects that fail in between are unusable.
        """
        if self.use != NEW:
            refuse_again(self)
        self.use = FAILED
        return 0

    cdef inline int idle(self) except -1:
        """Call this before work that keeps the GIL and runs no Python code."""
        if self.use != IDLE:
            refuse(self)
        return 0

    cdef inline int enter(self) except -1:
        """Call this before any other work, and `leave` or `fail` after it."""
        if self.use != IDLE:
            refuse(self)
        self.use = BUSY
        return 0

    cdef inline void leave(self) noexcept:
        self.use = IDLE

    cdef inline void fail(self) noexcept:
        self.use = FAILED


cdef class GuardedIterator(Guarded):
    # Returns the next item; None at the end, even if called repeatedly.
    cdef object step(self)
