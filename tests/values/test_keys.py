from hypothesis import given
from hypothesis import strategies as st

from buildkit_migrate.values import keys


def test_index_key_as_buildkit_writes_it() -> None:
    assert keys.index_key(b"blobmap::sha256:24", b"4uflbb3d1dwt") == b"blobmap::sha256:24::4uflbb3d1dwt"
    assert keys.index_key(keys.CHAIN_ID_INDEX + b"sha256:0a", b"id") == b"chainid:sha256:0a::id"
    assert keys.index_key(keys.BLOB_CHAIN_ID_INDEX + b"sha256:0a", b"id") == b"blobchainid:sha256:0a::id"


def test_record_id_is_after_the_last_separator() -> None:
    assert keys.record_of_index_key(b"blobmap::sha256:24::4uflbb3d1dwt") == b"4uflbb3d1dwt"
    assert keys.record_of_index_key(b"local.sharedKey:context:context:::m5wuomqree67") == b"m5wuomqree67"
    assert keys.record_of_index_key(b"etag::sha256:00ff") == b"sha256:00ff"


def test_key_without_separator_has_no_record() -> None:
    assert keys.record_of_index_key(b"") is None
    assert keys.record_of_index_key(b"chainid:sha256:0a") is None


@given(index=st.binary(), record=st.binary(min_size=1).filter(lambda id: b":" not in id))
def test_record_id_survives_an_index_key(index: bytes, record: bytes) -> None:
    assert keys.record_of_index_key(keys.index_key(index, record)) == record
