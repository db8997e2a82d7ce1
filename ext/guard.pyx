"""What all native objects have in common: misuse is an exception. The stub documents types."""


cdef int refuse(Guarded guarded) except -1:
    name = type(guarded).__name__
    if guarded.use == NEW:
        raise TypeError(f"the {name} was not initialised")
    if guarded.use == FAILED:
        raise RuntimeError(f"the {name} failed before and can't be used any more")
    raise RuntimeError(f"the {name} is in use, by another thread or by the call that led to this one")


cdef int refuse_again(Guarded guarded) except -1:
    raise TypeError(f"a {type(guarded).__name__} is initialised once")


cdef class Guarded:
    """A native object.

    It refuses to be initialised twice, copied or pickled, or used before it is initialised (TypeError); and
    to be used while a call of it runs, in another thread or from a callback, or after a call failed halfway
    (RuntimeError).
    """

    def __init__(self, *_, **__):
        self.begin()
        self.leave()

    def __reduce_ex__(self, _):
        raise TypeError(f"a {type(self).__name__} can't be copied or pickled")


cdef class GuardedIterator(Guarded):
    """An iterator that, once it has raised anything but StopIteration, doesn't go on."""

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
