def install(error: bytes, output: bytes, status: int) -> None:
    """From now on, an access to a mapped file where it has been cut off (SIGBUS) ends the process.

    ``error`` is written to descriptor 2, ``output`` to 1, and the exit status is ``status``; no Python code
    runs, and nothing is cleaned up. It is for a program that owns its process, not for a library. Raises
    RuntimeError if it is installed already.
    """

def remove() -> None:
    """Give the signal back to who had it before; nothing if the handler is not installed."""
