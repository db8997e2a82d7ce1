"""C51 to C55: the solver cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from faults import Healthy, check, found

import v2_roots
from buildkit_migrate.bolt.edits import Edits
from buildkit_migrate.schema.solver import BACKLINKS, BY_RESULT, LINKS, RESULTS, SolverCache
from planting import edit

pytestmark = pytest.mark.slow

ELSEWHERE = b"0123456789abcdefghijklmno"


class Cache:
    """The solver cache of a healthy root, and one key of it with a result and links."""

    def __init__(self, root: v2_roots.V2Root) -> None:
        self.root = root
        with root.open() as stores:
            assert stores.cache.root is not None
            cache = SolverCache(stores.cache.root)
            self.worker = stores.workers[0].worker_id or b""
            self.results = [
                (cache.keys[row] or b"", id or b"")
                for row, id in zip(cache.results.rows, cache.results.keys, strict=True)
            ]
            self.links = [
                (cache.linked[row] or b"", link or b"")
                for row, link in zip(cache.links.rows, cache.links.keys, strict=True)
            ]
        sources = {source for source, _ in self.links}
        self.key, self.id = next(
            pair for pair in self.results if pair[0] in sources and not pair[0].startswith(b"random:")
        )

    @property
    def record(self) -> bytes:
        return self.id.partition(b"::")[2]

    def edit(self, edits: Edits) -> None:
        edit(self.root.cache, edits)

    def add(self, key: bytes, id: bytes, value: bytes | None = None) -> None:
        stored = json.dumps({"CreatedAt": "2026-11-26T16:16:01.5Z", "ID": id.decode()}, separators=(",", ":"))
        self.edit(
            {RESULTS: {key: {id: value or stored.encode()}}, BY_RESULT: {id: {key: b""}}, LINKS: {key: {}}}
        )


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(v2_roots.healed(tmp_path))


def test_result_that_no_list_by_result_has(cache: Cache) -> None:
    cache.edit({BY_RESULT: {cache.id: None}})
    assert found(cache.root) == {("C51", "H", cache.id.decode())}


def test_result_that_its_key_does_not_have(cache: Cache) -> None:
    cache.edit({RESULTS: {cache.key: {cache.id: None}}})
    assert found(cache.root) == {("C51", "H", cache.id.decode())}


def test_key_with_results_and_no_bucket_of_links(cache: Cache) -> None:
    target = cache.links[0][1].rpartition(b"@")[2]
    key = next(key for key, _ in cache.results if key not in {source for source, _ in cache.links})
    assert target
    cache.edit({LINKS: {key: None}})
    assert found(cache.root) == {("C51", "H", key.decode())}


@pytest.mark.parametrize("bucket", [RESULTS, BY_RESULT, LINKS, BACKLINKS])
def test_whole_bucket_missing_is_one_finding(cache: Cache, bucket: bytes) -> None:
    cache.edit({bucket: None})
    assert found(cache.root) == {("C51", "H", bucket.decode())}


def test_empty_cache_is_healthy(cache: Cache) -> None:
    cache.edit(dict.fromkeys((RESULTS, BY_RESULT, LINKS, BACKLINKS)))
    assert found(cache.root) == set()


@pytest.mark.parametrize("id", [None, "", "another"])
def test_results_of_a_worker_id_that_is_lost(cache: Cache, id: str | None) -> None:
    file = cache.root.worker / "workerid"
    file.unlink()
    if id is not None:
        file.write_text(id)
    (finding,) = check(cache.root)
    assert (finding.rule, finding.severity, finding.subject) == ("C52", "H", cache.worker.decode())
    assert finding.file == file
    assert finding.repair is None


def test_results_of_another_worker_beside_those_of_this_one(cache: Cache) -> None:
    cache.add(cache.key, ELSEWHERE + b"::" + cache.record)
    (finding,) = check(cache.root)
    assert (finding.rule, finding.subject, finding.file) == ("C52", ELSEWHERE.decode(), cache.root.cache)
    assert finding.repair is not None


def test_one_worker_of_two_is_checked(cache: Cache, tmp_path: Path) -> None:
    other = cache.root.root / "containerd-native"
    other.mkdir()
    (other / "workerid").write_bytes(ELSEWHERE)
    cache.add(cache.key, ELSEWHERE + b"::" + cache.record)
    root = v2_roots.V2Root(cache.root.worker, "healed", *_rest(cache.root))
    assert "C52" not in {rule for rule, _, _ in found(root)}


def _rest(root: v2_roots.V2Root) -> tuple[Path, Path, Path, str, tuple[str, ...]]:
    return root.worker, root.containerd, root.snapshots, root.snapshotter, root.options


def test_result_of_no_record(cache: Cache) -> None:
    id = cache.worker + b"::" + ELSEWHERE
    cache.add(cache.key, id)
    assert found(cache.root) == {("C53", "H", id.decode())}


def test_result_of_a_step_outside_the_cache_may_be_gone(cache: Cache) -> None:
    cache.add(b"random:71be894b5975", cache.worker + b"::" + ELSEWHERE)
    assert found(cache.root) == set()


def test_scratch_is_a_result(cache: Cache) -> None:
    cache.add(cache.key, cache.worker + b"::")
    assert found(cache.root) == set()


@pytest.mark.parametrize("id", [b"onlyone", b"a::b::c"])
def test_id_that_is_none_of_a_result(cache: Cache, id: bytes) -> None:
    cache.add(cache.key, id)
    assert found(cache.root) == {("C53", "H", id.decode())}


@pytest.mark.parametrize(
    "value", [b"{", b"null", b"{}", b'{"CreatedAt":"2026-11-26T16:16:01Z","ID":"other"}', b"[]"]
)
def test_result_with_a_value_that_is_not_its_own(cache: Cache, value: bytes) -> None:
    cache.edit({RESULTS: {cache.key: {cache.id: value}}})
    assert found(cache.root) == {("C53", "H", cache.id.decode())}


def test_result_of_a_record_that_is_not_retained(cache: Cache) -> None:
    healthy = Healthy(cache.root)
    healthy.in_record(cache.record, {b"cache.cachePolicy": None})
    ids = {id.decode() for _, id in cache.results if id == cache.id}
    assert {("C53", "H", id) for id in ids} <= found(cache.root)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"Input":"1"}', b'{"Digest":7}', b'{"Output":1.5}', b"null"]
)
def test_link_that_does_not_decode(cache: Cache, text: bytes) -> None:
    target = cache.results[0][0]
    cache.edit({LINKS: {cache.key: {text + b"@" + target: b""}}, BACKLINKS: {target: {cache.key: b""}}})
    assert found(cache.root) == {("C54", "H", cache.key.decode())}


def test_link_without_target(cache: Cache) -> None:
    cache.edit({LINKS: {cache.key: {b'{"Digest":"sha256:00"}': b""}}})
    assert found(cache.root) == {("C54", "H", cache.key.decode())}


@pytest.mark.parametrize(
    "link", [b"{}@", b"{}@one@two", b"{}@nobody", b'{"Input":9223372036854775808}@nobody']
)
def test_of_a_faulty_link_nothing_else_is_told(cache: Cache, link: bytes) -> None:
    cache.edit({LINKS: {cache.key: {link: b""}}})
    assert found(cache.root) == {("C54", "H", cache.key.decode())}


@pytest.mark.parametrize("created", [b"5", b"{}", b'"last year"'])
def test_a_result_without_a_time_does_not_decode(cache: Cache, created: bytes) -> None:
    key, id = cache.results[0]
    cache.edit({b"_result": {key: {id: b'{"CreatedAt":%s,"ID":"%s"}' % (created, id)}}})
    assert found(cache.root) == {("C53", "H", id.decode())}


def test_values_among_the_buckets_of_the_solver_cache(cache: Cache) -> None:
    cache.edit({b"_result": {b"plain": b"x"}})
    assert found(cache.root) == {("C62", "H", "plain")}


def test_link_with_an_odd_but_valid_text(cache: Cache) -> None:
    target = cache.results[0][0]
    text = b'{"Output":2,"Selector":"a b\\u00e9"}'
    cache.edit({LINKS: {cache.key: {text + b"@" + target: b""}}, BACKLINKS: {target: {cache.key: b""}}})
    assert found(cache.root) == set()


def test_link_without_way_back(cache: Cache) -> None:
    source, link = cache.links[0]
    cache.edit({BACKLINKS: {link.rpartition(b"@")[2]: {source: None}}})
    assert found(cache.root) == {("C54", "H", source.decode())}


def test_link_to_a_key_without_result_and_link(cache: Cache) -> None:
    target = b"nothing-is-there"
    cache.edit({LINKS: {cache.key: {b"{}@" + target: b""}}, BACKLINKS: {target: {cache.key: b""}}})
    assert found(cache.root) == {("C55", "L", target.decode())}
