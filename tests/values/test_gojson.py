"""Go's JSON, by the tables of spec buildkit-metadata, section 3, and by properties."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildkit_migrate.values import gojson

DEEPEST = gojson.MAX_NESTING


@pytest.mark.parametrize(
    ("raw", "encoded"),
    [
        (b"", rb'""'),
        (b'"\\', rb'"\"\\"'),
        (b"\n\r\t", rb'"\n\r\t"'),
        (b"\x08\x0c", rb'"\b\f"'),
        (b"\x00\x0b\x1f", rb'"\u0000\u000b\u001f"'),
        (b"<>&", rb'"\u003c\u003e\u0026"'),
        ("\u2028\u2029".encode(), rb'"\u2028\u2029"'),
        ("\x7f/é𝄞".encode(), '"\x7f/é𝄞"'.encode()),
        (b"\xff", rb'"\ufffd"'),
        (b"a\xe2\x82b", rb'"a\ufffd\ufffdb"'),
        (b"\xed\xa0\x80", rb'"\ufffd\ufffd\ufffd"'),
        (b"\xc0\x80", rb'"\ufffd\ufffd"'),
        (b"\xf4\x90\x80\x80", rb'"\ufffd\ufffd\ufffd\ufffd"'),
        (b"\xef\xbf\xbd", b'"\xef\xbf\xbd"'),
    ],
)
def test_strings_are_encoded_as_by_go(raw: bytes, encoded: bytes) -> None:
    assert gojson.encode_string(raw) == encoded


@pytest.mark.parametrize(
    ("value", "index", "encoded"),
    [
        (b"", b"", b'{"value":""}'),
        (b"wt1f", b"", b'{"value":"wt1f"}'),
        (b"sha256:1", b"chainid:sha256:1", b'{"value":"sha256:1","index":"chainid:sha256:1"}'),
        (b"", b"<x>", rb'{"value":"","index":"\u003cx\u003e"}'),
        (True, b"", b'{"value":true}'),
        (False, b"", b'{"value":false}'),
        (73730, b"", b'{"value":73730}'),
        (-1, b"", b'{"value":-1}'),
        (-(2**63), b"", b'{"value":-9223372036854775808}'),
        (2**63 - 1, b"i", b'{"value":9223372036854775807,"index":"i"}'),
    ],
)
def test_values_are_encoded_as_by_go(value: bytes | bool | int, index: bytes, encoded: bytes) -> None:
    assert gojson.encode_value(value, index) == encoded


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**4000])
def test_encode_value_refuses_what_go_integers_cannot_hold(value: int) -> None:
    with pytest.raises(ValueError, match="64-bit"):
        gojson.encode_value(value)


@pytest.mark.parametrize(
    ("stored", "raw", "index"),
    [
        (b"{}", None, b""),
        (b"null", None, b""),
        (b" \t\r\n{ } \n", None, b""),
        (b'{"value":null}', b"null", b""),
        (b'{"value":1,"index":"i"}', b"1", b"i"),
        (b'{"VALUE":1,"iNdEx":"i"}', b"1", b"i"),
        (rb'{"v\u0061lue":1}', b"1", b""),
        (b'{"value":1,"Value":2}', b"2", b""),
        (b'{"value":1,"value":null}', b"null", b""),
        (b'{"index":"a","index":"b"}', None, b"b"),
        (b'{"index":"a","index":null}', None, b"a"),
        (b'{"other":[{"value":1}],"value":2}', b"2", b""),
        (b'{"value" : [ 1 , { "a" : [ ] } ] }', b'[ 1 , { "a" : [ ] } ]', b""),
        (b'{"val\xffue":1}', None, b""),
        (b'{"value":-0.5E+3}', b"-0.5E+3", b""),
        (b'{"value":' + b"9" * 10_000 + b"}", b"9" * 10_000, b""),
        (rb'{"value":"\"\\\/\b\f\n\r\t\u00e9"}', rb'"\"\\\/\b\f\n\r\t\u00e9"', b""),
        (rb'{"index":"\ud834\udd1e \udd1e \ud834"}', None, "𝄞 \ufffd \ufffd".encode()),
    ],
)
def test_values_are_decoded_as_by_go(stored: bytes, raw: bytes | None, index: bytes) -> None:
    assert gojson.decode(stored) == gojson.Value(raw, index)


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b" ",
        b"[]",
        b'"text"',
        b"1",
        b"true",
        b"nul",
        b"{",
        b"}",
        b"{]",
        b'{"value"}',
        b'{"value":}',
        b'{"value":1',
        b'{"value":1,}',
        b'{,"value":1}',
        b"{value:1}",
        b'{"value":[1,]}',
        b'{"value":[,1]}',
        b'{"value":[1 2]}',
        b'{"value":[1}]',
        b'{"value":1}x',
        b'{"value":1}{}',
        b'{"value":1}\x00',
        b'{"value":1}\x0b',
        b'\xef\xbb\xbf{"value":1}',
        b'{"value":NaN}',
        b'{"value":Infinity}',
        b'{"value":-Infinity}',
        b'{"value":01}',
        b'{"value":+1}',
        b'{"value":1.}',
        b'{"value":.5}',
        b'{"value":1e}',
        b'{"value":-}',
        b'{"value":truely}',
        b"{'value':1}",
        b'{"value":"a\nb"}',
        b'{"value":"a\x00b"}',
        b'{"value":"a',
        b'{"value":"a\\"}',
        rb'{"value":"\x41"}',
        rb'{"value":"\'"}',
        rb'{"value":"\u12g4"}',
        rb'{"value":"\u12"}',
        b'{"index":1}',
        b'{"index":["i"]}',
        b'{"index":1,"index":"i"}',
    ],
)
def test_invalid_values_are_refused(stored: bytes) -> None:
    with pytest.raises(gojson.UndecodableValueError):
        gojson.decode(stored)
    assert gojson.string(stored) == b""


def test_nesting_is_limited_as_in_go() -> None:
    def arrays(depth: int) -> bytes:
        return b'{"value":' + b"[" * depth + b"]" * depth + b"}"

    assert gojson.decode(arrays(DEEPEST - 1)).raw == b"[" * (DEEPEST - 1) + b"]" * (DEEPEST - 1)
    for depth in (DEEPEST, 100 * DEEPEST):
        with pytest.raises(gojson.UndecodableValueError, match="nested"):
            gojson.decode(arrays(depth))
    objects = b'{"value":' * DEEPEST + b"1" + b"}" * DEEPEST
    assert gojson.decode(objects).raw == objects[len(b'{"value":') : -1]
    with pytest.raises(gojson.UndecodableValueError, match="nested"):
        gojson.decode(b'{"value":' + objects + b"}")
    with pytest.raises(gojson.UndecodableValueError):
        gojson.decode(b"[" * 1_000_000)


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        (None, b""),
        (b"", b""),
        (b"{}", b""),
        (b"null", b""),
        (b'{"value":null}', b""),
        (b'{"value":1}', b""),
        (b'{"value":true}', b""),
        (b'{"value":["a"]}', b""),
        (b'{"value":{"a":"b"}}', b""),
        (b'{"value":"a","index":1}', b""),
        (b'{"value":"a","value":1}', b""),
        (b'{"value":"a"}', b"a"),
        (b' { "Value" : "a" } ', b"a"),
        (rb'{"value":"\\u0041\u0041\\"}', rb"\u0041A" + b"\\"),
        (rb'{"value":"\ud800"}', "\ufffd".encode()),
        (rb'{"value":"\ud800\u0041"}', "\ufffdA".encode()),
        (rb'{"value":"\ud834\ud834\udd1e"}', "\ufffd𝄞".encode()),
        (b'{"value":"\xff\xe2\x82a\xed\xa0\x80"}', b"\xef\xbf\xbd" * 3 + b"a" + b"\xef\xbf\xbd" * 3),
        (b'{"value":"\xe2\\u0082"}', b"\xef\xbf\xbd\xc2\x82"),
    ],
)
def test_string_returns_text_or_nothing(stored: bytes | None, text: bytes) -> None:
    assert gojson.string(stored) == text


@pytest.mark.parametrize(
    ("stored", "mapping"),
    [
        (b"{}", None),
        (b"null", None),
        (b'{"index":"i"}', None),
        (b'{"value":null}', None),
        (b'{"value":{}}', (b"", b"")),
        (b'{"value":{"Blobsum":"b","DiffID":"d"},"index":"blobmap::b"}', (b"b", b"d")),
        (b'{"value":{"diffid":"d","BLOBSUM":"b","other":[1]}}', (b"b", b"d")),
        (b'{"value":{"Blob\xc5\xbfum":"b"}}', (b"b", b"")),
        (rb'{"value":{"blob\u017Fum":"b"}}', (b"b", b"")),
        (b'{"value":{"Blobsum":"a","blobsum":"b"}}', (b"b", b"")),
        (b'{"value":{"Blobsum":"a","Blobsum":null,"DiffID":null}}', (b"a", b"")),
        (b'{"value":{"Blobsum":"\xff"}}', ("\ufffd".encode(), b"")),
    ],
)
def test_blob_mapping_is_decoded(stored: bytes, mapping: tuple[bytes, bytes] | None) -> None:
    assert gojson.blob_mapping(stored) == mapping


@pytest.mark.parametrize(
    "stored",
    [
        b"x",
        b'{"value":"b"}',
        b'{"value":1}',
        b'{"value":["b","d"]}',
        b'{"value":{"Blobsum":1}}',
        b'{"value":{"Blobsum":"b","DiffID":{}}}',
        b'{"value":{"Blobsum":1,"Blobsum":"b"}}',
        b'{"value":{},"index":1}',
    ],
)
def test_invalid_blob_mapping_is_refused(stored: bytes) -> None:
    with pytest.raises(gojson.UndecodableValueError):
        gojson.blob_mapping(stored)


def test_only_two_letters_beyond_ascii_fold_to_ascii() -> None:
    """So member names need no folding table: no other letter folds to an ASCII one."""
    beyond = {
        chr(c) for c in range(128, 0x110000) if len(chr(c).casefold()) == 1 and chr(c).casefold() < "\x80"
    }
    assert beyond == {"\u017f", "\u212a"}


@given(st.text(), st.text())
def test_text_survives_encoding(value: str, index: str) -> None:
    stored = gojson.encode_value(value.encode(), index.encode())
    assert gojson.string(stored) == value.encode()
    assert gojson.decode(stored).index == index.encode()
    assert json.loads(stored)["value"] == value


@given(st.binary())
def test_invalid_utf8_is_replaced(raw: bytes) -> None:
    marked = "".join(
        "\ufffd" if "\udc80" <= c <= "\udcff" else c for c in raw.decode("utf-8", "surrogateescape")
    )
    assert gojson.string(gojson.encode_value(raw)) == marked.encode()


@given(st.text())
def test_encoding_equals_the_standard_library_with_gos_escapes(text: str) -> None:
    expected = json.dumps(text, ensure_ascii=False)
    for char in "<>&\u2028\u2029":
        expected = expected.replace(char, f"\\u{ord(char):04x}")
    assert gojson.encode_string(text.encode()) == expected.encode()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(value=json_values, other=json_values, indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_any_json_decodes(value: object, other: object, indent: int | None, ascii_only: bool) -> None:
    document = {"other": other, "value": value}
    stored = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    raw = gojson.decode(stored).raw
    assert raw is not None
    assert json.loads(raw) == value
    assert gojson.string(stored) == (value.encode() if isinstance(value, str) else b"")


@given(
    st.binary()
    | st.lists(st.sampled_from(list('{}[]",:\\u01eE.-+ \n')) | st.just('"value"'))
    .map("".join)
    .map(str.encode)
)
def test_nothing_but_an_undecodable_value_is_raised(stored: bytes) -> None:
    try:
        gojson.decode(stored)
    except gojson.UndecodableValueError:
        return
    # What is accepted is valid JSON.
    json.loads(stored.decode("utf-8", "replace"))


scalars = st.binary(max_size=5).map(gojson.encode_string) | st.sampled_from(
    [
        b"1",
        b"-0",
        b"01",
        b"1.5",
        b"true",
        b"null",
        b"nul",
        b"{}",
        b"[]",
        b'{"a":"b","c":"d"}',
        b'{"a":1}',
        b'"\xff"',
        b'"\n"',
        rb'"\u003e\""',
        rb'"\x"',
    ]
)


@given(raw=scalars, index=scalars, tail=st.sampled_from([b"}", b"", b"}}", b" }", b',"value":2}']))
def test_fast_path_agrees_with_the_full_decoder(raw: bytes, index: bytes, tail: bytes) -> None:
    def decoded(stored: bytes) -> gojson.Value | None:
        try:
            return gojson.decode(stored)
        except gojson.UndecodableValueError:
            return None

    for stored in (b'{"value":' + raw + tail, b'{"value":' + raw + b',"index":' + index + tail):
        assert decoded(stored) == decoded(b" " + stored)  # the space prevents the fast path


@given(text=st.binary(max_size=20), index=st.text(max_size=10).map(str.encode))
def test_value_objects_survive_encoding(text: bytes, index: bytes) -> None:
    value = gojson.Value.of(text, index)
    assert gojson.encode(value) == gojson.encode_value(text, index)
    assert gojson.decode(gojson.encode(value)) == value
    for raw in (b"{", b" 1", b"1 ", b""):
        with pytest.raises(ValueError):
            gojson.encode(gojson.Value(raw))
    assert gojson.encode(gojson.Value()) == b"{}"


@pytest.mark.parametrize(
    ("stored", "number"),
    [
        (b'{"value":0}', 0),
        (b'{"value":-0}', 0),
        (b' { "Value" : 12 } ', 12),
        (b'{"value":9223372036854775807}', 2**63 - 1),
        (b'{"value":-9223372036854775808,"index":"i"}', -(2**63)),
        (b'{"value":9223372036854775808}', None),
        (b'{"value":%b}' % (b"9" * 5000), None),
        *((b'{"value":%b}' % raw, None) for raw in (b"1.0", b"1e2", b'"1"', b"null", b"true", b"[1]", b"01")),
        (b"{}", None),
        (b"null", None),
        (b"12", None),
        (b"", None),
        (None, None),
    ],
)
def test_integer_returns_a_64_bit_number_or_none(stored: bytes | None, number: int | None) -> None:
    assert gojson.integer(stored) == number


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_survive_encoding(number: int) -> None:
    assert gojson.integer(gojson.encode_value(number)) == number
