from collections.abc import Iterator
from typing import Protocol

from buildkit_migrate._native.columns import Mask

class _Texts(Protocol):
    def __len__(self) -> int: ...
    def __getitem__(self, row: int, /) -> bytes | None: ...
    def __iter__(self) -> Iterator[bytes | None]: ...

def plain_results(values: _Texts, ids: _Texts) -> Mask:
    """Rows with `{"CreatedAt":"...","ID":"..."}`, a time and the row's id, written as the daemon does.

    Raises ValueError if the columns differ in length.
    """

def plain_links(texts: _Texts) -> Mask:
    """Rows with some of `{"Input":1,"Output":2,"Digest":"...","Selector":"..."}`, in this order.

    Strings with anything else than letters, digits and `_:+.-` are not among them, nor are large numbers.
    """
