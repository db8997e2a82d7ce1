"""The chainID engine against a plain model (buildkit-metadata, section 4, pass 4)."""

import hashlib
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buildkit_migrate import errors
from buildkit_migrate._native import chain, sha256

NONE, MISSING = -1, -2
Result = tuple[str, bytes, bytes]


def digest_id(text: bytes) -> bytes:
    return b"sha256:" + hashlib.sha256(text).hexdigest().encode()


def model(
    parents: Sequence[int],
    diff_ids: Sequence[bytes],
    blobs: Sequence[bytes],
    given: Sequence[tuple[bytes, bytes]] | None = None,
    skip: Sequence[bool] | None = None,
) -> list[Result]:
    """Record by record: up to the nearest ancestor with a result, then down again."""
    results: dict[int, Result] = {}

    def alone(record: int) -> Result | None:
        """The result of a record that needs no parent."""
        if skip is not None and skip[record]:
            return "skipped", b"", b""
        if not diff_ids[record] or not blobs[record]:
            return "empty", b"", b""
        if given is not None and all(given[record]):
            return "given", *given[record]
        if parents[record] == NONE:
            return "base", diff_ids[record], digest_id(blobs[record] + b" " + diff_ids[record])
        if parents[record] == MISSING:
            return "no-parent", b"", b""
        return None

    for start in range(len(parents)):
        path: list[int] = []
        at = start
        while at not in results:
            if at in path:
                for member in path[path.index(at) :]:
                    results[member] = "cycle", b"", b""
                break
            result = alone(at)
            if result is not None:
                results[at] = result
                break
            path.append(at)
            at = parents[at]
        for record in reversed(path):
            if record in results:
                continue
            state, parent_chain, parent_blob_chain = results[parents[record]]
            if state in ("no-parent", "cycle", "blocked", "skipped"):
                results[record] = "blocked", b"", b""
                continue
            part = digest_id(blobs[record] + b" " + diff_ids[record])
            results[record] = (
                "computed",
                digest_id(parent_chain + b" " + diff_ids[record]),
                digest_id(parent_blob_chain + b" " + part),
            )
    return [results[record] for record in range(len(parents))]


def ids(name: str, count: int) -> list[bytes]:
    return [digest_id(b"%s %d" % (name.encode(), i)) for i in range(count)]


canonical = st.integers(0, 50).map(lambda i: digest_id(b"%d" % i))
odd = st.one_of(
    st.just(b""),
    st.binary(max_size=80),
    st.sampled_from(
        [b"sha512:" + b"0" * 128, b"x" * 63, b"x" * 64, b"x" * 70, b"x" * 72, b"y" * 1000, b"\0" * 71]
        # Nearly ids: other digits than those of lower-case hex.
        + [
            b"sha256:" + b"0" * at + digit + b"0" * (63 - at)
            for at in (0, 31, 63)
            for digit in (b"A", b"g", b"/", b":")
        ]
    ),
)
texts = st.one_of(canonical, canonical, canonical, odd)


@st.composite
def stores(
    draw: st.DrawFn,
) -> tuple[list[int], list[bytes], list[bytes], list[tuple[bytes, bytes]], list[bool]]:
    count = draw(st.integers(0, 150))
    source = draw(st.randoms(use_true_random=False))
    pool = draw(st.lists(texts, min_size=1, max_size=8)) + ids("pool", 8)
    wild = draw(st.sampled_from([0.0, 0.05]))  # any parent: cycles
    lost = draw(st.sampled_from([0.0, 0.05]))
    width = draw(st.sampled_from([1, 3, 200]))
    parents = [
        source.randrange(count)
        if source.random() < wild
        else MISSING
        if source.random() < lost
        else NONE
        if i == 0 or source.random() < 0.05
        else source.randrange(max(0, i - width), i)
        for i in range(count)
    ]
    names = list(range(count))
    source.shuffle(names)
    shuffled = [0] * count
    for i, parent in enumerate(parents):
        shuffled[names[i]] = names[parent] if parent >= 0 else parent
    column = [[source.choice(pool) for _ in range(count)] for _ in range(2)]
    values = [
        (source.choice([b"", *pool]), source.choice([b"", *pool])) if source.random() < 0.1 else (b"", b"")
        for _ in range(count)
    ]
    skip = [source.random() < lost for _ in range(count)]
    return shuffled, column[0], column[1], values, skip


