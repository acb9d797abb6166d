"""Containers: which may be used, when one is made, and what happens when one is missing."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from datastore import Cursor, DataReference, Metadata, SignedURLProperties, WriteOptions, errors
from datastore.driver import Container
from datastore.memory import MemoryLocation
from datastore.model import Capabilities, Feature, SignedURLResponse
from stowstore.config import ContainerPolicy
from stowstore.containers import ContainerMap, LocationStore


class CountingLocation(MemoryLocation):
    """Memory that counts the requests about containers, and can refuse or delay them."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[str] = []
        self.creations: list[str] = []
        self.refuse_look: errors.StoreError | None = None
        self.refuse_creation: errors.StoreError | None = None
        self.look_gate = threading.Event()
        self.look_gate.set()

    def has_container(self, name: str) -> bool:
        self.looks.append(name)
        self.look_gate.wait(10)
        if self.refuse_look is not None:
            raise self.refuse_look
        return super().has_container(name)

    def create_container(self, name: str) -> None:
        self.creations.append(name)
        if self.refuse_creation is not None:
            raise self.refuse_creation
        super().create_container(name)


@pytest.fixture
def location() -> CountingLocation:
    return CountingLocation()


def make_store(
    location: CountingLocation,
    base: str = "main",
    *,
    dynamic: bool = False,
    policy: ContainerPolicy = ContainerPolicy.IF_MISSING,
) -> LocationStore:
    store = LocationStore(ContainerMap(location, base=base, dynamic=dynamic, policy=policy), base=base)
    store.ensure_base()
    return store


def test_base_container_is_looked_for_and_made_when_a_store_is_opened(location: CountingLocation) -> None:
    """A missing base container is created once, after a look."""
    store = make_store(location)

    assert (["main"], ["main"]) == (location.looks, location.creations)
    assert DataReference("mem://main") == store.base_container_fqn
    make_store(location)
    assert ["main"] == location.creations


def test_policy_always_creates_without_looking(location: CountingLocation) -> None:
    """For credentials that may create but not list."""
    make_store(location, policy=ContainerPolicy.ALWAYS)

    assert ([], ["main"]) == (location.looks, location.creations)


def test_policy_never_makes_no_request(location: CountingLocation) -> None:
    """With policy never a store opens without a request, and a write into a missing container fails."""
    store = make_store(location, policy=ContainerPolicy.NEVER)

    assert ([], []) == (location.looks, location.creations)
    with pytest.raises(errors.NoSuchContainer):
        store.write_bytes("mem://main/k", b"x")
    assert not location.creations


def test_permission_to_look_is_not_taken_for_missing(location: CountingLocation) -> None:
    """When the look is refused nothing is created."""
    location.refuse_look = errors.PermissionDenied("no")

    with pytest.raises(errors.PermissionDenied):
        make_store(location)
    assert not location.creations


def test_failed_creation_says_which_container(location: CountingLocation) -> None:
    """The message keeps upstream's stem, so that existing alerts match."""
    location.refuse_creation = errors.StoreError("foo")

    with pytest.raises(errors.StoreError, match=r"unable to initialize container \[main\]. Error: foo"):
        make_store(location)


def test_many_threads_load_a_container_once(location: CountingLocation) -> None:
    """Concurrent first writes of unrewindable streams look for their container once."""
    store = make_store(location, dynamic=True)
    location.looks.clear()
    location.look_gate.clear()

    with ThreadPoolExecutor(32) as pool:
        writes = [
            pool.submit(store.write_raw, f"mem://other/{number}", None, None, iter([b"x"])) for number in range(32)
        ]
        location.look_gate.set()
        for write in writes:
            write.result()

    assert ["other"] == location.looks
    assert ["main", "other"] == location.creations


def test_write_into_a_missing_container_creates_it_and_then_writes(location: CountingLocation) -> None:
    """Upstream creates the container and reports success without the object (B1)."""
    store = make_store(location, dynamic=True)

    store.write_bytes("mem://fresh/k", b"content")

    assert b"content" == store.read_bytes("mem://fresh/k")


def test_stream_that_cannot_be_read_twice_survives_a_missing_container(location: CountingLocation) -> None:
    """The container of an unrewindable body is made before the body is sent."""
    store = make_store(location, dynamic=True)

    store.write_raw("mem://fresh/k", None, None, (piece for piece in (b"con", b"tent")))

    assert b"content" == store.read_bytes("mem://fresh/k")


def test_container_removed_behind_our_back_is_made_again(location: CountingLocation) -> None:
    """What was seen to exist once is looked for again when it turns out to be missing."""
    store = make_store(location)
    location.delete_container("main")

    store.write_raw("mem://main/k", None, None, io.BytesIO(b"content"))

    assert b"content" == store.read_bytes("mem://main/k")


