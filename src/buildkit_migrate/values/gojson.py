"""The values of metadata keys: JSON exactly as Go's ``encoding/json`` writes and reads it.

Rules: spec buildkit-metadata, section 3. A stored value is an *envelope*,
``{"value":<raw>,"index":"<index>"}``. Its raw part is decoded separately, into the type that the key
requires. All input and output is bytes: UTF-8 for text, arbitrary bytes where a store may hold them.

The standard library's ``json`` won't do: it accepts constants and byte sequences that Go rejects, writes one
U+FFFD where Go writes several, and limits nesting and digits differently.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NoReturn, Self

__all__ = [
    "UndecodableValueError",
    "Value",
    "as_flag",
    "as_integer",
    "as_string",
    "as_strings",
    "blob_mapping",
    "decode",
    "encode",
    "encode_string",
    "encode_value",
    "integer",
    "string",
]

MAX_NESTING: Final = 10_000
"""Most open objects and arrays that Go's scanner allows."""


class UndecodableValueError(ValueError):
    """Go's decoder would return an error for this value."""


@dataclass(frozen=True)
class Value:
    """A decoded envelope.

    ``raw``: text of the ``value`` member, None if it is absent; ``index``: "" if it is absent.
    """

    raw: bytes | None = None
    index: bytes = b""

    @classmethod
    def of(cls, value: bytes | bool | int, index: bytes = b"") -> Self:
        """Wraps a string (as bytes), a bool or a signed 64-bit integer.

        Raises TypeError for anything else, and ValueError for an integer out of range.
        """
        _check_index(index)
        return cls(_raw(value), index)


# --- Encoding

# Decoding with surrogateescape turns each byte that is not UTF-8 into one lone surrogate.
_NOT_UTF8: Final = "\udc80-\udcff"
_TO_ESCAPE: Final = re.compile(f'[\x00-\x1f"\\\\<>&\u2028\u2029{_NOT_UTF8}]')
_SHORT_ESCAPES: Final = {
    '"': '\\"',
    "\\": "\\\\",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
}


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    if char in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[char]
    return "\\ufffd" if "\udc80" <= char <= "\udcff" else f"\\u{ord(char):04x}"


def encode_string(raw: bytes) -> bytes:
    r"""Quoted JSON string, as Go 1.22 to 1.26 write it.

    Each byte that is not part of valid UTF-8 becomes the six characters ``\ufffd``.
    """
    text = _TO_ESCAPE.sub(_escape, raw.decode("utf-8", "surrogateescape"))
    return b'"' + text.encode() + b'"'


def encode_value(value: bytes | bool | int, index: bytes = b"") -> bytes:
    """Encodes a string (as bytes), a bool or a signed 64-bit integer as an envelope.

    An empty ``index`` is omitted. Raises TypeError, and ValueError for an integer out of range.
    """
    return _envelope(_raw(value), index)


def encode(value: Value) -> bytes:
    """Encodes a value as an envelope.

    Raises ValueError if its raw part is not JSON or has whitespace around it, TypeError if its raw part or
    index is not bytes.
    """
    if value.raw is not None and not isinstance(value.raw, bytes):
        raise TypeError(f"the raw part of a value must be bytes, not {type(value.raw).__name__}")
    if value.raw is not None and _document(value.raw) != value.raw:
        raise ValueError("whitespace around the JSON text of a value")
    return _envelope(value.raw, value.index)


def _raw(value: bytes | bool | int) -> bytes:
    if isinstance(value, bytes):
        return encode_string(value)
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if not isinstance(value, int):
        raise TypeError(f"a value must be bytes (UTF-8 text), a bool or an int, not {type(value).__name__}")
    if -(2**63) <= value < 2**63:
        return str(value).encode()
    raise ValueError("integer out of the signed 64-bit range")


def _check_index(index: bytes) -> None:
    if not isinstance(index, bytes):
        raise TypeError(f"an index must be bytes, not {type(index).__name__}")


def _envelope(raw: bytes | None, index: bytes) -> bytes:
    _check_index(index)
    members = []
    if raw is not None:
        members.append(b'"value":' + raw)
    if index:
        members.append(b'"index":' + encode_string(index))
    return b"{" + b",".join(members) + b"}"


# --- Scanning

_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_STRING: Final = re.compile(rb'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"')
_SCALAR: Final = re.compile(
    rb"(?:%b|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?|true|false|null)" % _STRING.pattern
)
_INTEGER: Final = re.compile(rb"-?[0-9]+")
_LONGEST_INTEGER: Final = len(str(-(2**63)))
_CLOSING: Final = {b"{": b"}", b"[": b"]"}


