"""The reference implementation, where upstream's in-memory store differs; the rest is the conformance kit's."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore import Cursor, DataReference, MemoryStore, SignedURLProperties, WriteOptions
from datastore.errors import (
    AlreadyExists,
    BadCursor,
    InvalidReference,
    LimitExceeded,
    NotFound,
    NotSupported,
    is_exceeds_limit,
    is_not_found,
)
from datastore.memory import MemoryLocation, resolve_range
from tests.datastore.test_reference import VECTORS

REF = DataReference("mem://c/k")


def test_head_before_and_after_writing_nothing() -> None:
    """An empty object exists, and has an etag; upstream's is 32 zeros for what is missing."""
    store = MemoryStore()
    assert not store.head(REF).exists
    store.write_bytes(REF, b"")
    found = store.head(REF)
    assert (found.exists, found.size, len(found.etag)) == (True, 0, 32)
    assert found.etag != "0" * 32


def test_clearing() -> None:
    """Everything is gone, the store goes on."""
    store = MemoryStore()
    store.write_bytes(REF, b"x")
    store.clear()
    with pytest.raises(NotFound) as caught:
        store.read_raw(REF)
    assert is_not_found(caught.value)
    store.write_bytes(REF, b"y")
    assert store.read_bytes(REF) == b"y"


def test_deleting_twice() -> None:
    """Silent by default, an error for who insists."""
    store = MemoryStore()
    store.write_bytes(REF, b"x")
    store.delete(REF)
    store.delete(REF)
    with pytest.raises(NotFound):
        store.read_raw(REF)
    with pytest.raises(NotFound, match="delete mem://c/k"):
        store.delete(REF, missing_ok=False)


@pytest.mark.parametrize(
    ("one", "other"),
    [("mem://c/k", "mem://c/k/"), ("mem://c/a b", "mem://c/a%20b"), ("mem://c/k", "any://c/k"), ("k", "/k")],
)
def test_spellings_of_one_object(one: str, other: str) -> None:
    """Upstream goes by the text; here references of any scheme and none are taken, by container and key."""
    store = MemoryStore()
    store.write_bytes(one, b"content")
    assert store.read_bytes(other) == b"content"


@pytest.mark.parametrize("text", ["mem://c", "mem://c/k?x", "mem://c/../k", ""])
def test_what_names_no_object_is_refused(text: str) -> None:
    """As everywhere."""
    with pytest.raises(InvalidReference):
        MemoryStore().write_bytes(text, b"")


def test_it_has_no_base_container() -> None:
    """Upstream's is empty too."""
    assert str(MemoryStore().base_container_fqn) == ""


@pytest.mark.parametrize("row", [row for row in VECTORS["download_limit"] if row["max_download_mbs"] >= 0], ids=str)
def test_the_download_limit(row: dict[str, Any]) -> None:
    """MiB a read; exactly the limit passes, 0 is none; upstream's memory has no limit."""
    store = MemoryStore(max_download_bytes=row["max_download_mbs"] << 20)
    store.write_bytes(REF, bytes(row["size"]))
    assert store.download_limit(REF) == row["max_download_mbs"] << 20
    if row["expect"] == "ok":
        assert len(store.read_bytes(REF)) == row["size"]
    else:
        with pytest.raises(LimitExceeded, match=str(row["size"])) as caught:
            store.read_raw(REF)
        assert is_exceeds_limit(caught.value)
        assert len(store.read_bytes(REF, 0, 10)) == 10


def test_listing_is_ordered_and_paged() -> None:
    """By UTF-8 bytes; an end cursor is an error; nothing found is not."""
    store = MemoryStore()
    keys = ["a/2", "a/1", "a", "ab", "a-", "é", "z"]
    for key in keys:
        store.write_bytes(DataReference.build("mem", "c", key), key.encode())
    assert [ref.key for ref in store.list("mem://c")[0]] == sorted(keys, key=str.encode)
    first, cursor = store.list("mem://c/a/", 1, directory=True)
    second, end = store.list("mem://c/a/", 1, cursor, directory=True)
    assert [str(ref) for ref in (*first, *second)] == ["mem://c/a/1", "mem://c/a/2"]
    assert end.is_at_end
    with pytest.raises(BadCursor):
        store.list("mem://c", 1, Cursor.at_end())
    assert store.list("mem://nothing/here") == ([], Cursor.at_end())


def test_metadata_are_kept() -> None:
    """Upstream drops them."""
    store = MemoryStore()
    store.write_bytes(REF, b"x", WriteOptions(metadata={"a": "1"}, content_type="text/plain"))
    found = store.head(REF)
    assert (found.user_metadata, found.content_type, found.last_modified is None) == ({"a": "1"}, "text/plain", False)


def test_the_callers_stream_is_read_without_a_lock() -> None:
    """It may take long, or read from this very store."""
    store = MemoryStore()
    store.write_bytes(REF, b"content")

    class Copying:
        def __init__(self) -> None:
            self.left = store.read_bytes(REF)

        def read(self, size: int = -1, /) -> bytes:
            piece, self.left = self.left, b""
            return piece if not piece else piece[:3] + store.read_bytes(REF)[3:]

    store.write_raw(REF, None, None, Copying())
    assert store.read_bytes(REF) == b"content"


def test_of_many_creators_one_wins() -> None:
    """Thirty-two threads, one object."""
    store = MemoryStore()
    ready = threading.Barrier(32)

    def create(number: int) -> bool:
        ready.wait()
        try:
            store.write_bytes(REF, str(number).encode(), WriteOptions(if_absent=True))
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(32) as pool:
        won = list(pool.map(create, range(32)))
    assert won.count(True) == 1
    assert int(store.read_bytes(REF)) == won.index(True)


def test_it_cannot_sign() -> None:
    """And says where one can."""
    with pytest.raises(NotSupported, match="cannot sign URLs for read"):
        MemoryStore().create_signed_url(REF, SignedURLProperties())


def test_a_location_keeps_containers_apart() -> None:
    """Made, found, listed and cleared by name."""
    location = MemoryLocation()
    for name in ("b", "a"):
        location.create_container(name)
        location.create_container(name)
    assert (list(location.list_containers()), list(location.list_containers("b"))) == (["a", "b"], ["b"])
    assert [location.has_container(name) for name in ("a", "x")] == [True, False]
    location.delete_container("a")
    assert not location.has_container("a")
    location.clear()
    assert location.has_container("b")
    location.close()


@given(st.integers(0, 50), st.integers(-80, 80), st.none() | st.integers(0, 80))
def test_ranges_are_those_of_a_slice(size: int, start: int, length: int | None) -> None:
    """Clipped to the object, from either end."""
    content = bytes(size)
    first, count = resolve_range(size, start, length)
    assert 0 <= first <= first + count <= size
    begin = max(0, size + start) if start < 0 else start
    assert count == len(content[begin:] if length is None else content[begin : begin + length])