@settings(max_examples=300, deadline=None)
@given(store=stores())
def test_engine_equals_the_model(
    store: tuple[list[int], list[bytes], list[bytes], list[tuple[bytes, bytes]], list[bool]],
) -> None:
    parents, diff_ids, blobs, values, skip = store
    expected = model(parents, diff_ids, blobs, values, skip)
    for kernel in sha256.kernels():
        assert chain.chain_ids(parents, diff_ids, blobs, values, skip, kernel) == expected
    assert chain.chain_ids(parents, diff_ids, blobs) == model(parents, diff_ids, blobs)


def test_model_and_engine_give_the_written_out_example() -> None:
    """The rules written out, so that model and engine can't share a mistake."""
    d0, d1 = ids("diff", 2)
    b0, b1 = ids("blob", 2)
    part0, part1 = digest_id(b0 + b" " + d0), digest_id(b1 + b" " + d1)
    expected = [
        ("base", d0, part0),
        ("computed", digest_id(d0 + b" " + d1), digest_id(part0 + b" " + part1)),
    ]
    assert model([NONE, 0], [d0, d1], [b0, b1]) == expected
    assert chain.chain_ids([NONE, 0], [d0, d1], [b0, b1]) == expected


def test_no_records_give_no_results() -> None:
    assert chain.chain_ids([], [], []) == []


@pytest.mark.parametrize("diff_id, blob", [(b"", b"sha256:b"), (b"sha256:d", b""), (b"", b"")])
def test_child_of_a_parent_without_ids_hashes_a_leading_space(diff_id: bytes, blob: bytes) -> None:
    (d,), (b,) = ids("diff", 1), ids("blob", 1)
    part = digest_id(b + b" " + d)
    assert chain.chain_ids([NONE, 0], [diff_id, d], [blob, b]) == [
        ("empty", b"", b""),
        ("computed", digest_id(b" " + d), digest_id(b" " + part)),
    ]


def test_given_values_are_used_only_in_pairs() -> None:
    (d0, d1, d2), (b0, b1, b2) = ids("diff", 3), ids("blob", 3)
    given_values = [(b"any bytes \xff", b"0"), (b"one", b""), (b"", b"other")]
    parents = [MISSING, 0, 1]
    found = chain.chain_ids(parents, [d0, d1, d2], [b0, b1, b2], given_values)
    assert found == model(parents, [d0, d1, d2], [b0, b1, b2], given_values)
    assert found[0] == ("given", b"any bytes \xff", b"0")
    assert found[1][:2] == ("computed", digest_id(b"any bytes \xff " + d1))
    assert found[2][0] == "computed"


def test_given_values_of_a_record_without_blob_are_ignored() -> None:
    assert chain.chain_ids([NONE], [b"d"], [b""], [(b"c", b"b")]) == [("empty", b"", b"")]


def test_missing_parent_stops_its_descendants_only() -> None:
    count = 5
    found = chain.chain_ids([MISSING, 0, 1, NONE, 3], ids("d", count), ids("b", count))
    assert [state for state, _, _ in found] == ["no-parent", "blocked", "blocked", "base", "computed"]
    assert found[0][1:] == found[1][1:] == (b"", b"")


def test_missing_parent_does_not_matter_to_a_record_without_blob() -> None:
    found = chain.chain_ids([MISSING, 0], [b"", b"d"], [b"b", b"b"])
    assert [state for state, _, _ in found] == ["empty", "computed"]


def test_records_below_a_cycle_are_blocked() -> None:
    #         0 -> 1 -> 2 -> 0;  3 -> 3;  4 -> 1;  5 -> 4;  6 -> 3;  7 fine
    parents = [1, 2, 0, 3, 1, 4, 3, NONE]
    found = chain.chain_ids(parents, ids("d", 8), ids("b", 8))
    states = [state for state, _, _ in found]
    assert states == ["cycle"] * 4 + ["blocked"] * 3 + ["base"]


