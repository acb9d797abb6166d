"""Sources: counted, checked, and rewound where they can be."""

import base64
import hashlib
import io
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore import CancelToken, cancellable
from datastore.errors import Cancelled, DigestMismatch, SizeMismatch
from datastore.source import Source

DATA = bytes(range(256)) * 10


class Pipe:
    """A stream that can only be read, in pieces of its own choice."""

    def __init__(self, data: bytes, piece: int = 100) -> None:
        self._stream, self._piece = io.BytesIO(data), piece

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(self._piece if size < 0 else min(size, self._piece))


class Views(Pipe):
    """Yields views, and None at the end, as some streams do."""

    def read(self, size: int = -1, /) -> Any:
        return memoryview(piece) if (piece := super().read(size)) else None


def forms(data: bytes) -> dict[str, Any]:
    """One content in every form a caller may give."""
    return {
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "file": io.BytesIO(data),
        "pipe": Pipe(data),
        "views": Views(data),
        "list": [data[:7], b"", data[7:]],
        "generator": (data[start : start + 50] for start in range(0, len(data), 50)),
        "source": Source(data),
    }


FORMS = sorted(forms(b""))
IN_MEMORY = {"bytes", "bytearray", "list", "memoryview"}


def md5(data: bytes) -> str:
    """Base64, as options carry it."""
    return base64.b64encode(hashlib.md5(data).digest()).decode()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [len(DATA), None, -1])
def test_every_form_yields_the_same_bytes(form: str, size: int | None) -> None:
    """Read at once, in pieces, or iterated; a negative size is an unknown one."""
    assert Source(forms(DATA)[form], size).read() == DATA
    assert b"".join(Source(forms(DATA)[form], size)) == DATA
    source = Source(forms(DATA)[form], size, content_md5=md5(DATA))
    assert b"".join(iter(lambda: source.read(33), b"")) == DATA
    assert (source.size, source.position) == (len(DATA), len(DATA))
    assert source.read(1) == b""


@pytest.mark.parametrize("form", sorted(set(FORMS) - IN_MEMORY))
@pytest.mark.parametrize("declared", [0, 1, len(DATA) - 1, len(DATA) + 1, 10 * len(DATA)])
@pytest.mark.parametrize("step", [-1, 1, 100, 1 << 20])
def test_a_wrong_size_raises_before_the_end_is_seen(form: str, declared: int, step: int) -> None:
    """A driver that reads to the end can never publish the wrong bytes: it never gets all that were declared."""
    source = Source(forms(DATA)[form], declared)
    taken = bytearray()

    def drain() -> None:
        while piece := source.read(step):
            taken.extend(piece)

    with pytest.raises(SizeMismatch, match=f"declared as {declared} bytes"):
        drain()
    assert len(taken) < declared or declared == 0


@pytest.mark.parametrize("form", sorted(IN_MEMORY))
@pytest.mark.parametrize("declared", [0, len(DATA) - 1, len(DATA) + 1])
def test_a_wrong_size_in_memory_is_known_at_once(form: str, declared: int) -> None:
    """Nothing need be read."""
    with pytest.raises(SizeMismatch):
        Source(forms(DATA)[form], declared)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_wrong_digest_raises_before_the_end_is_seen(form: str, size: int | None) -> None:
    """With a known size even before the last piece goes out."""
    taken = bytearray()

    def drain() -> None:
        source = Source(forms(DATA)[form], size, content_md5=md5(b"other"))
        while piece := source.read(100):
            taken.extend(piece)

    with pytest.raises(DigestMismatch):
        drain()
    assert len(taken) < len(DATA) or size is None


def test_what_the_caller_changes_later_is_not_written() -> None:
    """Mutable memory is copied."""
    buffer = bytearray(DATA)
    source = Source(buffer)
    buffer[:] = bytes(len(buffer))
    assert source.read() == DATA


@pytest.mark.parametrize("form", FORMS)
def test_rewinding(form: str) -> None:
    """Memory and files go back to where they stood, others only before their first byte."""
    source = Source(forms(DATA)[form], None, content_md5=md5(DATA))
    able = form in IN_MEMORY | {"file"}
    assert source.rewind()
    assert source.rewindable is able
    first = source.read(10)
    assert first
    assert source.rewind() is able
    assert source.read() == (DATA if able else DATA[len(first) :])


