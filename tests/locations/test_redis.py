"""What is Redis's own: strings others wrote and write, atomic conditions, patterns, sockets and limits."""

import multiprocessing
import os
import sys
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from datastore import deadline
from datastore.errors import (
    AlreadyExists,
    ConfigError,
    DeadlineExceeded,
    InvalidReference,
    LimitExceeded,
    NotFound,
    NotSupported,
    PermissionDenied,
    PreconditionFailed,
    StoreError,
    TransientError,
)
from datastore.model import WriteOptions
from datastore.source import Source
from stowstore.locations.base import Dial, HttpSettings
from stowstore.locations.redis import KIND, RedisContainer, RedisLocation
from tests.servers import Server, redis

_PLAIN = WriteOptions()


def _dial(http: HttpSettings | None = None, **options: str) -> RedisLocation:
    location = KIND.dial(Dial(options=KIND.check(options), http=http or HttpSettings(timeout=30.0)))
    assert isinstance(location, RedisLocation)
    return location


@pytest.fixture
def location(redis_server: Server) -> Iterator[RedisLocation]:
    location = _dial(unix_socket=redis_server.extra["socket"])
    yield location
    location.close()


@pytest.fixture
def container(location: RedisLocation) -> RedisContainer:
    return location.container("localhost")


@pytest.fixture
def client(container: RedisContainer) -> Any:
    """A plain client, as another program has one."""
    return container._client


@pytest.fixture
def place() -> str:
    return uuid.uuid4().hex


def _read(container: RedisContainer, key: str) -> bytes:
    with container.open(key, 0, None, None) as stream:
        return stream.read()


def _head_for_ever(container: RedisContainer, key: str) -> None:
    while True:
        container.head(key)


def test_an_object_is_a_plain_string(container: RedisContainer, client: Any, place: str) -> None:
    """What we write others read under the same key, and the other way round."""
    container.put(f"{place}/é", Source(b"\x00\xff"), _PLAIN)
    assert client.get(f"{place}/é") == b"\x00\xff"
    client.set(f"{place}/theirs", b"hello")
    assert _read(container, f"{place}/theirs") == b"hello"
    assert container.head(f"{place}/theirs").size == 5


@pytest.mark.parametrize("size", [5, 100_000])
def test_metadata_do_not_outlive_their_string(container: RedisContainer, client: Any, place: str, size: int) -> None:
    """Once somebody else set the string, its etag is another one and our metadata are gone."""
    etag = container.put(place, Source(b"x" * size), WriteOptions(metadata={"a": "b"}))
    client.set(place, b"y" * (size if size < 1000 else size + 1))
    found = container.head(place)
    assert found.etag != etag
    assert found.user_metadata == {}
    with pytest.raises(PreconditionFailed):
        container.put(place, Source(b"z"), WriteOptions(if_match=etag))


def test_one_of_many_creators_wins(container: RedisContainer, place: str) -> None:
    """The check and the write are one step in the server."""

    def create(number: int) -> bool:
        try:
            container.put(place, Source(str(number).encode()), WriteOptions(if_absent=True))
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(32) as pool:
        assert sum(pool.map(create, range(32))) == 1


def test_glob_characters_in_a_prefix_are_themselves(container: RedisContainer, place: str) -> None:
    """A prefix is text, not a pattern."""
    for name in ("a*b", "axb", "[ab]", "a", "?", "x", "\\", "h^llo"):
        container.put(f"{place}/{name}", Source(b""), _PLAIN)
    for prefix in ("a*", "[ab]", "?", "\\", "h^"):
        keys = [entry.key for entry in container.list(f"{place}/{prefix}", "", 10, "").entries]
        assert len(keys) == 1
        assert keys[0].startswith(f"{place}/{prefix}")


def test_what_is_no_string_is_no_object(container: RedisContainer, client: Any, place: str) -> None:
    """Other types under a key are left out of listings and named by errors."""
    client.hset(f"{place}/hash", "field", "value")
    client.set(f"{place}/string", "value")
    assert [entry.key for entry in container.list(f"{place}/", "", 10, "").entries] == [f"{place}/string"]
    with pytest.raises(StoreError, match="no string"):
        container.head(f"{place}/hash")


def test_names_that_are_no_text_are_counted(container: RedisContainer, client: Any, place: str) -> None:
    """A key that is not UTF-8 ends no listing."""
    client.set(f"{place}/".encode() + b"\xff", b"")
    client.set(f"{place}/a", b"")
    page = container.list(f"{place}/", "", 10, "")
    assert [entry.key for entry in page.entries] == [f"{place}/a"]
    assert page.omitted == 1
    client.delete(f"{place}/".encode() + b"\xff")


def test_companions_are_not_listed(container: RedisContainer, place: str) -> None:
    """What we keep beside the strings is nobody's object."""
    container.put(place, Source(b"x"), WriteOptions(metadata={"a": "b"}))
    assert all("\0" not in entry.key for entry in container.list("", "", 100_000, "").entries)