@pytest.mark.parametrize("breaker", ["empty", "given"])
def test_loop_broken_by_a_record_that_needs_no_parent_is_not_a_cycle(breaker: str) -> None:
    diff_ids, blobs = ids("d", 3), ids("b", 3)
    values = [(b"", b"")] * 3
    if breaker == "empty":
        blobs[1] = b""
    else:
        values[1] = (b"c", b"b")
    found = chain.chain_ids([1, 2, 0], diff_ids, blobs, values)
    assert [state for state, _, _ in found] == ["computed", breaker, "computed"]
    assert found == model([1, 2, 0], diff_ids, blobs, values)


def test_skipped_record_blocks_its_children() -> None:
    found = chain.chain_ids([NONE, 0, NONE], ids("d", 3), ids("b", 3), skip=[True, False, False])
    assert [state for state, _, _ in found] == ["skipped", "blocked", "base"]


@pytest.mark.parametrize(
    "lengths", [(71, 71, 71), (71, 71, 5000), (5000, 71, 71), (64, 64, 64), (65, 1, 130_000)]
)
def test_texts_of_all_lengths_are_hashed(lengths: tuple[int, int, int]) -> None:
    source = random.Random(4)
    parents = [NONE, 0, 0, 1, 2, 2]
    diff_ids = [source.randbytes(source.choice(lengths)) for _ in parents]
    blobs = [source.randbytes(source.choice(lengths)) for _ in parents]
    assert chain.chain_ids(parents, diff_ids, blobs) == model(parents, diff_ids, blobs)


@pytest.mark.parametrize("children", [1, 2, 31, 32, 33, 64, 65, 1000])
def test_any_number_of_siblings_is_hashed(children: int) -> None:
    parents = [NONE, *[0] * children, *range(1, children + 1)]
    count = len(parents)
    assert chain.chain_ids(parents, ids("d", count), ids("b", count)) == model(
        parents, ids("d", count), ids("b", count)
    )


@pytest.mark.parametrize("upside_down", [False, True])
def test_chain_of_a_million_records_is_computed(upside_down: bool) -> None:
    count = 1_000_000
    diff_ids, blobs = [digest_id(b"d")] * count, [digest_id(b"b")] * count
    parents = [*range(1, count), NONE] if upside_down else [NONE, *range(count - 1)]
    part = digest_id(blobs[0] + b" " + diff_ids[0])
    expected = diff_ids[0], part
    for _ in range(count - 1):
        expected = digest_id(expected[0] + b" " + diff_ids[0]), digest_id(expected[1] + b" " + part)
    found = chain.chain_ids(parents, diff_ids, blobs)
    assert found[0 if upside_down else -1] == ("computed", *expected)
    assert sum(state == "computed" for state, _, _ in found) == count - 1


def test_cycle_of_a_million_records_is_found() -> None:
    count = 1_000_000
    found = chain.chain_ids([*range(1, count), 0], [b"d"] * count, [b"b"] * count)
    assert {state for state, _, _ in found} == {"cycle"}


@pytest.mark.parametrize("parent", [-3, 2, 2**31 - 1])
def test_parent_out_of_range_is_refused(parent: int) -> None:
    batch = chain.Batch([NONE, parent], [b"d"] * 2, [b"b"] * 2)
    with pytest.raises(ValueError, match="parent"):
        batch.run()
    assert batch.results() == [("empty", b"", b"")] * 2  # nothing was written


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        chain.chain_ids([NONE], [b"d"] * 2, [b"b"])
    with pytest.raises(ValueError, match="length"):
        chain.chain_ids([NONE], [b"d"], [b"b"], skip=[])


def test_unknown_kernel_is_refused() -> None:
    with pytest.raises(errors.Error, match="'md5'"):
        chain.chain_ids([NONE], [b"d"], [b"b"], kernel="md5")


def test_batch_can_run_again() -> None:
    columns = [NONE, 0, 1], ids("d", 3), ids("b", 3)
    batch = chain.Batch(*columns)
    for _ in range(2):
        batch.run()
        assert batch.results() == model(*columns)
