"""What is S3's own in reading, writing, listing and buckets; the kit checks the rest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datastore.context import cancellable, deadline
from datastore.driver import Container, Location
from datastore.errors import (
    AlreadyExists,
    ContainerNotEmpty,
    InvalidReference,
    NoSuchContainer,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    StoreError,
)
from datastore.model import SignedURLProperties
from stowstore.locations.base import HttpSettings
from stowstore.versions.address import open_root
from stowstore.versions.errors import NoSuchVolume
from stowstore.versions.root import RootFormat
from tests.faulty_http import FaultyProxy
from tests.locations.s3_buckets import dial, dial_server, fresh_bucket, get, keys_of, put, raw_client
from tests.servers import Server

#: Keys obstore does not take, among others that look odd.
_ODD_KEYS = [
    "a//b",
    "a/ /b",
    "tab\there",
    "new\nline",
    "\x01\x1f\x7f",
    "a+b c%20d%zz",
    "?x=1#f",
    "back\\slash",
    "~t'x(1)*!",
    "ünï/漢/😀/\u2028",
    "<a>&\"b'",
    "x" * 1024,
]


@pytest.fixture(scope="module")
def location(radosgw: Server) -> Iterator[Location]:
    found = dial_server(radosgw)
    yield found
    found.close()


@pytest.fixture
def bucket(radosgw: Server) -> Iterator[str]:
    with fresh_bucket(radosgw) as name:
        yield name


@pytest.fixture
def container(location: Location, bucket: str) -> Container:
    return location.container(bucket)


@pytest.mark.parametrize("key", _ODD_KEYS, ids=ascii)
def test_odd_keys_are_exact_everywhere(radosgw: Server, container: Container, key: str) -> None:
    """Whichever client carries it, a key is one and the same object to every operation and to other programs."""
    etag = put(container, key, b"content", metadata={"k": "v"})
    assert get(container, key) == b"content"
    assert container.head(key).user_metadata == {"k": "v"}
    assert [(entry.key, entry.etag) for entry in container.list("", "", 10, "").entries] == [(key, etag)]
    assert raw_client(radosgw).stat_object(container.name, key).size == 7
    container.copy(f"{key[:500]}-copy", container, key, None)
    assert container.head(f"{key[:500]}-copy").etag == etag
    assert container.delete_many([key, f"{key[:500]}-copy"]) == {}
    assert keys_of(container) == []


@pytest.mark.parametrize("bounded", [False, True], ids=["unbounded", "within limits"])
def test_both_ways_do_the_same(container: Container, bounded: bool) -> None:
    """Requests within a deadline go another way and mean the same."""
    options = {
        "metadata": {"a-b": "1 2", "content-type": "no header"},
        "content_type": "text/plain",
        "cache_control": "no-store",
        "content_encoding": "gzip",
        "content_disposition": "inline",
        "tags": {"t": "a b&c"},
    }
    with deadline(60 if bounded else 1e6):
        etag = put(container, "k", b"0123456789", **options)
        known = container.head("k")
        assert (known.size, known.etag) == (10, etag)
        assert known.user_metadata == options["metadata"]
        assert (known.content_type, known.cache_control) == ("text/plain", "no-store")
        assert (known.content_encoding, known.content_disposition) == ("gzip", "inline")
        for start, length, expected in [
            (0, None, b"0123456789"),
            (0, 3, b"012"),
            (3, None, b"3456789"),
            (8, 100, b"89"),
            (-3, None, b"789"),
            (-3, 2, b"78"),
            (-100, None, b"0123456789"),
            (-100, 2, b"01"),
            (10, None, b""),
            (11, 5, b""),
            (4, 0, b""),
        ]:
            with container.open("k", start, length, etag) as stream:
                assert (stream.size, stream.read()) == (len(expected), expected), (start, length)
                assert stream.metadata.size == 10
            with pytest.raises(PreconditionFailed):
                container.open("k", start, length, "other")
        with pytest.raises(AlreadyExists):
            put(container, "k", b"x", if_absent=True)
        with pytest.raises(PreconditionFailed):
            put(container, "k", b"x", if_match="other")
        with pytest.raises(PreconditionFailed):
            put(container, "missing", b"x", if_match=etag)
        assert put(container, "k", b"y", if_match=etag) == container.head("k").etag
        with pytest.raises(NotFound):
            container.open("missing", 0, None, None)
        container.delete("k")
        container.delete("k")


def test_tags_are_kept(radosgw: Server, container: Container) -> None:
    """Tags are written by every way there is to write, and a copy keeps them."""
    put(container, "plain", tags={"a": "b c"})
    put(container, "odd//key", tags={"a": "b c"})
    put(container, "large", b"x" * (9 << 20), tags={"a": "b c"})
    container.copy("copy", container, "plain", None)
    for key in ("plain", "odd//key", "large", "copy"):
        assert raw_client(radosgw).get_object_tags(container.name, key) == {"a": "b c"}


def test_empty_objects_have_empty_ranges(container: Container) -> None:
    """S3 answers every range of an empty object with an error; we do not."""
    put(container, "empty", b"")
    for start, length in [(0, None), (0, 5), (3, None), (-3, None), (-3, 1)]:
        assert get(container, "empty", start, length) == b""


def test_large_objects_stream(container: Container) -> None:
    """Both ways hand large objects over in pieces, and can be closed half-way."""
    data = bytes(range(256)) * (12 << 12)
    put(container, "large", data)
    assert get(container, "large") == data
    assert get(container, "large", 5, 3 << 20) == data[5 : 5 + (3 << 20)]
    with deadline(60):
        assert get(container, "large") == data
        with container.open("large", 0, None, None) as stream:
            assert stream.read(10) == data[:10]
    with container.open("large", 0, None, None) as stream:
        assert stream.read(10) == data[:10]
    assert get(container, "large", -4) == data[-4:]


def test_listing_resumes_anywhere(container: Container) -> None:
    """Prefixes are text, pages of any size join, and what lies below a common prefix is past behind it."""
    keys = sorted(["a", "a/1", "a/2", "a0", "ab", "b//c", "b/c", "c +%", "é/x", "\U0010ffff"], key=str.encode)
    for key in keys:
        put(container, key)
    assert keys_of(container) == keys
    assert keys_of(container, "a") == [key for key in keys if key.startswith("a")]
    for size in (1, 2, 3, 100):
        after, seen = "", []
        while True:
            page = container.list("", after, size, "")
            seen += [entry.key for entry in page.entries]
            if not page.more:
                break
            after = seen[-1]
        assert seen == keys
        after, seen = "", []
        while True:
            page = container.list("", after, size, "/")
            names = sorted([*(entry.key for entry in page.entries), *page.prefixes], key=str.encode)
            assert len(names) <= size
            seen += names
            if not page.more:
                break
            after = names[-1]
        assert seen == ["a", "a/", "a0", "ab", "b/", "c +%", "é/", "\U0010ffff"]


def test_a_listing_starts_inside_a_common_prefix(container: Container) -> None:
    """What is left of a common prefix comes once, and counts; behind its last object it is past."""
    for key in ("a/1", "a/2", "b", "c/d/1", "c/d/2", "c/e"):
        put(container, key)
    for after, limit, expected, more in [
        ("a/1", 10, ["a/", "b", "c/"], False),
        ("a/1", 1, ["a/"], True),
        ("a/1", 2, ["a/", "b"], True),
        ("a/2", 10, ["b", "c/"], False),
        ("c/d/", 10, ["c/"], False),
        ("c/d/2", 1, ["c/"], False),
        ("c/e", 10, [], False),
        ("b", 1, ["c/"], False),
    ]:
        page = container.list("", after, limit, "/")
        names = sorted([*(entry.key for entry in page.entries), *page.prefixes])
        assert (names, page.more) == (expected, more), (after, limit)


def test_buckets_come_and_go(location: Location, bucket: str) -> None:
    """Making one's own bucket again is success; one that holds something, or is not there, is not removed."""
    location.create_container(bucket)
    assert location.has_container(bucket)
    assert bucket in list(location.list_containers())
    assert list(location.list_containers(bucket[:-1])) == [bucket]
    put(location.container(bucket), "k")
    with pytest.raises(ContainerNotEmpty):
        location.delete_container(bucket)
    with pytest.raises(NoSuchContainer):
        location.delete_container("no-such-bucket-here")
    assert not location.has_container("no-such-bucket-here")
    with pytest.raises(InvalidReference):
        location.container("a")


