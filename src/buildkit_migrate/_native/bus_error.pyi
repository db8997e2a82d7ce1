def install(error: bytes, output: bytes, status: int) -> None:
    """Installs a SIGBUS handler that ends the process when it reads a mapped file beyond its truncated end.

    The handler writes ``error`` to descriptor 2 and ``output`` to 1, and exits with ``status``. It runs no
    Python code and no cleanup, so it is for programs that own their process, not for libraries. Raises
    RuntimeError if it is installed already.
    """

def remove() -> None:
    """Restores the previous signal handler. Does nothing if this one is not installed."""
