"""Base class of all native objects, which turns misuse into exceptions. Types are in the stub."""


cdef int refuse(Guarded guarded) except -1:
    name = type(guarded).__name__
    if guarded.use == NEW:
        raise TypeError(f"the {name} was not initialised")
    if guarded.use == FAILED:
        raise RuntimeError(f"the {name} can't be used after an earlier failure")
    raise RuntimeError(f"the {name} is in use, by another thread or by an outer call")


cdef int refuse_again(Guarded guarded) except -1:
    raise TypeError(f"a {type(guarded).__name__} can only be initialised once")


cdef class Guarded:
    """Base class of native objects.

    Raises TypeError on an attempt to initialise an object twice, copy or pickle it, or use it before it is
    initialised; RuntimeError on use during another call (in another thread or from a callback), or after a
    call failed halfway.
    """

    def __init__(self, *_, **__):
        self.begin()
        self.leave()

    def __reduce_ex__(self, _):
        raise TypeError(f"a {type(self).__name__} can't be copied or pickled")


cdef class GuardedIterator(Guarded):
    """An iterator that stays failed once it has raised anything but StopIteration."""

    def __iter__(self):
        return self

    def __next__(self):
        self.enter()
        try:
            item = self.step()
        except BaseException:
            self.fail()
            raise
        self.leave()
        if item is None:
            raise StopIteration
        return item

    cdef object step(self):
        return None
