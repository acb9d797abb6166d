"""Streams: what ``read_raw`` hands out."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore import Metadata, ReadStream, cancellable, deadline
from datastore.errors import Cancelled, DeadlineExceeded, TransientError

DATA = bytes(range(256)) * 4


class Body:
    """A connection that yields at most so many bytes at a time, and counts its closings."""

    def __init__(self, data: bytes, piece: int = 100, error: BaseException | None = None) -> None:
        self._stream, self._piece, self._error = io.BytesIO(data), piece, error
        self.closed = 0

    def read(self, size: int, /) -> bytes:
        assert size >= 1
        assert not self.closed
        found = self._stream.read(min(size, self._piece))
        if not found and self._error is not None:
            raise self._error
        return found

    def close(self) -> None:
        self.closed += 1


FORMS = ("bytes", "view", "connection")


def stream_of(form: str, data: bytes, piece: int = 100) -> ReadStream:
    """A stream over these bytes, in memory or over a connection."""
    content = {"bytes": data, "view": memoryview(data), "connection": Body(data, piece)}[form]
    return ReadStream(content, len(data), Metadata(exists=True, size=len(data)))


@pytest.mark.parametrize("form", FORMS)
def test_reading(form: str) -> None:
    """As a binary file: read, readall, readinto, iteration, tell."""
    for whole in (
        lambda stream: stream.read(),
        lambda stream: stream.read(None),
        lambda stream: stream.readall(),
        b"".join,
        lambda stream: b"".join(iter(lambda: stream.read(77), b"")),
    ):
        with stream_of(form, DATA) as stream:
            assert whole(stream) == DATA
            assert (stream.position, stream.tell(), stream.read(1)) == (len(DATA), len(DATA), b"")
    with stream_of(form, DATA) as stream:
        buffer = bytearray(50)
        assert stream.readinto(buffer) == 50
        assert bytes(buffer) == DATA[:50]
        assert stream.read(0) == b""
        assert (stream.readable(), stream.writable(), stream.seekable()) == (True, False, False)
        stream.flush()
        assert repr(stream) == "<ReadStream 50 of 1024 bytes>"


@pytest.mark.parametrize("form", FORMS)
def test_a_closed_stream_is_not_read(form: str) -> None:
    """Closing twice is nothing."""
    stream = stream_of(form, DATA)
    stream.close()
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        stream.read()


def test_lines() -> None:
    """Through the standard library's buffer."""
    with ReadStream(Body(b"one\ntwo\n", 3), 8, Metadata()) as stream:
        assert list(stream.buffered()) == [b"one\n", b"two\n"]


def test_the_end_releases_the_connection() -> None:
    """Like closing does, once."""
    body = Body(DATA)
    with ReadStream(body, len(DATA), Metadata()) as stream:
        stream.read()
        assert body.closed == 1
    assert body.closed == 1


@pytest.mark.parametrize("size", [len(DATA) + 1, 2 * len(DATA)])
def test_a_truncated_answer_is_never_the_end(size: int) -> None:
    """Fewer bytes than announced are an error, and the connection is released."""
    body = Body(DATA)
    stream = ReadStream(body, size, Metadata())
    with pytest.raises(TransientError, match=f"after {len(DATA)} of {size}"):
        stream.read()
    assert body.closed == 1
    stream.close()


def test_more_than_announced_is_not_read() -> None:
    """A range is what it was announced to be."""
    with ReadStream(Body(DATA), 10, Metadata()) as stream:
        assert stream.read() == DATA[:10]
        assert stream.read() == b""


def test_finishers_are_told_once_how_it_ended() -> None:
    """At the end, on failure with the error, on an early close."""
    told: list[tuple[int, type | None]] = []

    def finisher(stream: ReadStream, error: BaseException | None) -> None:
        told.append((stream.position, None if error is None else type(error)))

    ended = ReadStream(Body(DATA), len(DATA), Metadata())
    failing = ReadStream(Body(DATA[:500], error=TransientError("broke")), len(DATA), Metadata())
    early = ReadStream(DATA, len(DATA), Metadata())
    for stream in (ended, failing, early):
        stream.add_finisher(finisher)
        stream.add_finisher(finisher)
    ended.read()
    with pytest.raises(TransientError):
        failing.read()
    early.read(3)
    for stream in (ended, failing, early):
        stream.close()
    assert told == [(1024, None)] * 2 + [(500, TransientError)] * 2 + [(3, None)] * 2


def test_a_stream_ends_with_the_context_it_was_opened_in() -> None:
    """Between the pieces, wherever and whenever it is read."""
    with cancellable() as token:
        stream = ReadStream(Body(DATA), len(DATA), Metadata())
    assert stream.read(100) == DATA[:100]
    token.cancel()
    with pytest.raises(Cancelled):
        stream.read()
    with deadline(0):
        late = ReadStream(Body(DATA), len(DATA), Metadata())
    with late, pytest.raises(DeadlineExceeded):
        late.read(1)
    assert late.limits is not None


def test_metadata_may_be_made_when_asked_for() -> None:
    """Once."""
    made: list[Metadata] = []

    def make() -> Metadata:
        made.append(Metadata(exists=True, size=3))
        return made[-1]

    with ReadStream(b"abc", 3, make) as stream:
        assert made == []
        assert stream.metadata is stream.metadata
    assert len(made) == 1


def test_a_wrapper_can_stand_before_the_connection() -> None:
    """Content in memory needs none."""
    seen: list[Any] = []

    class Upper:
        def __init__(self, body: Any) -> None:
            seen.append(body)
            self.read, self.close = lambda size: body.read(size).upper(), body.close

    remote, local = ReadStream(Body(b"abc"), 3, Metadata()), ReadStream(b"abc", 3, Metadata())
    assert (remote.in_memory, local.in_memory) == (False, True)
    for stream in (remote, local):
        stream.replace_body(Upper)
    assert (remote.read(), local.read(), len(seen)) == (b"ABC", b"abc", 1)


def test_a_stream_nobody_closed_is_told() -> None:
    """With its place in the code, under -X tracemalloc; and its connection is released."""
    body = Body(DATA)
    with pytest.warns(ResourceWarning, match="unclosed <ReadStream 0 of 1024 bytes>"):
        ReadStream(body, len(DATA), Metadata())
    assert body.closed == 1


@given(st.binary(max_size=400), st.integers(1, 50), st.lists(st.integers(-1, 90)))
def test_any_reads_yield_the_content_once(content: bytes, piece: int, sizes: list[int]) -> None:
    """From memory and over a connection alike."""
    for form in FORMS:
        with stream_of(form, content, piece) as stream:
            found = b"".join(stream.read(size) for size in sizes)
            assert found + stream.read() == content
