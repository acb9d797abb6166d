"""Uploads of large and of unknown size: what the caller's stream raises, and what stays behind."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.driver import Container
from datastore.errors import AlreadyExists, DigestMismatch, LimitExceeded, NotFound, PreconditionFailed, SizeMismatch
from stowstore.locations.s3.uploading import MAX_PARTS, part_sizes
from tests.faulty_http import FaultyProxy
from tests.locations.s3_buckets import dial_server, fresh_bucket, get, keys_of, put, unfinished_uploads
from tests.servers import Server

_MEBIBYTE = 1 << 20
_PIECE = bytes(range(256)) * (_MEBIBYTE // 256)


@pytest.fixture(scope="module")
def bucket(radosgw: Server) -> Iterator[str]:
    with fresh_bucket(radosgw) as name:
        yield name


@pytest.fixture
def container(radosgw: Server, bucket: str) -> Iterator[Container]:
    location = dial_server(radosgw)
    container = location.container(bucket)
    yield container
    container.delete_many(keys_of(container))
    location.close()


def _pieces(count: int, error: BaseException | None = None) -> Iterator[bytes]:
    for _ in range(count):
        yield _PIECE
    if error is not None:
        raise error


@pytest.mark.parametrize("conditions", [{}, {"if_absent": True}], ids=["plain", "conditional"])
@pytest.mark.parametrize("size", [None, 20 * _MEBIBYTE], ids=["of unknown size", "of known size"])
@pytest.mark.parametrize(
    "error",
    [OSError("disk gone"), ValueError("bad line"), KeyError("k"), NotFound("elsewhere"), KeyboardInterrupt()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("pieces", [0, 3, 17], ids=["at once", "early", "late"])
def test_the_callers_error_is_the_callers(
    radosgw: Server,
    container: Container,
    conditions: dict[str, object],
    size: int | None,
    error: BaseException,
    pieces: int,
) -> None:
    """What the stream raises comes back as the same object; nothing is visible, nothing stays in the bucket."""
    with pytest.raises(type(error)) as caught:
        put(container, "large", _pieces(pieces, error), size, **conditions)
    assert caught.value is error
    assert keys_of(container) == []
    assert unfinished_uploads(radosgw, container.name) == []


@pytest.mark.parametrize("conditions", [{}, {"if_absent": True}], ids=["plain", "conditional"])
@pytest.mark.parametrize("pieces", [19, 21], ids=["short", "long"])
def test_a_wrong_size_writes_nothing(
    radosgw: Server, container: Container, conditions: dict[str, object], pieces: int
) -> None:
    """A stream shorter or longer than declared is refused, and the old object stays."""
    before = put(container, "other", b"old")
    with pytest.raises(SizeMismatch):
        put(container, "large", _pieces(pieces), 20 * _MEBIBYTE, **conditions)
    with pytest.raises(SizeMismatch):
        put(container, "other", _pieces(pieces), 20 * _MEBIBYTE)
    assert [(entry.key, entry.etag) for entry in container.list("", "", 10, "").entries] == [("other", before)]
    assert unfinished_uploads(radosgw, container.name) == []


def test_a_wrong_digest_writes_nothing(radosgw: Server, container: Container) -> None:
    """The digest is verified before the last step."""
    from datastore.model import WriteOptions
    from datastore.source import Source

    with pytest.raises(DigestMismatch):
        container.put("large", Source(_pieces(20), None, content_md5="A" * 22 + "=="), WriteOptions())
    assert keys_of(container) == []
    assert unfinished_uploads(radosgw, container.name) == []


@pytest.mark.parametrize("size", [None, 20 * _MEBIBYTE], ids=["of unknown size", "of known size"])
def test_conditions_hold_for_large_objects(container: Container, size: int | None) -> None:
    """Create-only and replace-if-unchanged mean the same for objects that would otherwise go in parts."""
    etag = put(container, "large", _pieces(20), size, if_absent=True, metadata={"a": "b"})
    assert (container.head("large").etag, container.head("large").user_metadata) == (etag, {"a": "b"})
    with pytest.raises(AlreadyExists):
        put(container, "large", _pieces(20), size, if_absent=True)
    with pytest.raises(PreconditionFailed):
        put(container, "large", _pieces(20), size, if_match="other")
    assert put(container, "large", _pieces(20), size, if_match=etag, cache_control="no-store") != ""
    assert container.head("large").cache_control == "no-store"


def test_parts_carry_what_describes_the_object(container: Container) -> None:
    """Objects sent in parts keep metadata and headers, and the etag that comes back is the object's."""
    etag = put(container, "large", _pieces(20), metadata={"a": "b"}, content_type="text/plain")
    known = container.head("large")
    assert (known.etag, known.size, known.user_metadata) == (etag, 20 * _MEBIBYTE, {"a": "b"})
    assert known.content_type == "text/plain"
    assert get(container, "large") == _PIECE * 20


def test_a_stream_takes_little_memory(container: Container) -> None:
    """Half a gibibyte goes up and comes down in a fraction of its size."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    put(container, "large", _pieces(512))
    with container.open("large", 0, None, None) as stream:
        assert sum(len(piece) for piece in stream) == 512 * _MEBIBYTE
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert grown < 150 * _MEBIBYTE


def test_storage_class_and_encryption_are_asked_for(radosgw: Server, bucket: str) -> None:
    """What the location asks of every object goes with every way of making one."""
    with FaultyProxy(radosgw.endpoint) as proxy:
        location = dial_server(radosgw, proxy.endpoint, storage_class="STANDARD")
        container = location.container(bucket)
        put(container, "plain")
        put(container, "odd//key")
        put(container, "large", _pieces(9))
        container.copy("copy", container, "plain", None)
        container.delete_many(["plain", "odd//key", "large", "copy"])
        location.close()
        asked = [request.headers.get("x-amz-storage-class") for request in proxy.requests]
        assert asked == ["STANDARD", "STANDARD", "STANDARD", None, None, None, "STANDARD", None]


@given(size=st.integers(1, 5 << 40), least=st.integers(5 * _MEBIBYTE, 64 * _MEBIBYTE))
def test_any_object_fits_into_the_parts_s3_takes(size: int, least: int) -> None:
    """Parts are no smaller than asked, and no object up to the largest needs more of them than there may be."""
    sizes = part_sizes(size, least)
    one = next(sizes)
    assert one == next(sizes) >= least
    assert -(-size // one) <= MAX_PARTS


def test_parts_of_an_endless_stream_grow() -> None:
    """Without a size, 10,000 parts hold more than the largest object; what goes on is refused."""
    sizes = part_sizes(None, 5 * _MEBIBYTE)
    made = [next(sizes) for _ in range(MAX_PARTS)]
    assert made == sorted(made)
    assert made[0] == 8 * _MEBIBYTE
    assert sum(made) > 5 << 40
    with pytest.raises(LimitExceeded):
        next(sizes)