@pytest.mark.parametrize("bounded", [False, True], ids=["unbounded", "within limits"])
def test_missing_buckets_are_named(location: Location, bounded: bool) -> None:
    """What needs the bucket says that it is missing; removing from it is done already."""
    missing = location.container("no-such-bucket-here")
    with deadline(60 if bounded else 1e6):
        for act in (
            lambda: put(missing, "k"),
            lambda: put(missing, "k", b"x" * (9 << 20)),
            lambda: get(missing, "k"),
            lambda: missing.list("", "", 10, ""),
        ):
            with pytest.raises(NoSuchContainer):
                act()
        missing.delete("k")


def test_denial_says_what_may_be_hidden(radosgw: Server, bucket: str) -> None:
    """Who may not look gets PermissionDenied with a hint, and no secret."""
    stranger = radosgw.stranger
    other = dial_server(radosgw, access_key_id=stranger.access_key, secret_key=stranger.secret_key)
    for act in (
        lambda: get(other.container(bucket), "k"),
        lambda: other.container(bucket).head("k"),
        lambda: put(other.container(bucket), "a//b"),
        lambda: other.container(bucket).list("", "", 1, ""),
    ):
        with pytest.raises(PermissionDenied, match="missing object") as caught:
            act()
        assert stranger.secret_key not in f"{caught.value!r} {caught.value.__cause__!r}"
    with pytest.raises(PermissionDenied):
        other.has_container(bucket)
    other.close()


