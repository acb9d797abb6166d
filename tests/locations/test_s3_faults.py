"""What the S3 kind makes of servers and networks that fail; every fault is caused on the wire."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from datastore.context import cancellable, deadline
from datastore.driver import Container
from datastore.errors import (
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    DigestMismatch,
    NotFound,
    StoreError,
    Throttled,
    TransientError,
)
from stowstore.locations.base import HttpSettings
from tests.faulty_http import Answer, Fault, FaultyProxy, LoseAnswer, Reset, Stall, Trickle, Truncate
from tests.locations.s3_buckets import dial, dial_server, fresh_bucket, get, keys_of, put, unfinished_uploads
from tests.servers import Server

#: A key for each of the two ways requests go.
_WAYS = pytest.mark.parametrize("key", ["plain", "odd//key"], ids=["obstore", "wire"])
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
_LARGE = 20 << 20


@pytest.fixture
def bucket(radosgw: Server) -> Iterator[str]:
    with fresh_bucket(radosgw) as name:
        yield name


@pytest.fixture
def proxy(radosgw: Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(radosgw.endpoint) as found:
        yield found


@pytest.fixture
def container(radosgw: Server, proxy: FaultyProxy, bucket: str) -> Iterator[Container]:
    location = dial_server(radosgw, proxy.endpoint)
    yield location.container(bucket)
    location.close()


def _acts(container: Container, key: str) -> list[Callable[[], object]]:
    return [lambda: get(container, key), lambda: put(container, key), lambda: container.head(key)]


@_WAYS
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Answer(500), TransientError),
        (Answer(502, b"<html>bad gateway</html>"), TransientError),
        (Answer(503, _SLOW_DOWN), Throttled),
        (Answer(429), Throttled),
        (Answer(408), TransientError),
        (Answer(400, b"<Error><Code>RequestTimeout</Code></Error>"), TransientError),
        (Answer(409, b"<Error><Code>ConditionalRequestConflict</Code></Error>"), TransientError),
        (Reset(), TransientError),
        (LoseAnswer(), TransientError),
    ],
    ids=lambda value: getattr(value, "__name__", None) or repr(value)[:40],
)
def test_what_may_pass_can_be_tried_again(
    container: Container, proxy: FaultyProxy, key: str, fault: Fault, expected: type[StoreError]
) -> None:
    """Failures of the moment are retryable, whoever reports them, and the next try succeeds."""
    put(container, key, b"content")
    acts = _acts(container, key)
    if isinstance(fault, Answer) and fault.status == 400:
        # An answer to HEAD has no body, and with it no code.
        acts.pop()
    for act in acts:
        proxy.break_next(fault)
        with pytest.raises(expected) as caught:
            act()
        assert caught.value.retryable
        act()
    assert proxy.pending == 0


@_WAYS
@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(400, b"<Error><Code>BadDigest</Code></Error>"), DigestMismatch),
        (Answer(400, b"<Error><Code>AuthorizationHeaderMalformed</Code></Error>"), ConfigError),
        (Answer(301, b"<Error><Code>PermanentRedirect</Code></Error>"), ConfigError),
        (Answer(404), NotFound),
        (Answer(418, b"<Error><Code>Odd</Code><Message>I am a teapot</Message></Error>"), StoreError),
    ],
    ids=lambda value: getattr(value, "__name__", None) or repr(value)[:60],
)
def test_what_will_not_pass_is_final(
    container: Container, proxy: FaultyProxy, key: str, answer: Answer, expected: type[StoreError]
) -> None:
    """Other refusals are not worth a second try."""
    put(container, key, b"content")
    proxy.break_next(answer)
    with pytest.raises(expected) as caught:
        get(container, key)
    assert not caught.value.retryable


def test_the_servers_wish_is_heard(container: Container, proxy: FaultyProxy) -> None:
    """obstore hides Retry-After; after its first refusal requests take the way that shows it."""
    put(container, "k", b"content")
    busy = Answer(503, _SLOW_DOWN, headers={"Retry-After": "7"})
    proxy.break_next(busy, busy)
    with pytest.raises(Throttled) as caught:
        get(container, "k")
    assert caught.value.retry_after is None
    with pytest.raises(Throttled, match="reduce your request rate") as caught:
        get(container, "k")
    assert caught.value.retry_after == 7
    assert get(container, "k") == b"content"


@_WAYS
@pytest.mark.parametrize("size", [1000, 1 << 20], ids=["small", "streamed"])
def test_a_truncated_answer_is_no_end(container: Container, proxy: FaultyProxy, key: str, size: int) -> None:
    """A body that ends early is an error, wherever it ends."""
    put(container, key, b"x" * size)
    for after in (0, 1, size - 1):
        proxy.break_next(Truncate(after), method="GET")
        with pytest.raises(TransientError):
            get(container, key)
    assert get(container, key) == b"x" * size


@_WAYS
def test_a_silent_server_is_given_up(radosgw: Server, proxy: FaultyProxy, bucket: str, key: str) -> None:
    """Without any deadline the timeout of the configuration ends a request that nobody answers."""
    location = dial_server(radosgw, proxy.endpoint, timeout="0.5")
    container = location.container(bucket)
    put(container, key, b"x" * (1 << 20))
    for fault in (Stall(), Stall(after=0), Stall(after=1000)):
        proxy.break_next(fault, method="GET")
        with pytest.raises(TransientError, match="in time"):
            get(container, key)
    location.close()


@_WAYS
@pytest.mark.parametrize(
    "fault", [Stall(), Stall(after=0), Stall(after=1000), Trickle()], ids=["silent", "head only", "half", "trickling"]
)
def test_a_deadline_is_kept(container: Container, proxy: FaultyProxy, key: str, fault: Fault) -> None:
    """Nothing a server does keeps a caller past the deadline."""
    put(container, key, b"x" * (1 << 20))
    proxy.break_next(fault, method="GET")
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded), deadline(1.0):
        get(container, key)
    # Far from the configured timeout of 60 s, far above what a busy machine adds.
    assert time.monotonic() - began < 20


@_WAYS
@pytest.mark.parametrize("fault", [Stall(), Stall(after=1000)], ids=["silent", "half"])
def test_cancelling_stops_a_request_under_way(container: Container, proxy: FaultyProxy, key: str, fault: Fault) -> None:
    """A token cancelled from another thread ends the wait."""
    put(container, key, b"x" * (1 << 20))
    proxy.break_next(fault, method="GET")
    began = time.monotonic()
    with cancellable() as token:
        threading.Timer(0.5, token.cancel).start()
        with pytest.raises(Cancelled):
            get(container, key)
    assert time.monotonic() - began < 20


def test_uploads_stop_at_the_deadline_and_leave_nothing(
    radosgw: Server, container: Container, proxy: FaultyProxy
) -> None:
    """A part that nobody answers does not hold an upload, whose parts are removed although the time is over."""
    proxy.break_next(Stall(), Stall(), Stall(), method="PUT", target="partNumber")
    with pytest.raises(DeadlineExceeded), deadline(2.0):
        put(container, "large", b"x" * _LARGE)
    assert keys_of(container) == []
    assert unfinished_uploads(radosgw, container.name) == []


def test_nobody_there(radosgw: Server) -> None:
    """A server that is down, or not to be found, is said to be unreachable."""
    for endpoint in ("http://127.0.0.1:1", "http://no-such-host.invalid:9000"):
        location = dial(endpoint=endpoint, access_key_id="a", secret_key="b-secret")
        container = location.container("bucket")
        for act in (*_acts(container, "plain"), *_acts(container, "odd//key")):
            with pytest.raises(TransientError, match="connect") as caught:
                act()
            assert "b-secret" not in f"{caught.value!r} {caught.value.__cause__!r}"
        with pytest.raises(TransientError):
            location.has_container("bucket")
        location.close()


def test_tls_against_a_plain_server_is_explained(radosgw: Server) -> None:
    """Speaking TLS to a server that does not is an error that names the options to look at, by one way at least."""
    location = dial_server(radosgw, radosgw.endpoint.replace("http://", "https://"))
    with pytest.raises(ConfigError, match="disable_ssl"):
        location.container("bucket").list("", "", 1, "")
    with pytest.raises(StoreError):
        get(location.container("bucket"), "plain")
    location.close()


def test_something_else_than_s3_is_recognised(radosgw: Server, proxy: FaultyProxy, container: Container) -> None:
    """A listing that is no XML, or XML that could expand without end, is refused."""
    bomb = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaa">]><ListBucketResult>&a;</ListBucketResult>'
    for body in (b"<html><p>sign in</html>", b"", b"\0\1", bomb, "<a/>".encode("utf-16")):
        proxy.break_next(Answer(200, body), method="GET")
        with pytest.raises(TransientError, match=r"XML|listing"):
            container.list("", "", 10, "")


@pytest.mark.parametrize("fault", [Answer(503, _SLOW_DOWN), Reset(), LoseAnswer()], ids=lambda fault: repr(fault)[:20])
@pytest.mark.parametrize(
    ("method", "target"),
    [("POST", "uploads"), ("PUT", "partNumber"), ("POST", "uploadId")],
    ids=["begin", "part", "complete"],
)
def test_uploads_survive_a_failed_request(
    radosgw: Server, container: Container, proxy: FaultyProxy, fault: Fault, method: str, target: str
) -> None:
    """Of an upload only the request that failed is repeated, even where its answer was lost."""
    proxy.break_next(fault, method=method, target=target)
    data = b"0123456789abcdef" * (_LARGE >> 4)
    etag = put(container, "large", iter([data[:9], data[9:]]))
    assert proxy.pending == 0
    assert container.head("large").etag == etag
    assert get(container, "large") == data


def test_a_success_that_is_an_error_is_told(radosgw: Server, container: Container, proxy: FaultyProxy) -> None:
    """S3 may say 200 and then report a failure: of a copy, or of an upload's last step."""
    late = Answer(200, b"<Error><Code>InternalError</Code><Message>later</Message></Error>")
    put(container, "k")
    proxy.break_next(late, method="PUT")
    with pytest.raises(TransientError, match="InternalError"):
        container.copy("c", container, "k", None)
    proxy.break_next(late, method="POST", target="uploadId")
    put(container, "large", b"x" * _LARGE)
    assert container.head("large").size == _LARGE


def test_lasting_failure_leaves_nothing(radosgw: Server, container: Container, proxy: FaultyProxy) -> None:
    """An upload that cannot go on is given up: nothing visible, nothing kept."""
    proxy.break_next(Answer(403), method="PUT", target="partNumber=2")
    with pytest.raises(StoreError):
        put(container, "large", b"x" * _LARGE)
    assert keys_of(container) == []
    assert unfinished_uploads(radosgw, container.name) == []


def test_http_settings_set_the_patience(radosgw: Server, proxy: FaultyProxy, bucket: str) -> None:
    """The timeout of the HTTP settings holds where the options name none."""
    location = dial(
        HttpSettings(timeout=0.5),
        endpoint=proxy.endpoint,
        access_key_id=radosgw.access_key,
        secret_key=radosgw.secret_key,
    )
    proxy.break_next(Stall(), method="HEAD")
    with pytest.raises(TransientError, match="in time"):
        location.has_container(bucket)
    location.close()
