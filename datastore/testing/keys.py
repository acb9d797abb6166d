"""Keys as people and tools really write them: through every operation, or refused."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from datastore.errors import InvalidReference, StoreError
from datastore.model import Capabilities, Feature, SignedURLProperties, SignedURLScope
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing import strategies
from datastore.testing.base import KitTests, assert_absent, content, lacks, names_below, needs
from datastore.testing.harness import Harness, Scale

__all__ = ["KeyTests"]


class KeyTests(KitTests):
    """A key is text; every operation means the same object by it, and none escapes its container."""

    @pytest.mark.parametrize("name", strategies.ODD_KEYS)
    def test_odd_keys(self, harness: Harness, store: Store, place: DataReference, name: str) -> None:
        """Write, head, read, list, copy, sign and delete agree on which object an odd key names.

        Where the harness says that the backend has no such names, all of them refuse it.
        """
        key = strategies.ODD_KEYS[name]
        if set(key) & set(harness.refused_characters):
            _check_refused_key(store, place, key)
        else:
            _check_key(harness, store, place, key)

    @needs(Feature.EMPTY_SEGMENTS)
    @pytest.mark.parametrize("name", strategies.EMPTY_SEGMENT_KEYS)
    def test_empty_segments(self, harness: Harness, store: Store, place: DataReference, name: str) -> None:
        """``a//b`` is an object of its own, not another spelling of ``a/b``."""
        key = strategies.EMPTY_SEGMENT_KEYS[name]
        _check_key(harness, store, place, key)
        one, other = place.with_key(f"{place.key}/two/{key}"), place.join("two", "a/b")
        store.write_bytes(one, b"one")
        assert not store.head(other).exists
        store.write_bytes(other, b"other")
        assert store.read_bytes(one) == b"one"
        folded = store.list_page(place.join("two", "a"), directory=True, delimiter="/")
        assert [other] == [entry.reference for entry in folded.entries]
        assert len(folded.prefixes) + folded.omitted == 1

    @lacks(Feature.EMPTY_SEGMENTS)
    @pytest.mark.parametrize("name", strategies.EMPTY_SEGMENT_KEYS)
    def test_empty_segments_are_refused(self, store: Store, place: DataReference, name: str) -> None:
        """Where ``a//b`` would be ``a/b`` it is refused, so that no two keys are one object."""
        ref = place.with_key(f"{place.key}/{strategies.EMPTY_SEGMENT_KEYS[name]}")
        store.write_bytes(place.join("a", "b"), b"untouched")
        for operation in (
            lambda: store.write_bytes(ref, b"1"),
            lambda: store.head(ref),
            lambda: store.read_raw(ref),
            lambda: store.delete(ref),
            lambda: store.copy_raw(place.join("a", "b"), ref),
        ):
            with pytest.raises(InvalidReference) as refused:
                operation()
            assert refused.value.reason == "empty_segment"
        assert store.read_bytes(place.join("a", "b")) == b"untouched"

    @lacks(Feature.NESTED_KEYS)
    def test_an_object_is_no_folder(self, store: Store, place: DataReference) -> None:
        """Where an object cannot have others below it, trying fails and harms neither."""
        store.write_bytes(place.join("object"), b"object")
        store.write_bytes(place.join("folder", "inside"), b"inside")
        with pytest.raises(StoreError):
            store.write_bytes(place.join("object", "below"), b"1")
        with pytest.raises(StoreError):
            store.write_bytes(place.join("folder"), b"1")
        assert not store.head(place.join("object", "below")).exists
        assert not store.head(place.join("folder")).exists
        store.delete(place.join("object", "below"))
        assert names_below(store, place) == ["folder/inside", "object"]
        assert store.read_bytes(place.join("object")) == b"object"
        assert store.read_bytes(place.join("folder", "inside")) == b"inside"

    @pytest.mark.parametrize("letter", ["a", "é", "数", "\U0001f600"], ids=["ascii", "two", "three", "four"])
    def test_the_longest_key(
        self, harness: Harness, store: Store, place: DataReference, able: Capabilities, letter: str
    ) -> None:
        """A key of as many bytes of UTF-8 as declared works everywhere; one byte more is refused everywhere."""
        ref = place.with_key(_padded(place.key, able.max_key_bytes, letter))
        assert able.max_key_bytes == len(ref.key.encode())
        store.write_bytes(ref, b"long")
        assert store.read_bytes(ref) == b"long"
        assert [ref] == store.list(place, directory=True)[0]
        store.copy_raw(ref, place.join("short"))
        store.copy_raw(place.join("short"), ref)
        store.delete(ref)
        assert names_below(store, place) == ["short"]
        longer = place.with_key(f"{ref.key}x")
        for operation in (
            lambda: store.write_bytes(longer, b"1"),
            lambda: store.head(longer),
            lambda: store.read_raw(longer),
            lambda: store.delete(longer),
            lambda: store.copy_raw(place.join("short"), longer),
            lambda: store.copy_raw(longer, place.join("short")),
        ):
            with pytest.raises(InvalidReference) as refused:
                operation()
            assert refused.value.reason == "key_too_long"
        assert store.read_bytes(place.join("short")) == b"long"

    @pytest.mark.parametrize("name", strategies.TRAVERSAL_KEYS)
    def test_traversal_by_raw_keys_is_refused(self, store: Store, place: DataReference, name: str) -> None:
        """Raw keys with dot segments, slashes at the edges, NUL or broken text never become a reference."""
        key = strategies.TRAVERSAL_KEYS[name]
        with pytest.raises(InvalidReference):
            DataReference.build(place.scheme, place.container or "container", key)
        if not key.startswith("/"):
            with pytest.raises(InvalidReference):
                place.with_key(f"{place.key}/{key}")

    @pytest.mark.parametrize("name", strategies.TRAVERSAL_TEXTS)
    def test_traversal_by_text_is_refused(self, store: Store, place: DataReference, name: str) -> None:
        """No spelling of a climb, escaped or not, reaches a driver through any operation."""
        text = f"{place}/{strategies.TRAVERSAL_TEXTS[name]}"
        for operation in (
            lambda: store.write_bytes(text, b"1"),
            lambda: store.head(text),
            lambda: store.read_raw(text),
            lambda: store.delete(text),
            lambda: store.delete_many([text]),
            lambda: store.list_page(text),
            lambda: store.copy_raw(text, place.join("copy")),
            lambda: store.copy_raw(place.join("copy"), text),
            lambda: store.create_signed_url(text, SignedURLProperties()),
        ):
            with pytest.raises(InvalidReference):
                operation()
        assert names_below(store, place) == []

    def test_joining_never_leaves_its_base(self, place: DataReference) -> None:
        """Slashes at the edges of a joined part mean nothing, and dots are refused."""
        assert place.join("a", "b") == place.join("/a/", "", "//b")
        for part in ("..", "../x", "a/../../b", "."):
            with pytest.raises(InvalidReference):
                place.join(part)

    def test_any_key_goes_round(self, harness: Harness, store: Store, place: DataReference) -> None:
        """The law behind the examples: whatever normal form a key has, it comes back from the listing and reads."""

        @settings(
            max_examples=8 if harness.scale is Scale.SMALL else 60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(
            key=strategies.keys(harness.capabilities, without=harness.refused_characters), data=strategies.contents()
        )
        def law(key: str, data: bytes) -> None:
            ref = place.with_key(f"{place.key}/{key}")
            if len(ref.key.encode()) > harness.capabilities.max_key_bytes:
                return
            store.write_bytes(ref, data)
            assert data == store.read_bytes(str(ref))
            assert len(data) == store.head(ref).size
            assert [ref] == store.list(place, directory=True)[0]
            store.delete(ref)
            assert store.list(place, directory=True)[0] == []

        law()


def _check_refused_key(store: Store, place: DataReference, key: str) -> None:
    ref, other = place.with_key(f"{place.key}/odd/{key}"), place.join("other")
    store.write_bytes(other, b"untouched")
    for operation in (
        lambda: store.write_bytes(ref, b"1"),
        lambda: store.read_raw(ref),
        lambda: store.copy_raw(other, ref),
    ):
        with pytest.raises(InvalidReference):
            operation()
    assert names_below(store, place) == ["other"]
    assert store.read_bytes(other) == b"untouched"


def _padded(key: str, length: int, letter: str) -> str:
    """A key of exactly so many bytes, in segments no file system finds too long."""
    room = length - len(key.encode())
    parts = []
    while room > 0:
        take = min(room, 180)
        if 0 < room - take < 2:
            take -= 2
        fill = take - 1
        count, rest = divmod(fill, len(letter.encode()))
        parts.append(letter * count + "x" * rest)
        room -= take
    return "/".join([key, *parts])


def _check_key(harness: Harness, store: Store, place: DataReference, key: str) -> None:
    ref = place.with_key(f"{place.key}/odd/{key}")
    data = content(100)
    assert ref == DataReference(str(ref))
    written = store.write_bytes(ref, data)
    assert written.etag == store.head(ref).etag
    assert data == store.read_bytes(ref)
    assert data[5:9] == store.read_bytes(str(ref), 5, 4)
    assert [ref] == store.list(place.join("odd"), directory=True)[0]
    assert [ref] == store.list(ref)[0]
    copy = place.with_key(f"{place.key}/copy/{key}")
    store.copy_raw(ref, copy)
    store.copy_raw(copy, place.join("plain"))
    store.copy_raw(place.join("plain"), copy)
    assert data == store.read_bytes(copy)
    if Feature.SIGN_READ in harness.capabilities:
        signed = store.create_signed_url(ref, SignedURLProperties(expires_in=60))
        answer = harness.send("GET", signed.url, signed.required_request_headers)
        assert (200, data) == (answer.status, answer.body)
    if Feature.SIGN_WRITE in harness.capabilities:
        signed = store.create_signed_url(ref, SignedURLProperties(scope=SignedURLScope.WRITE, expires_in=60))
        assert harness.send("PUT", signed.url, signed.required_request_headers, b"signed").status in (200, 201)
        assert store.read_bytes(ref) == b"signed"
    assert store.delete_many([copy, place.join("plain")]) == {}
    assert [ref] == store.list(place, directory=True)[0]
    store.delete(ref, missing_ok=False)
    assert_absent(store, ref)