def test_a_failed_large_write_leaves_nothing(container: RedisContainer, client: Any, place: str) -> None:
    """The pieces of a write that did not finish are gone, and the object is the old one."""
    container.put(place, Source(b"old"), _PLAIN)

    def broken() -> Iterator[bytes]:
        yield b"x" * (6 << 20)
        raise OSError("the caller's own")

    with pytest.raises(OSError, match="the caller's own"):
        container.put(place, Source(broken()), _PLAIN)
    assert _read(container, place) == b"old"
    assert list(client.scan_iter(b"\0stowstore:staged:*")) == []


def test_the_cap_of_a_string(redis_server: Server, place: str) -> None:
    """A stream without a size is refused when it passes the cap, with nothing stored."""
    container = _dial(unix_socket=redis_server.extra["socket"], max_object_bytes=str(5 << 20)).container("localhost")
    with pytest.raises(LimitExceeded, match="redis string value cap"):
        container.put(place, Source(iter([b"x" * (1 << 20)] * 6)), _PLAIN)
    with pytest.raises(NotFound):
        container.head(place)


def test_a_replaced_object_is_not_read_on(container: RedisContainer, place: str) -> None:
    """The pieces of a large value belong together, or reading fails."""
    container.put(place, Source(b"a" * (3 << 20)), _PLAIN)
    with container.open(place, 0, None, None) as stream:
        stream.read(10)
        container.put(place, Source(b"b" * (3 << 20)), _PLAIN)
        with pytest.raises(TransientError, match="replaced"):
            stream.read()


def test_a_deadline_ends_a_wait_for_the_server(place: str) -> None:
    """A server that hangs does not hang its clients, and is used again when it answers."""
    with redis.start() as server:
        container = _dial(unix_socket=server.extra["socket"]).container("localhost")
        container.put(place, Source(b"x"), _PLAIN)
        plain = _dial(unix_socket=server.extra["socket"]).container("localhost")
        plain.head(place)
        script = "local n = 0 for i = 1, 4e8 do n = n + i end return n"
        held = threading.Thread(target=lambda: plain._client.eval(script, 0))
        held.start()
        try:
            with pytest.raises(DeadlineExceeded), deadline(0.2):
                _head_for_ever(container, place)
        finally:
            held.join()
        assert container.head(place).size == 1


def test_a_wrong_password_is_permission_denied(place: str) -> None:
    """The error names no secret."""
    with redis.start() as server:
        admin = _dial(unix_socket=server.extra["socket"]).container("localhost")
        admin._client.config_set("requirepass", "right-password")
        location = _dial(unix_socket=server.extra["socket"], password="wrong-password")
        assert "wrong-password" not in repr(location)
        with pytest.raises(PermissionDenied) as raised:
            location.container("localhost").head(place)
        assert "wrong-password" not in str(raised.value)
        good = _dial(unix_socket=server.extra["socket"], password="right-password").container("localhost")
        good.put(place, Source(b"x"), _PLAIN)
        assert good.head(place).size == 1


def test_it_works_in_a_forked_child(container: RedisContainer, place: str) -> None:
    """Connections of the parent are not used by the child."""
    container.put(place, Source(b"x"), _PLAIN)

    def child() -> None:
        os._exit(0 if _read(container, place) == b"x" else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert _read(container, place) == b"x"


@pytest.mark.parametrize(
    ("addr", "name", "address"),
    [("localhost:7000", "other:1", "localhost:7000"), ("", "other:1", "other:1"), ("redis://h:1/", "x", "h:1")],
)
def test_the_host_of_a_reference_is_advisory(addr: str, name: str, address: str) -> None:
    """A configured address wins; without one the reference's own host is dialled."""
    location = _dial(**({"addr": addr} if addr else {}))
    assert location.container(name).name == address


@pytest.mark.parametrize("name", ["", "h:x", ":6379"])
def test_a_host_that_is_none(name: str) -> None:
    """Without an address a reference has to name a server."""
    with pytest.raises(InvalidReference, match="no Redis server"):
        _dial().container(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"addr": "redis://u:secret@h"}, "holds credentials"),
        ({"addr": "http://h"}, "invalid addr"),
        ({"addr": "h:1/2"}, "invalid addr"),
    ],
)
def test_addresses_that_are_refused(options: dict[str, str], message: str) -> None:
    """Credentials and databases are options of their own."""
    with pytest.raises(ConfigError, match=message) as raised:
        _dial(**options)
    assert "secret" not in str(raised.value)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ConfigError, match=r'pip install "stowstore\[redis\]"'):
        _dial(addr="localhost")


def test_a_server_stays(location: RedisLocation) -> None:
    """There is one container, which cannot be removed."""
    assert location.has_container("localhost")
    location.create_container("localhost")
    assert list(location.list_containers()) == ["localhost"]
    with pytest.raises(NotSupported):
        location.delete_container("localhost")