@pytest.mark.parametrize("verb", ["head", "read_raw", "write_raw", "delete", "list", "copy from", "copy to", "sign"])
def test_other_containers_are_not_allowed(location: CountingLocation, verb: str) -> None:
    """Without dynamic loading every operation, signing included (B9), refuses other containers."""
    location.create_container("other")
    store = SigningStore(ContainerMap(location, base="main", dynamic=False, policy=ContainerPolicy.NEVER), base="main")
    location.create_container("main")
    store.write_bytes("mem://main/k", b"x")
    acts = {
        "head": lambda: store.head("mem://other/k"),
        "read_raw": lambda: store.read_raw("mem://other/k"),
        "write_raw": lambda: store.write_bytes("mem://other/k", b""),
        "delete": lambda: store.delete("mem://other/k"),
        "list": lambda: store.list("mem://other"),
        "copy from": lambda: store.copy_raw("mem://other/k", "mem://main/k2"),
        "copy to": lambda: store.copy_raw("mem://main/k", "mem://other/k"),
        "sign": lambda: store.create_signed_url("mem://other/k", SignedURLProperties()),
    }

    with pytest.raises(errors.ContainerNotAllowed, match="Conf container:main != Passed Container:other") as caught:
        acts[verb]()

    assert errors.is_not_found(caught.value)
    assert not isinstance(caught.value, errors.NotFound)
    assert caught.value.op is not None


def test_same_key_in_the_base_container_is_untouched_by_a_refused_delete(location: CountingLocation) -> None:
    """Deleting in a container that is not allowed removes nothing anywhere."""
    store = make_store(location)
    store.write_bytes("mem://main/k", b"x")

    with pytest.raises(errors.ContainerNotAllowed):
        store.delete("mem://other/k")

    assert store.exists("mem://main/k")


def test_other_existing_containers_with_dynamic_loading(location: CountingLocation) -> None:
    """With dynamic loading other containers are served, and the base one stays the base."""
    location.create_container("other")
    location.container("other").put("k", _source(b"x"), WriteOptions())
    store = make_store(location, dynamic=True)

    assert b"x" == store.read_bytes("mem://other/k")
    assert DataReference("mem://main") == store.base_container_fqn


def test_missing_container_reads_as_missing(location: CountingLocation) -> None:
    """Nothing in a missing container exists; reading never creates it."""
    store = make_store(location, dynamic=True)

    assert Metadata() == store.head("mem://nowhere/k")
    assert ([], Cursor.at_end()) == store.list("mem://nowhere")
    store.delete("mem://nowhere/k")
    with pytest.raises(errors.NotFound):
        store.read_raw("mem://nowhere/k")
    with pytest.raises(errors.NotFound):
        store.delete("mem://nowhere/k", missing_ok=False)
    assert ["main"] == location.creations


def test_create_load_and_delete_a_container(location: CountingLocation) -> None:
    """The three verbs of containers, and what they refuse."""
    store = make_store(location, dynamic=True)

    with pytest.raises(errors.NoSuchContainer, match="load_container mem://c1: there is no container c1"):
        store.load_container("c1")
    assert DataReference("mem://c1") == store.load_container("c1", create_if_not_found=True)
    assert DataReference("mem://c1") == store.create_container("c1")
    assert ["c1", "main"] == [reference.container for reference in store.list_containers()]
    store.write_bytes("mem://c1/k", b"x")
    with pytest.raises(errors.ContainerNotEmpty):
        store.delete_container("c1")
    store.delete("mem://c1/k")
    store.delete_container("c1")
    with pytest.raises(errors.NoSuchContainer):
        store.delete_container("c1")
    with pytest.raises(errors.ContainerNotAllowed):
        make_store(location).create_container("c2")


def test_container_of_somebody_else_is_taken(location: CountingLocation) -> None:
    """A name that belongs to another account is told apart from one that is ours."""
    location.refuse_creation = errors.ContainerTaken("the name is taken")

    with pytest.raises(errors.ContainerTaken, match="unable to initialize container"):
        make_store(location)


def test_signing_uses_its_own_location(location: CountingLocation) -> None:
    """URLs are signed by the second location, where one is configured; data stay with the first."""
    signing = CountingLocation()
    store = SigningStore(
        ContainerMap(location, base="main", dynamic=False, policy=ContainerPolicy.IF_MISSING),
        ContainerMap(SigningLocation(signing), base="main", dynamic=False, policy=ContainerPolicy.NEVER),
        base="main",
    )

    signed = store.create_signed_url("mem://main/a/b", SignedURLProperties())

    assert "https://public.example/main/a/b" == signed.url
    assert not signing.looks


class SigningStore(LocationStore):
    """A store that says it can sign, to reach the policy behind that check."""

    def capabilities(self, reference: object = None) -> Capabilities:
        return Capabilities(features=frozenset(super().capabilities().features | {Feature.SIGN_READ}))


class SigningLocation(CountingLocation):
    """Memory with URLs."""

    def __init__(self, inner: CountingLocation) -> None:
        super().__init__()
        self._inner = inner

    def container(self, name: str) -> Container:  # type: ignore[override]
        return _SigningContainer(self._inner.container(name))  # type: ignore[return-value]


class _SigningContainer:
    def __init__(self, inner: Container) -> None:
        self._inner = inner

    def sign(self, key: str, properties: SignedURLProperties) -> SignedURLResponse:
        return SignedURLResponse(url=f"https://public.example/{self._inner.name}/{key}", method=properties.scope.method)


def _source(content: bytes) -> Iterator[bytes]:
    from datastore.source import Source

    return Source(content)  # type: ignore[return-value]