def test_wrong_secrets_are_told(radosgw: Server, bucket: str) -> None:
    """A wrong secret and an unknown key say which of the two to check."""
    for options, hint in [({"secret_key": "wrong"}, "secret_key"), ({"access_key_id": "nobody"}, "access_key_id")]:
        other = dial_server(radosgw, **options)
        for key in ("plain", "odd//key"):
            with pytest.raises(PermissionDenied, match=hint):
                get(other.container(bucket), key)
        other.close()


def test_anonymous_requests_are_unsigned(radosgw: Server, bucket: str) -> None:
    """Without a signature what is private is refused, by either way, and nothing can be signed."""
    location = dial(endpoint=radosgw.endpoint, anonymous="true")
    for key in ("plain", "odd//key"):
        with pytest.raises(PermissionDenied):
            get(location.container(bucket), key)
    with pytest.raises(PermissionDenied, match="anonymous"):
        location.container(bucket).sign("k", SignedURLProperties())
    location.close()


def test_a_rotated_secret_is_found_after_a_refusal(radosgw: Server, bucket: str, tmp_path: object) -> None:
    """A secret from a file is read again when it is refused; the error says that trying again may help."""
    file = tmp_path / "secret"  # type: ignore[operator]
    for key in ("plain", "odd//key"):
        file.write_text("old-secret\n")
        location = dial(
            endpoint=radosgw.endpoint, access_key_id=radosgw.access_key, secret_key_path=str(file), timeout="20"
        )
        container = location.container(bucket)
        with pytest.raises(PermissionDenied) as caught:
            put(container, key)
        assert not caught.value.retryable
        file.write_text(f"{radosgw.secret_key}\n")
        with pytest.raises(PermissionDenied) as caught:
            put(container, key)
        assert caught.value.retryable
        put(container, key)
        location.close()


