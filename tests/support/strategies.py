"""Hypothesis strategies: small worlds of records and containerd services, sound and broken in every way.

`worlds` is for comparing plans. Choices are weighted so that each `Reason` and `Caution` turns up often, and
sound records remain often enough to be ancestors, descendants and victims of the broken ones;
test_strategies.py counts that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

from hypothesis import strategies as st

from buildkit_migrate.model import Blob, Kind, PlainRecords, PlainSurvey, Resource, Snapshot
from buildkit_migrate.values import gojson, keys

__all__ = ["decodable_values", "undecodable_values", "worlds"]

T = TypeVar("T")

RECORD_IDS = [
    b"a1",
    b"b2",
    b"c3",
    b"d4",
    b"e5",
    b"sha256:" + b"5" * 64,
    "über/\U0001d11e".encode(),
    b'<q"&\\\n>',
    "\u2028\ufffd".encode(),
]
BAD_IDS = [b"bad\xff", b"bad\xed\xa0\x80"]
ABSENT_IDS = [b"gone", "weg\u2029".encode(), b"gone\xfe"]

SIZES = [1, 63, 64, 8192, 12_345_678, 2**53 + 1, 2**63 - 1, None]
"""Of blobs; None if containerd does not say."""

DIGESTS = [
    *(b"sha256:" + digit * 64 for digit in (b"0", b"a", b"f")),
    b"sha384:" + b"b" * 96,
    b"sha512:" + b"c" * 128,
]
TOO_LONG = b"sha256:" + b"0" * 32768
"""Too long for an index key."""
ODD_DIGESTS = [
    b"sha256:" + b"A" * 64,
    b"sha256:" + b"0" * 63,
    b"sha256:" + b"0" * 65,
    b"sha256:" + b"0" * 64 + b"\n",
    b"sha384:" + b"0" * 64,
    b"md5:" + b"0" * 32,
    b"sha256",
    "blöb".encode(),
]

OTHER_KEYS = [b"cache.createdAt", b"cache.zzz", b"snapshot.size", b"etag", b"\xff", b"\x01"]
ALL_KEYS = sorted({*OTHER_KEYS, *keys.WRITTEN, keys.EQUAL_MUTABLE, keys.BLOB_MAPPING})
LAYER_KEY_SETS = [
    [keys.DIFF_ID, keys.BLOB],
    [keys.BLOB, keys.BLOB_SIZE],
    [keys.CHAIN_ID, keys.BLOB_CHAIN_ID],
    [keys.DIFF_ID, keys.BLOB, keys.CHAIN_ID, keys.BLOB_CHAIN_ID],
    [keys.BLOB],
    [keys.CHAIN_ID],
    [keys.BLOB_CHAIN_ID],
]

Values = dict[bytes, bytes | None]


# The draws below use few strategies, made once: new ones for every value would take most of the time.
_below = cache(lambda n: st.integers(0, n - 1))


def _chance(draw: st.DrawFn, n: int) -> bool:
    """True once in ``n`` times; shrinks to False."""
    return draw(_below(n)) == n - 1


def _pick(draw: st.DrawFn, options: Sequence[T]) -> T:
    return options[draw(_below(len(options)))]


# --- Values

VALUE_NAMES = [b'"value"', b'"Value"', b'"VALUE"', rb'"v\u0061lue"', rb'"\u0056aLuE"']
INDEX_NAMES = [b'"index"', b'"INDEX"', b'"iNdex"', rb'"inde\u0078"']
BLOB_NAMES = [b'"Blobsum"', b'"blobsum"', b'"BLOB\xc5\xbfUM"', rb'"Blob\u017fum"']
DIFF_NAMES = [b'"DiffID"', b'"diffid"', b'"DIFFID"']
OTHER_NAMES = [b'"valu"', b'"values"', b'""', b'"val\xffue"', b'"Blob"', b'"Blob\xe1\xb9\xa1um"', b'"other"']
SPACES = [b"", b"", b"", b" ", b"\n\t", b"\r "]
RAW = [
    b"null",
    b"0",
    b"-1.5e+9",
    b"1" * 5000,
    b"[]",
    b'[1,{"value":[]}]',
    b"{}",
    rb'"\ud800"',
    b"[" * 99 + b"]" * 99,
]

ODD_STRINGS = [
    b"",
    b"{}",
    b"null",
    b'{"value":null}',
    b'{"value":""}',
    b'{"value":7}',
    b'{"value":true}',
    b'{"value":["a1"]}',
    b'{"value":{"Blobsum":"a1"}}',
    b'{"index":"a1"}',
    rb'{"value":"\ud800"}',
    b'{"value":"a\xff\xe2\x82"}',
    b'{"value":"a1","value":1}',
    b'{"values":"a1"}',
]
"""Values that decode or are cleared, and are not a string, or an odd one."""

EMPTY_BLOB_MAPPINGS = [b"", b"{}", b"null", b'{"value":null}', b' { "index" : "i" } ', b'{"value":{}}']

UNDECODABLE = [
    b"x",
    b" ",
    b"[]",
    b'"a1"',
    b"1",
    b"{",
    b'{"value":}',
    b'{"value":"a1"',
    b'{"value":"a1"}}',
    b'{"value":"a1"} x',
    b'{"value":"a1",}',
    b'{"value":"a1"}\x00',
    b'\xef\xbb\xbf{"value":"a1"}',
    b'{"value":"a1","index":7}',
    b'{"index":{},"value":"a1"}',
    b'{"value":NaN}',
    b'{"value":-Infinity}',
    b'{"value":01}',
    b'{"value":"a\x1f1"}',
    b'{"value":"a1\n"}',
    rb'{"value":"\x61"}',
    rb'{"value":"\u00g0"}',
    b"{'value':1}",
    b'{"value":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    b"[" * 20_000,
]
"""Values that do not decode, whatever their key."""

BAD_BLOB_MAPPINGS = [
    b'{"value":"a"}',
    b'{"value":[]}',
    b'{"value":1}',
    b'{"value":{"Blobsum":1}}',
    b'{"value":{"diffid":[]}}',
]
"""Values that decode under any key but ``blobmapping.blob``."""


def _object(draw: st.DrawFn, members: Sequence[tuple[bytes, bytes]]) -> bytes:
    """An object with these members in this order, with spaces and unknown members between."""
    parts = []
    for name, raw in members:
        if _chance(draw, 4):
            parts.append(_pick(draw, OTHER_NAMES) + b":" + _pick(draw, RAW))
        before, after = _pick(draw, SPACES), _pick(draw, SPACES)
        parts.append(before + name + after + b":" + before + raw + after)
    return b"{" + b",".join(parts) + b"}"


def _envelope(draw: st.DrawFn, raw: bytes) -> bytes:
    """An odd but decodable envelope whose raw part is ``raw`` in the end."""
    members = [(_pick(draw, VALUE_NAMES), raw)]
    if _chance(draw, 3):
        members.insert(0, (_pick(draw, VALUE_NAMES), _pick(draw, RAW)))
    if _chance(draw, 3):
        index = _pick(draw, [b'"i"', b"null", b'""', rb'"chainid:\u003c"'])
        members.insert(draw(_below(len(members) + 1)), (_pick(draw, INDEX_NAMES), index))
    return _pick(draw, SPACES) + _object(draw, members) + _pick(draw, SPACES)


def _json_string(draw: st.DrawFn, text: bytes) -> bytes:
    """One of the ways to write a string, if it is one; else its bytes between quotes."""
    try:
        ascii_only = json.dumps(text.decode()).encode()
    except UnicodeDecodeError:
        return b'"' + text + b'"'
    escaped = b'"' + b"".join(rb"\u%04X" % char for char in text) + b'"' if text.isascii() else ascii_only
    return _pick(draw, [gojson.encode_string(text), ascii_only, escaped])


def _string(draw: st.DrawFn, text: bytes) -> bytes:
    """A stored string: mostly as BuildKit writes it, else in any other form."""
    return _envelope(draw, _json_string(draw, text)) if _chance(draw, 3) else gojson.encode_value(text)


def _blob_mapping(draw: st.DrawFn) -> bytes:
    if _chance(draw, 8):
        return _pick(draw, EMPTY_BLOB_MAPPINGS)
    blob = _pick(draw, [b"", *ODD_DIGESTS] if _chance(draw, 8) else DIGESTS)
    diff_id = _pick(draw, [b"", *ODD_DIGESTS] if _chance(draw, 10) else DIGESTS)
    if _chance(draw, 12):
        diff_id = TOO_LONG
    if not _chance(draw, 4):
        raw = b'{"Blobsum":%b,"DiffID":%b}' % (gojson.encode_string(blob), gojson.encode_string(diff_id))
        return b'{"value":%b,"index":%b}' % (raw, gojson.encode_string(b"blobmap::" + blob))
    members = [
        (_pick(draw, BLOB_NAMES), _json_string(draw, blob)),
        (_pick(draw, DIFF_NAMES), _json_string(draw, diff_id)),
    ]
    if _chance(draw, 3):
        members.reverse()
    if _chance(draw, 3):
        members.append((_pick(draw, BLOB_NAMES + DIFF_NAMES), _pick(draw, [b"null", b'""', b'"x"'])))
    return _envelope(draw, _object(draw, members))


@st.composite
def decodable_values(draw: st.DrawFn) -> bytes:
    """Stored values that decode as envelopes; not cleared ones."""
    match _pick(draw, ["string", "blob mapping", "odd", "raw"]):
        case "string":
            return _string(draw, _pick(draw, RECORD_IDS + DIGESTS + [b""]))
        case "blob mapping":
            return _blob_mapping(draw) or b"{}"
        case "odd":
            return _pick(draw, ODD_STRINGS[1:] + BAD_BLOB_MAPPINGS)
        case _:
            return _envelope(draw, _pick(draw, RAW))


undecodable_values = st.sampled_from(UNDECODABLE)

# --- Worlds


@st.composite
def worlds(draw: st.DrawFn, max_records: int = 8) -> tuple[PlainRecords, PlainSurvey]:
    """Records and survey of a small root, as BuildKit leaves it or more or less broken."""
    disorder = _pick(draw, [1, 4, 50])  # everything odd is that much rarer
    ids = list(draw(st.permutations(RECORD_IDS))[: 1 + draw(_below(max_records))])
    if _chance(draw, 6 * disorder):
        ids[-1] = _pick(draw, BAD_IDS)
    survey = PlainSurvey(_pick(draw, ["overlayfs", "native"]))
    for digest in DIGESTS + ODD_DIGESTS:
        if not _chance(draw, 5):
            survey.blobs[digest] = Blob(not _chance(draw, 4), _pick(draw, SIZES))
    records: dict[bytes, Values] = {}
    for id in ids:
        above = list(records)
        records[id] = _record(draw, above, ids, disorder)
        has_snapshot = not _chance(draw, 8 * disorder)
        if gojson.string(records[id].get(keys.EQUAL_MUTABLE)):
            has_snapshot = _chance(draw, 2)
        if has_snapshot:
            survey.snapshots[id] = _snapshot(draw, above, ids, disorder)
        if _chance(draw, 3):
            survey.leases[id] = _resources(draw, id, survey.snapshotter)
            if _chance(draw, 3):
                survey.expiring_leases[id] = b"2021-01-01T00:00:00Z"
    for id in ABSENT_IDS + RECORD_IDS[:2]:
        if _chance(draw, 5):
            survey.snapshots.setdefault(id, _snapshot(draw, ids, ids, disorder))
    return records, survey


def _link(draw: st.DrawFn, above: list[bytes], ids: list[bytes], disorder: int) -> bytes:
    """Target of a link: mostly an earlier record, as cycles and missing targets are rare."""
    if above and not _chance(draw, 3 * disorder):
        return _pick(draw, above)
    return _pick(draw, 2 * ids + 3 * ABSENT_IDS)


def _snapshot(draw: st.DrawFn, above: list[bytes], ids: list[bytes], disorder: int) -> Snapshot:
    kind = _pick(draw, [Kind.COMMITTED] * 4 + [Kind.ACTIVE, Kind.VIEW, Kind.UNKNOWN])
    has_parent = bool(above or _chance(draw, 2 * disorder)) and not _chance(draw, 4)
    parent = _link(draw, above, ids, disorder) if has_parent else b""
    return Snapshot(kind, parent, not _chance(draw, 5))


def _resources(draw: st.DrawFn, id: bytes, snapshotter: str) -> set[Resource]:
    own = (f"snapshots/{snapshotter}", id)
    some: list[Resource] = [own, own, ("snapshots/other", id), *(("content", digest) for digest in DIGESTS)]
    return {_pick(draw, some) for _ in range(draw(_below(5)))}


def _record(draw: st.DrawFn, above: list[bytes], ids: list[bytes], disorder: int) -> Values:
    record: Values = {}
    if _chance(draw, 3):
        record[keys.EQUAL_MUTABLE] = _string(draw, _link(draw, above, ids, disorder))
    elif _chance(draw, 3):
        record[keys.EQUAL_MUTABLE] = b"" if _chance(draw, 2) else _pick(draw, ODD_STRINGS)
    if not _chance(draw, 4):
        record[keys.BLOB_MAPPING] = _blob_mapping(draw)
    if _chance(draw, 5):
        record |= _keys_of_v2(draw, above, ids, disorder)
    if _chance(draw, 2):
        record[_pick(draw, OTHER_KEYS)] = draw(decodable_values())
    if _chance(draw, 12 * disorder):
        record[_pick(draw, ALL_KEYS)] = _pick(draw, UNDECODABLE)
    if _chance(draw, 20 * disorder):
        record[keys.BLOB_MAPPING] = _pick(draw, BAD_BLOB_MAPPINGS)
    if _chance(draw, 12 * disorder):
        record[_pick(draw, ALL_KEYS)] = None
    return record


def _keys_of_v2(draw: st.DrawFn, above: list[bytes], ids: list[bytes], disorder: int) -> Values:
    """Keys that a v1 store has only if something other than v1 wrote to it."""
    record: Values = {}
    if _chance(draw, 2):
        record[keys.PARENT] = _string(draw, _link(draw, above, ids, disorder))
    for key in _pick(draw, LAYER_KEY_SETS):
        text = _pick(draw, ODD_DIGESTS if _chance(draw, 8) else DIGESTS)
        record[key] = _pick(draw, ODD_STRINGS) if _chance(draw, 8) else _string(draw, text)
    return record
