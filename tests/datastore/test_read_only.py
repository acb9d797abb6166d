"""A store that cannot be changed through the view."""

from collections.abc import Callable

import pytest

from datastore import DataReference, Feature, MemoryStore, SignedURLProperties, SignedURLResponse, SignedURLScope
from datastore.errors import PermissionDenied
from datastore.protocol import Reference, Store
from datastore.wrappers.base import StoreWrapper
from datastore.wrappers.read_only import ReadOnlyStore

REF = DataReference("mem://c/k")


class Signing(StoreWrapper):
    """Signs anything."""

    def create_signed_url(self, reference: Reference, properties: SignedURLProperties) -> SignedURLResponse:
        return SignedURLResponse(url=f"https://host/{properties.scope}", method=properties.scope.method)


@pytest.fixture
def store() -> ReadOnlyStore:
    """A read-only view of one object."""
    memory = MemoryStore()
    memory.write_bytes(REF, b"content")
    return ReadOnlyStore(Signing(memory))


def test_reading_works(store: ReadOnlyStore) -> None:
    """Read, head, list and walk as in the store below."""
    assert store.read_bytes(REF) == b"content"
    assert store.head(REF).size == 7
    assert store.list("mem://c")[0] == [REF]


class Untouchable:
    """A source that fails the test when it is read."""

    def read(self, size: int = -1, /) -> bytes:
        raise AssertionError("a refused write read its source")


@pytest.mark.parametrize(
    ("op", "change"),
    [
        ("write", lambda store: store.write_raw(str(REF), None, None, Untouchable())),
        ("write", lambda store: store.write_bytes(REF, b"")),
        ("delete", lambda store: store.delete(REF)),
        ("copy", lambda store: store.copy_raw("mem://c/other", REF)),
        ("sign", lambda store: store.create_signed_url(REF, SignedURLProperties(scope=SignedURLScope.WRITE))),
        ("sign", lambda store: store.create_signed_url(REF, SignedURLProperties(scope=SignedURLScope.DELETE))),
    ],
)
def test_changing_is_refused(store: ReadOnlyStore, op: str, change: Callable[[Store], object]) -> None:
    """The error says what was asked, why it is refused, and is a PermissionError."""
    with pytest.raises(PermissionError, match=f"^{op} mem://c/k: this store is read-only") as caught:
        change(store)
    assert isinstance(caught.value, PermissionDenied)
    assert store.read_bytes(REF) == b"content"


def test_deleting_many_tells_every_refusal(store: ReadOnlyStore) -> None:
    """As the protocol returns the errors of single objects."""
    failed = store.delete_many([str(REF), "mem://c/other"])
    assert [str(ref) for ref in failed] == ["mem://c/k", "mem://c/other"]
    assert all(isinstance(error, PermissionDenied) for error in failed.values())


@pytest.mark.parametrize("scope", [SignedURLScope.READ, SignedURLScope.HEAD])
def test_signing_for_reading_works(store: ReadOnlyStore, scope: SignedURLScope) -> None:
    """It changes nothing."""
    assert store.create_signed_url(REF, SignedURLProperties(scope=scope)).url.endswith(scope)


def test_it_declares_what_is_left(store: ReadOnlyStore) -> None:
    """No feature of writing, all others."""
    able, whole = store.capabilities(), store.inner.capabilities()
    assert Feature.ATOMIC_CREATE not in able
    assert Feature.USER_METADATA in able
    assert able.max_key_bytes == whole.max_key_bytes


def test_a_refusal_repeats_no_credentials() -> None:
    """Userinfo in the text of a reference may be a secret."""
    with pytest.raises(PermissionDenied) as caught:
        ReadOnlyStore(MemoryStore()).write_bytes("s3://user:secret@bucket/key", b"")
    assert "secret" not in str(caught.value)
