"""Arrays of numbers, and what is recognized in whole columns, against plain statements of it."""

from __future__ import annotations

import json
import re
from array import array

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from buildkit_migrate.schema.columns import ABSENT, NOT_FOUND, Mask, chosen, gather, same
from buildkit_migrate.schema.snapshots import counters
from buildkit_migrate.schema.solver import plain_links, plain_results

LARGEST = 2**63 - 1
CODES = pytest.mark.parametrize("code", "iq")
NUMBERS = st.lists(st.integers(-(2**31), 2**31 - 1))


@CODES
@given(values=NUMBERS, data=st.data())
def test_numbers_of_rows(code: str, values: list[int], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(ABSENT, len(values) - 1)))
    expected = array(code, (values[row] if row >= 0 else row for row in rows))
    assert gather(array(code, values), array("i", rows)) == expected
    assert gather(array(code, values), rows) == expected


@CODES
@given(values=NUMBERS, data=st.data())
def test_numbers_of_a_mask(code: str, values: list[int], data: st.DataObject) -> None:
    rows = sorted(data.draw(st.sets(st.sampled_from(range(len(values))))) if values else set())
    mask = Mask(len(values), array("i", rows))
    assert list(mask) == rows
    assert chosen(array(code, values), mask) == array(code, (values[row] for row in rows))


@CODES
@given(pairs=st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2))))
def test_same_numbers(code: str, pairs: list[tuple[int, int]]) -> None:
    left, right = (array(code, (pair[side] for pair in pairs)) for side in (0, 1))
    assert list(same(left, right)) == [row for row, (a, b) in enumerate(pairs) if a == b]


@CODES
def test_what_there_is_not(code: str) -> None:
    numbers = array(code, [5, 6])
    with pytest.raises(IndexError):
        gather(numbers, [2])
    with pytest.raises(ValueError, match="size"):
        chosen(numbers, Mask(3))
    with pytest.raises(ValueError, match="lengths"):
        same(numbers, numbers[:1])
    with pytest.raises(IndexError):
        Mask(2, array("i", [NOT_FOUND]))


@pytest.mark.parametrize("code", "bdQ")
def test_other_types_are_refused(code: str) -> None:
    numbers = array(code, [1])
    for call in (
        lambda: gather(numbers, [0]),
        lambda: chosen(numbers, Mask(1)),
        lambda: same(numbers, numbers),
    ):
        with pytest.raises(ValueError, match="type codes"):
            call()


NAMES = st.none() | st.binary(max_size=8) | st.from_regex(rb"\A(buildkit|)/[0-9]{0,21}(/|)(sha256:a|)\Z")


def counter_in(name: bytes | None) -> int:
    parts = (name or b"").split(b"/", 2)
    return min(int(parts[1]), LARGEST) if len(parts) == 3 and parts[1].isdigit() else 0


@given(names=st.lists(NAMES))
@example([b"b/9223372036854775807/k", b"b/9223372036854775808/k", b"b/7/", b"b/7", b"//", b"b/7/k/9", b""])
def test_numbers_in_names(names: list[bytes | None]) -> None:
    assert list(counters(names)) == [counter_in(name) for name in names]


TEXT = st.text(st.sampled_from('abz09_:+.-"\\,é\n'), max_size=6)
TIMES = st.from_regex(r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d*)?(Z|[+-]\d\d:?\d\d|)\Z")
RESULTS = st.fixed_dictionaries({}, optional={"CreatedAt": TIMES | TEXT, "ID": TEXT, "More": st.integers()})
TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})"
)
LINKS = st.fixed_dictionaries(
    {}, optional={"Input": st.integers(), "Output": st.integers(), "Digest": TEXT, "Selector": TEXT}
)


@st.composite
def written(draw: st.DrawFn, documents: st.SearchStrategy[dict[str, object]]) -> bytes:
    """A document as the daemon writes it, but for some bytes."""
    text = bytearray(json.dumps(draw(documents), separators=(",", ":"), ensure_ascii=False).encode())
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 2))] = draw(st.sampled_from([b"", b",", b'"', b"0", b"}", b" "]))
    return bytes(text)


@given(rows=st.lists(st.tuples(written(RESULTS), st.sampled_from([b"", b"a", b"a::b"]))))
def test_what_is_a_plain_result_decodes_to_one(rows: list[tuple[bytes, bytes]]) -> None:
    ids = [id for _, id in rows]
    for row in plain_results([stored for stored, _ in rows], ids):
        found = json.loads(rows[row][0])
        assert list(found) == ["CreatedAt", "ID"]
        assert found["ID"].encode() == ids[row]
        assert TIME.fullmatch(found["CreatedAt"])


@given(stored=st.lists(written(LINKS)))
@example([b"{,}", b'{"Input":1,}', b'{"Input":01}', b'{"Input":}', b'{"Output":1,"Input":2}', b"{}}", b""])
def test_what_is_a_plain_link_decodes_to_one(stored: list[bytes]) -> None:
    for row in plain_links(stored):
        kinds = {name: type(value) for name, value in json.loads(stored[row]).items()}
        assert kinds.items() <= {"Input": int, "Output": int, "Digest": str, "Selector": str}.items()


def test_what_daemons_write_is_plain() -> None:
    time, id = "2026-01-01T10:20:30.123456789Z", "pq2iddf8w8r8l8fp1kc5xhvgf::vmqfu6rdadm2sxe0y6hn33wbq"
    result = json.dumps({"CreatedAt": time, "ID": id}, separators=(",", ":")).encode()
    assert list(plain_results([result, result, None], [id.encode(), b"other", b""])) == [0]
    for other in ("", time[:-1], "2026-01-01T10:20:30.Z", "2026-01-01 10:20:30Z"):
        assert not plain_results([result.replace(time.encode(), other.encode())], [id.encode()])
    for other in ("2026-01-01T10:20:30Z", "2026-01-01T10:20:30.5+02:00"):
        assert plain_results([result.replace(time.encode(), other.encode())], [id.encode()])
    links = [
        b"{}",
        b'{"Input":1}',
        b'{"Output":20}',
        b'{"Input":0,"Output":3,"Digest":"sha256:0a"}',
        b'{"Digest":"sha256:0a","Selector":"sha256:b"}',
        b'{"Selector":"a"}',
    ]
    assert list(plain_links(links)) == list(range(len(links)))


def test_columns_of_different_lengths() -> None:
    with pytest.raises(ValueError, match="lengths"):
        plain_results([b""], [])