def _refuse(text: bytes, at: int) -> NoReturn:
    what = f"unexpected {text[at : at + 1]!r}" if at < len(text) else "unexpected end"
    raise UndecodableValueError(f"{what} at byte {at}")


def _after_space(text: bytes, at: int) -> int:
    match = _SPACE.match(text, at)
    assert match is not None  # the pattern also matches the empty string
    return match.end()


def _member_name(text: bytes, at: int) -> tuple[bytes, int]:
    """Returns the member name at ``at``, as written, and the position of the member's value."""
    match = _STRING.match(text, at)
    if match is None:
        _refuse(text, at)
    colon = _after_space(text, match.end())
    if text[colon : colon + 1] != b":":
        _refuse(text, colon)
    return match[0], _after_space(text, colon + 1)


def _after_value(text: bytes, at: int) -> int:
    """End of the JSON value at ``at``. Nesting is tracked in a list, not on Python's stack."""
    closings: list[bytes] = []
    while True:
        closing = _CLOSING.get(text[at : at + 1])
        if closing is None:
            match = _SCALAR.match(text, at)
            if match is None:
                _refuse(text, at)
            at = match.end()
        else:
            closings.append(closing)
            if len(closings) > MAX_NESTING:
                raise UndecodableValueError(f"nested deeper than {MAX_NESTING} at byte {at}")
            at = _after_space(text, at + 1)
            if text[at : at + 1] != closing:
                if closing == b"}":
                    _, at = _member_name(text, at)
                continue
        at = _after_closings(text, at, closings)
        if not closings:
            return at
        # A comma: continue with the next element or member.
        at = _after_space(text, at + 1)
        if closings[-1] == b"}":
            _, at = _member_name(text, at)


def _after_closings(text: bytes, at: int, closings: list[bytes]) -> int:
    """Consumes closing brackets and pops them from ``closings``.

    Returns the position of the next comma, or the end of the value if nothing remains open.
    """
    while closings:
        at = _after_space(text, at)
        mark = text[at : at + 1]
        if mark == b",":
            return at
        if mark != closings[-1]:
            _refuse(text, at)
        closings.pop()
        at += 1
    return at


def _document(text: bytes) -> bytes:
    """The single JSON value in ``text``, without the whitespace around it."""
    start = _after_space(text, 0)
    end = _after_value(text, start)
    rest = _after_space(text, end)
    if rest != len(text):
        _refuse(text, rest)
    return text[start:end]


# --- Decoding

_ESCAPE: Final = re.compile(
    rb"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\(.)"
)
_ESCAPED: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_REPLACEMENT: Final = "\ufffd"


def _unescape(match: re.Match[bytes]) -> bytes:
    high, low, unit, char = match.groups()
    if high is not None:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + (int(low, 16) - 0xDC00)).encode()
    if unit is not None:
        code = int(unit, 16)
        return (_REPLACEMENT if 0xD800 <= code < 0xE000 else chr(code)).encode()
    return _ESCAPED.get(char, char)


def _unquote(token: bytes) -> bytes:
    """Text of a JSON string as UTF-8; lone surrogates and bytes that are not UTF-8 become U+FFFD each."""
    # Unescaping before decoding is safe: it yields whole characters, which can't complete a broken one.
    text = _ESCAPE.sub(_unescape, token[1:-1]).decode("utf-8", "surrogateescape")
    return re.sub(f"[{_NOT_UTF8}]", _REPLACEMENT, text).encode()


def _fold(name: bytes) -> bytes:
    """Folds case for comparing names. The only non-ASCII letters that fold to ASCII are U+017F and U+212A."""
    return name.replace("\u017f".encode(), b"s").replace("\u212a".encode(), b"k").lower()