def test_pieces_are_handed_on_as_they_are() -> None:
    """A list or tuple of bytes is one content, which is joined only for who needs it in one."""
    parts = (DATA, b"", DATA[:100])
    source = Source(parts, len(DATA) + 100)
    assert source.parts is not None
    assert all(left is right for left, right in zip(source.parts, parts, strict=True))
    assert source.data == DATA + DATA[:100]
    assert (source.parts, Source(DATA).parts, Source(io.BytesIO(DATA)).parts) == ((DATA + DATA[:100],), (DATA,), None)


def test_many_pieces_are_never_joined() -> None:
    """A list too large to be held twice is read piece by piece, as an iterator would be."""
    piece = bytes(1 << 20)
    source = Source([piece] * 17, 17 << 20)
    assert (source.data, source.parts, source.rewindable) == (None, None, False)
    assert sum(map(len, source)) == 17 << 20


def test_a_file_is_rewound_to_where_it_stood() -> None:
    """Not to its start."""
    stream = io.BytesIO(b"header" + DATA)
    stream.seek(6)
    source = Source(stream)
    assert source.read() == DATA
    assert source.rewind()
    assert source.read() == DATA


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("limit", [len(DATA), len(DATA) + 1])
def test_a_source_that_fits_is_held(form: str, limit: int) -> None:
    """From then on it can be rewound, whatever it was."""
    source = Source(forms(DATA)[form], None, content_md5=md5(DATA))
    assert bytes(source.buffered(limit) or b"") == DATA
    assert source.read() == DATA
    assert source.rewind()
    assert source.read() == DATA


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("limit", [0, 1, len(DATA) - 1])
@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_source_that_does_not_fit_loses_nothing(form: str, limit: int, size: int | None) -> None:
    """What was looked at comes again."""
    source = Source(forms(DATA)[form], size, content_md5=md5(DATA))
    assert source.buffered(limit) is None
    assert source.rewind()
    assert b"".join(iter(lambda: source.read(100), b"")) == DATA


@pytest.mark.parametrize("declared", [3, 5])
def test_a_held_source_is_checked(declared: int) -> None:
    """Before anybody gets it."""
    with pytest.raises(SizeMismatch):
        Source(Pipe(b"four"), declared).buffered(100)


def test_errors_of_the_callers_stream_pass_through() -> None:
    """They are not ours to translate."""

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise KeyError("mine")

    source = Source(broken(), 8)
    assert source.read(4) == b"half"
    with pytest.raises(KeyError, match="mine"):
        source.read(4)


@pytest.mark.parametrize("wrong", ["text", 42, None, object()])
def test_what_is_no_source_is_refused(wrong: Any) -> None:
    """Text among it."""
    with pytest.raises(TypeError, match="a source is bytes"):
        Source(wrong)


@pytest.mark.parametrize("wrong", [io.StringIO("text"), ["text"]])
def test_text_streams_are_refused_when_read(wrong: Any) -> None:
    """With what to do."""
    with pytest.raises(TypeError, match="binary mode"):
        Source(wrong).read()


def test_a_source_ends_with_its_context() -> None:
    """Between the pieces, wherever it is read."""
    with cancellable() as token:
        source = Source(Pipe(DATA))
    assert isinstance(token, CancelToken)
    source.read(10)
    token.cancel()
    with pytest.raises(Cancelled):
        source.read(10)


@given(st.binary(max_size=300), st.data())
def test_any_reading_yields_the_content_once(content: bytes, data: st.DataObject) -> None:
    """Any form, any pieces, any look-ahead."""
    form = data.draw(st.sampled_from(FORMS))
    size = data.draw(st.sampled_from([None, len(content)]))
    source = Source(forms(content)[form], size, content_md5=data.draw(st.sampled_from([None, md5(content)])))
    if data.draw(st.booleans()):
        source.buffered(data.draw(st.integers(0, 400)))
    found = b""
    while piece := source.read(data.draw(st.integers(1, 120))):
        found += piece
    assert found == content
    assert source.size == len(content)