def test_configured_headers_go_with_every_request(radosgw: Server, bucket: str) -> None:
    """Each request carries them, whoever sends it."""
    with FaultyProxy(radosgw.endpoint) as proxy:
        location = dial(
            HttpSettings(headers={"X-Extra": ("a", "b")}),
            endpoint=proxy.endpoint,
            access_key_id=radosgw.access_key,
            secret_key=radosgw.secret_key,
        )
        assert location.has_container(bucket)
        container = location.container(bucket)
        put(container, "plain")
        put(container, "odd//key")
        keys_of(container)
        location.close()
        assert len(proxy.requests) == 4
        assert [request.headers.get("x-extra") for request in proxy.requests] == ["a, b"] * 4


def test_one_request_an_operation(radosgw: Server, bucket: str) -> None:
    """Reads, writes, heads and deletes are one request each, a copy too."""
    with FaultyProxy(radosgw.endpoint) as proxy:
        location = dial_server(radosgw, proxy.endpoint)
        container = location.container(bucket)
        put(container, "k", b"x" * 1000, metadata={"a": "b"})
        container.head("k")
        get(container, "k")
        get(container, "k", 5, 10)
        container.copy("c", container, "k", None)
        container.delete_many(["c", "x"])
        container.delete("k")
        location.close()
        assert [request.method for request in proxy.requests] == ["PUT", "HEAD", "GET", "GET", "PUT", "POST", "DELETE"]


def test_a_key_is_removed_once(radosgw: Server, bucket: str) -> None:
    """A key named several times is sent once: Ceph 16.2 dies of a request that names one twice."""
    with FaultyProxy(radosgw.endpoint) as proxy:
        location = dial_server(radosgw, proxy.endpoint)
        container = location.container(bucket)
        for key in ("a", "b", "odd\x01"):
            put(container, key)
        assert container.delete_many(["none", "a", "b", "odd\x01", "a", "none", "odd\x01"]) == {}
        (bulk,) = [request.body for request in proxy.requests if request.method == "POST"]
        assert [bulk.count(f"<Key>{key}</Key>".encode()) for key in ("none", "a", "b")] == [1, 1, 1]
        assert sum(request.method == "DELETE" for request in proxy.requests) == 1
        assert keys_of(container) == []
        location.close()


def test_connections_are_used_again(radosgw: Server, bucket: str) -> None:
    """Reading to the end gives a connection back, by every way to read: twenty reads do not take ten connections."""
    with FaultyProxy(radosgw.endpoint) as proxy:
        location = dial_server(radosgw, proxy.endpoint)
        container = location.container(bucket)
        for key, size in (("k", 1000), ("odd//k", 1000), ("large", 1 << 20), ("odd//large", 1 << 20)):
            put(container, key, b"x" * size)
            before = proxy.accepted
            for _ in range(10):
                assert len(get(container, key)) == size
                with deadline(60):
                    assert len(get(container, key)) == size
            # A connection is given back by a thread of the client: a read that comes first may open one more.
            assert proxy.accepted - before < 10, key
        location.close()


def test_a_cancelled_context_sends_nothing(container: Container) -> None:
    """Once cancelled, no request goes out."""
    with cancellable() as token:
        token.cancel()
        with pytest.raises(StoreError, match="cancelled"):
            put(container, "k")
    assert keys_of(container) == []


def test_a_root_in_a_bucket_that_is_missing_says_which(radosgw: Server) -> None:
    """It is not the root that is to be made, but the bucket."""
    options = {"endpoint": radosgw.endpoint, "access_key_id": radosgw.access_key, "secret_key": radosgw.secret_key}
    with pytest.raises(NoSuchVolume, match=r"there is no container nowhere \(.*stowstore mb s3://nowhere\)"):
        open_root("s3://nowhere/root", options=options)
    with pytest.raises(NoSuchContainer, match="create it, or mend the name"):
        open_root("s3://nowhere/root", options=options, create=RootFormat())