def _members(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(Folded name, raw value) of each member of ``text``, a valid JSON object."""
    at = _after_space(text, 1)
    while text[at : at + 1] != b"}":
        name, start = _member_name(text, at)
        end = _after_value(text, start)
        yield _fold(_unquote(name)), text[start:end]
        at = _after_space(text, end)
        if text[at : at + 1] == b",":
            at = _after_space(text, at + 1)


def _strings(text: bytes, names: tuple[bytes, ...]) -> dict[bytes, bytes]:
    """The string members of ``text``, a valid JSON object, that have these (folded) names.

    "" if absent. Among duplicates the last one counts, but ``null`` changes nothing.
    """
    found = dict.fromkeys(names, b"")
    for name, raw in _members(text):
        if name in found and raw != b"null":
            if raw[:1] != b'"':
                raise UndecodableValueError(f"member {name.decode()!r} is not a string")
            found[name] = _unquote(raw)
    return found


_PLAIN: Final = re.compile(
    rb'\{"value":(%b|-?(?:0|[1-9][0-9]*)|true|false|null|\{%b:%b(?:,%b:%b)*\})'
    rb'(?:,"index":"([ !#-\[\]-~]*)")?\}' % ((_STRING.pattern,) * 5)
)
"""Matches nearly every envelope: a scalar or an object of strings, and an index without escapes.

A fast path with the same result.
"""


def decode(stored: bytes) -> Value:
    """Decodes a stored value. Not for an empty value, which means "cleared".

    Raises UndecodableValueError wherever Go's decoder fails.
    """
    plain = _PLAIN.fullmatch(stored)
    if plain is not None:
        return Value(plain[1], plain[2] or b"")
    text = _document(stored)
    if text == b"null":
        return Value()
    if text[:1] != b"{":
        raise UndecodableValueError("neither an object nor null")
    raw = None
    for name, member in _members(text):
        if name == b"value":
            raw = member
    return Value(raw, _strings(text, (b"index",))[b"index"])


def string(stored: bytes | None) -> bytes:
    """What BuildKit's string getter returns for a stored value, or for None if the key is absent.

    "" if the value is absent, cleared, undecodable or of another type.
    """
    if not stored:
        return b""
    try:
        raw = decode(stored).raw
    except UndecodableValueError:
        return b""
    return _unquote(raw) if raw is not None and raw[:1] == b'"' else b""


def integer(stored: bytes | None) -> int | None:
    """The signed 64-bit integer in a stored value.

    None if the value is absent, cleared, undecodable or of another type.
    """
    if not stored:
        return None
    try:
        raw = decode(stored).raw
    except UndecodableValueError:
        return None
    if raw is None or len(raw) > _LONGEST_INTEGER or not _INTEGER.fullmatch(raw):
        return None
    number = int(raw)
    return number if -(2**63) <= number < 2**63 else None


def blob_mapping(stored: bytes) -> tuple[bytes, bytes] | None:
    """(Blobsum, DiffID) of a non-empty ``blobmapping.blob``; None if the raw part is absent or ``null``.

    Raises UndecodableValueError if the envelope or its raw part can't be decoded.
    """
    raw = decode(stored).raw
    if raw is None or raw == b"null":
        return None
    if raw[:1] != b"{":
        raise UndecodableValueError("blob mapping is not an object")
    found = _strings(raw, (b"blobsum", b"diffid"))
    return found[b"blobsum"], found[b"diffid"]


# --- Raw parts of a known type. Go leaves the zero value where it finds ``null``.


def as_string(raw: bytes | None) -> bytes:
    """The string that the raw part of a value is, "" for ``null``. Raises UndecodableValueError."""
    if raw == b"null":
        return b""
    if raw is None or raw[:1] != b'"':
        raise UndecodableValueError("not a string")
    return _unquote(raw)


def as_integer(raw: bytes | None) -> int:
    """The signed 64-bit integer, 0 for ``null``. Raises UndecodableValueError."""
    if raw == b"null":
        return 0
    if raw is None or len(raw) > _LONGEST_INTEGER or not _INTEGER.fullmatch(raw):
        raise UndecodableValueError("not an integer")
    number = int(raw)
    if not -(2**63) <= number < 2**63:
        raise UndecodableValueError("integer out of range")
    return number


def as_flag(raw: bytes | None) -> bool:
    """The bool, False for ``null``. Raises UndecodableValueError."""
    if raw not in (b"true", b"false", b"null"):
        raise UndecodableValueError("not a bool")
    return raw == b"true"


def as_strings(raw: bytes | None) -> list[bytes]:
    """The strings of a list, none for ``null``; a ``null`` in it is "". Raises UndecodableValueError."""
    if raw == b"null":
        return []
    if raw is None or raw[:1] != b"[":
        raise UndecodableValueError("not a list")
    found = []
    at = _after_space(raw, 1)
    while raw[at : at + 1] != b"]":
        end = _after_value(raw, at)
        found.append(as_string(raw[at:end]))
        at = _after_space(raw, end)
        if raw[at : at + 1] == b",":
            at = _after_space(raw, at + 1)
    return found
