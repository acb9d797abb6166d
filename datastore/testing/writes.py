"""What ``write_raw`` takes, and that nothing is visible when it fails."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import pytest

from datastore.errors import DigestMismatch, InvalidReference, LimitExceeded, SizeMismatch
from datastore.model import WriteOptions
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.source import SourceLike
from datastore.testing.base import KitTests, Unseekable, assert_absent, content, names_below
from datastore.testing.harness import Harness

__all__ = ["WriteTests"]


class _Broken(Exception):
    """What a caller's own stream raises: nobody else's, so nobody may translate it."""


def _file(data: bytes, directory: Path) -> SourceLike:
    path = directory / "source"
    path.write_bytes(data)
    return path.open("rb")


#: Every shape a source may have, made of its bytes.
_SOURCES: dict[str, Callable[[bytes, Path], SourceLike]] = {
    "bytes": lambda data, _: data,
    "bytearray": lambda data, _: bytearray(data),
    "memoryview": lambda data, _: memoryview(data),
    "file": _file,
    "seekable": lambda data, _: io.BytesIO(data),
    "unseekable": lambda data, _: Unseekable(data),
    "slow pieces": lambda data, _: Unseekable(data, most=777),
    "generator": lambda data, _: (data[at : at + 999] for at in range(0, len(data), 999)),
    "list": lambda data, _: [data[:1], b"", data[1:]],
}


class WriteTests(KitTests):
    """Writing replaces an object whole, whatever the bytes come from, or changes nothing."""

    @pytest.mark.parametrize("declared", [True, False], ids=["size-known", "size-unknown"])
    @pytest.mark.parametrize("size", [0, 1, 10_000])
    @pytest.mark.parametrize("shape", _SOURCES)
    def test_sources(
        self, store: Store, place: DataReference, tmp_path: Path, shape: str, size: int, declared: bool
    ) -> None:
        """Bytes, files, iterators and streams that cannot seek all arrive, with and without their size."""
        ref, data = place.join("object"), content(size)
        source = _SOURCES[shape](data, tmp_path)
        written = store.write_raw(ref, size if declared else None, None, source)
        if isinstance(source, io.IOBase):
            source.close()
        known = store.head(ref)
        assert data == store.read_bytes(ref)
        assert (size, size) == (written.size, known.size)
        assert known.etag == written.etag

    @pytest.mark.parametrize("declared", [True, False], ids=["size-known", "size-unknown"])
    @pytest.mark.parametrize("shape", ["bytes", "file", "unseekable", "slow pieces"])
    def test_large_objects(
        self, harness: Harness, store: Store, place: DataReference, tmp_path: Path, shape: str, declared: bool
    ) -> None:
        """An object that clients send in several parts is one object, of one length and content."""
        data = content(harness.scale.large)
        most = {"slow pieces": 60_000}.get(shape)
        source = Unseekable(data, most=most) if most else _SOURCES[shape](data, tmp_path)
        ref = place.join("large")
        written = store.write_raw(ref, len(data) if declared else None, None, source)
        if isinstance(source, io.IOBase):
            source.close()
        with store.read_raw(ref) as stream:
            digest, size = hashlib.md5(usedforsecurity=False), 0
            for piece in stream:
                digest.update(piece)
                size += len(piece)
        assert len(data) == size == written.size == store.head(ref).size
        assert hashlib.md5(data, usedforsecurity=False).hexdigest() == digest.hexdigest()
        middle = len(data) // 2
        assert data[middle : middle + 100] == store.read_bytes(ref, middle, 100)
        assert data[-100:] == store.read_bytes(ref, -100)

    def test_a_stream_is_written_from_where_it_stands(self, store: Store, place: DataReference) -> None:
        """What was read of a stream before is not written."""
        stream = io.BytesIO(b"header,body")
        stream.seek(7)
        store.write_raw(place.join("rest"), 4, None, stream)
        assert store.read_bytes(place.join("rest")) == b"body"

    def test_the_callers_stream_stays_open(self, store: Store, place: DataReference) -> None:
        """The stream is the caller's: it is read, not closed."""
        stream = io.BytesIO(b"open")
        store.write_raw(place.join("open"), 4, None, stream)
        assert not stream.closed

    def test_what_a_caller_changes_later_is_not_written(self, store: Store, place: DataReference) -> None:
        """The object is what the buffer held when it was written."""
        buffer = bytearray(b"before")
        store.write_raw(place.join("buffer"), 6, None, buffer)
        buffer[:] = b"after!"
        assert store.read_bytes(place.join("buffer")) == b"before"

    def test_overwriting_replaces_everything(self, store: Store, place: DataReference) -> None:
        """A shorter object leaves no tail of a longer one, and one key is one object."""
        ref = place.join("object")
        for data in (content(5000, 1), content(3, 2), b"", content(5001, 3)):
            store.write_bytes(ref, data)
            assert data == store.read_bytes(ref)
        assert names_below(store, place) == ["object"]

    @pytest.mark.parametrize("had", [True, False], ids=["overwriting", "new"])
    @pytest.mark.parametrize("shape", ["bytes", "seekable", "unseekable", "generator"])
    @pytest.mark.parametrize(("size", "declared"), [(10, 11), (10, 9), (10, 0), (0, 1), (1 << 20, (1 << 20) + 1)])
    def test_a_wrong_size_writes_nothing(
        self,
        store: Store,
        place: DataReference,
        tmp_path: Path,
        size: int,
        declared: int,
        shape: str,
        had: bool,
    ) -> None:
        """A source shorter or longer than declared fails, and readers see what they saw before."""
        ref = place.join("object")
        if had:
            store.write_bytes(ref, b"old")
        with pytest.raises(SizeMismatch):
            store.write_raw(ref, declared, None, _SOURCES[shape](content(size), tmp_path))
        _check_untouched(store, place, had)

    @pytest.mark.parametrize("off", [-1, 1], ids=["short", "long"])
    def test_a_wrong_size_of_a_large_object_writes_nothing(
        self, harness: Harness, store: Store, place: DataReference, off: int
    ) -> None:
        """So does one that is found out only after parts were sent."""
        data = content(harness.scale.large)
        store.write_bytes(place.join("object"), b"old")
        with pytest.raises(SizeMismatch):
            store.write_raw(place.join("object"), len(data) - off, None, Unseekable(data))
        _check_untouched(store, place, True)

    @pytest.mark.parametrize("had", [True, False], ids=["overwriting", "new"])
    @pytest.mark.parametrize("declared", [True, False], ids=["size-known", "size-unknown"])
    @pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
    def test_a_source_that_raises_writes_nothing(
        self, harness: Harness, store: Store, place: DataReference, large: bool, declared: bool, had: bool
    ) -> None:
        """The caller's own error comes back, the very object, and nothing half-written is visible."""
        ref = place.join("object")
        if had:
            store.write_bytes(ref, b"old")
        data = content(harness.scale.large if large else 5000)
        broken = _Broken("half-way")
        with pytest.raises(_Broken) as raised:
            store.write_raw(ref, len(data) + 100 if declared else None, None, Unseekable(data, broken))
        assert broken is raised.value
        _check_untouched(store, place, had)

    def test_an_iterator_that_raises_writes_nothing(self, store: Store, place: DataReference) -> None:
        """The same for a generator."""
        broken = _Broken("half-way")

        def pieces() -> object:
            yield b"half"
            raise broken

        with pytest.raises(_Broken) as raised:
            store.write_raw(place.join("object"), None, None, pieces())  # type: ignore[arg-type]
        assert broken is raised.value
        _check_untouched(store, place, False)

    @pytest.mark.parametrize(
        "source", ["text", io.StringIO("text"), ["te", "xt"], 7, None], ids=["str", "file", "list", "int", "none"]
    )
    def test_text_is_no_content(self, store: Store, place: DataReference, source: object) -> None:
        """Text has no bytes until it is encoded: giving it is the caller's mistake."""
        with pytest.raises(TypeError):
            store.write_raw(place.join("object"), 4, None, source)  # type: ignore[arg-type]
        _check_untouched(store, place, False)

    @pytest.mark.parametrize("shape", ["bytes", "unseekable", "generator"])
    @pytest.mark.parametrize("declared", [True, False], ids=["size-known", "size-unknown"])
    def test_the_md5_is_verified(
        self, store: Store, place: DataReference, tmp_path: Path, shape: str, declared: bool
    ) -> None:
        """Data of the declared MD5 are written, in any spelling of it; others are not, and the old object stays."""
        ref = place.join("object")
        data = content(10_000)
        digest = hashlib.md5(data, usedforsecurity=False)
        for spelling in (digest.digest(), digest.hexdigest(), base64.b64encode(digest.digest()).decode()):
            options = WriteOptions(content_md5=spelling)
            store.write_raw(ref, len(data) if declared else None, options, _SOURCES[shape](data, tmp_path))
            assert data == store.read_bytes(ref)
        other = b"x" + data[1:]
        with pytest.raises(DigestMismatch):
            store.write_raw(
                ref,
                len(other) if declared else None,
                WriteOptions(content_md5=digest.digest()),
                _SOURCES[shape](other, tmp_path),
            )
        assert data == store.read_bytes(ref)

    def test_a_wrong_md5_of_a_large_object_writes_nothing(
        self, harness: Harness, store: Store, place: DataReference
    ) -> None:
        """A digest that turns out wrong after parts were sent leaves nothing."""
        store.write_bytes(place.join("object"), b"old")
        wrong = WriteOptions(content_md5=hashlib.md5(b"other", usedforsecurity=False).digest())
        with pytest.raises(DigestMismatch):
            store.write_raw(place.join("object"), None, wrong, Unseekable(content(harness.scale.large)))
        _check_untouched(store, place, True)

    def test_another_store_sees_the_object(self, harness: Harness, place: DataReference) -> None:
        """After a write returned, everybody sees the object: a second store, its head and its listing."""
        if not harness.shared:
            pytest.skip("stores of this harness share nothing")
        harness.store.write_bytes(place.join("seen"), b"seen")
        with harness.open_store() as other:
            assert other.read_bytes(place.join("seen")) == b"seen"
            assert other.head(place.join("seen")).size == 4
            assert names_below(other, place) == ["seen"]
            other.delete(place.join("seen"))
        assert_absent(harness.store, place.join("seen"))

    def test_an_object_larger_than_the_backend_takes_is_refused(self, harness: Harness, place: DataReference) -> None:
        """A declared size above the backend's limit is refused before the source is read."""
        most = harness.capabilities.max_object_bytes
        if most is None:
            pytest.skip("the store declares no largest object")
        source = Unseekable(b"unread")
        with pytest.raises(LimitExceeded):
            harness.store.write_raw(place.join("huge"), most + 1, None, source)
        assert source.taken == 0

    @pytest.mark.parametrize("flaw", ["?version=1", "#part"])
    def test_references_with_more_than_a_key_are_refused(self, store: Store, place: DataReference, flaw: str) -> None:
        """A query or a fragment is not dropped in silence, which would address another object."""
        text = f"{place.join('object')}{flaw}"
        for operation in (
            lambda: store.write_bytes(text, b"1"),
            lambda: store.head(text),
            lambda: store.read_raw(text),
            lambda: store.delete(text),
            lambda: store.write_bytes(DataReference.parse(text), b"1"),
        ):
            with pytest.raises(InvalidReference):
                operation()
        assert_absent(store, place.join("object"))


def _check_untouched(store: Store, place: DataReference, had: bool) -> None:
    """The place shows what it showed before the write: ``b"old"`` under one name, or nothing at all."""
    ref = place.join("object")
    assert (["object"] if had else []) == names_below(store, place)
    if had:
        assert store.read_bytes(ref) == b"old"
        assert store.head(ref).size == 3
    else:
        assert_absent(store, ref)
