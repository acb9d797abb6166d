"""What the kit's tests share: fixtures, leaving out by capability, and small helpers."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from datastore.model import Capabilities, Cursor, Feature, ListPage
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing.harness import Harness

__all__ = [
    "KitTests",
    "Unseekable",
    "assert_absent",
    "content",
    "error_text",
    "lacks",
    "names_below",
    "needs",
    "new_container",
    "pages",
    "remove_all",
    "remove_container",
    "write_all",
]

Test = TypeVar("Test", bound=Callable[..., object])
_NEEDS = "_kit_needs"
_LACKS = "_kit_lacks"


def needs(*features: Feature) -> Callable[[Test], Test]:
    """Leaves a test out where a feature is not declared."""

    def mark(test: Test) -> Test:
        setattr(test, _NEEDS, features)
        return test

    return mark


def lacks(feature: Feature) -> Callable[[Test], Test]:
    """Leaves a test out where the feature is declared: it checks that asking for it is refused."""

    def mark(test: Test) -> Test:
        setattr(test, _LACKS, feature)
        return test

    return mark


class KitTests:
    """The fixtures every part of the kit stands on; a class that uses the kit adds ``harness``."""

    @pytest.fixture(autouse=True)
    def _left_out(self, request: pytest.FixtureRequest, harness: Harness) -> None:
        able = harness.capabilities
        for feature in getattr(request.function, _NEEDS, ()):
            if feature not in able:
                pytest.skip(f"the store does not declare {feature.value}")
        unwanted = getattr(request.function, _LACKS, None)
        if unwanted is not None and unwanted in able:
            pytest.skip(f"the store declares {unwanted.value}")
        for name in (request.node.name, request.function.__name__):
            if name in harness.left_out:
                pytest.skip(harness.left_out[name])
            if name in harness.known_failures:
                request.node.add_marker(pytest.mark.xfail(reason=harness.known_failures[name], strict=True))

    @pytest.fixture
    def store(self, harness: Harness) -> Store:
        """The store under test, shared by the tests of a class."""
        return harness.store

    @pytest.fixture
    def able(self, harness: Harness) -> Capabilities:
        """What the store declares."""
        return harness.capabilities

    @pytest.fixture
    def place(self, harness: Harness, store: Store) -> Iterator[DataReference]:
        """A prefix nobody else uses; what lies below it is removed afterwards."""
        place = harness.root.join(f"kit-{secrets.token_hex(6)}")
        yield place
        remove_all(store, place)

    @pytest.fixture
    def fresh_container(self, harness: Harness) -> Iterator[DataReference]:
        """A new, empty container; removed afterwards with what is in it."""
        reference = new_container(harness)
        admin = harness.containers
        if admin is None or reference is None:
            pytest.skip("the harness makes no containers")
        admin.create_container(reference.container)
        yield reference
        remove_container(harness, reference)

    @pytest.fixture
    def missing_container(self, harness: Harness) -> Iterator[DataReference]:
        """A container that does not exist; removed afterwards if a test made it."""
        reference = new_container(harness)
        if reference is None:
            pytest.skip("the backend has no containers that could be missing")
        yield reference
        remove_container(harness, reference)


def new_container(harness: Harness) -> DataReference | None:
    """The reference of a container nobody has made yet."""
    return harness.missing_container(f"kit-{secrets.token_hex(6)}")


def remove_container(harness: Harness, reference: DataReference) -> None:
    """Empties a container and removes it, if it is there and the harness can."""
    remove_all(harness.store, reference)
    if harness.containers is not None:
        try:
            harness.containers.delete_container(reference.container)
        except FileNotFoundError:
            pass


def remove_all(store: Store, place: DataReference) -> None:
    """Removes every object below a prefix."""
    left = [entry.reference for entry in store.walk(place, directory=True)]
    for start in range(0, len(left), 1000):
        failed = store.delete_many(left[start : start + 1000])
        assert failed == {}, f"the kit could not clean up: {failed}"


def content(size: int, seed: int = 0) -> bytes:
    """Bytes that differ at every place and for every seed, the same in every run."""
    return random.Random(seed).randbytes(size)


def write_all(store: Store, references: Iterable[DataReference], threads: int = 8) -> None:
    """Writes every object with its own name as content, from several threads."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda ref: store.write_bytes(ref, ref.key.encode()), references))


def pages(
    store: Store,
    prefix: DataReference,
    size: int | None,
    *,
    delimiter: str = "",
    directory: bool = True,
    most: int = 10_000,
) -> list[ListPage]:
    """Every page of a listing; fails when it does not come to an end or a page is larger than asked for."""
    found: list[ListPage] = []
    cursor = Cursor.at_start()
    while not cursor.is_at_end:
        assert len(found) < most, "the listing does not end"
        page = store.list_page(prefix, size, cursor, delimiter=delimiter, directory=directory)
        assert size is None or len(page.entries) + len(page.prefixes) <= size
        assert page.cursor != cursor, "a page left the cursor where it was"
        found.append(page)
        cursor = page.cursor
    return found


def names_below(store: Store, place: DataReference, size: int | None = None) -> list[str]:
    """The names of all objects below a place, without it, in the order of the listing."""
    return [
        entry.reference.key.removeprefix(f"{place.key}/")
        for page in pages(store, place, size)
        for entry in page.entries
    ]


def assert_absent(store: Store, reference: DataReference) -> None:
    """Nothing of an object is visible: neither to head, nor to read, nor in its place's listing."""
    assert not store.head(reference).exists
    with pytest.raises(FileNotFoundError):
        store.read_raw(reference)
    listed = store.list_page(reference)
    assert reference not in [entry.reference for entry in listed.entries]


def error_text(error: BaseException) -> str:
    """Everything a log would show of an error and of those it came from: text, representation, hint and notes."""
    found: list[str] = []
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is not None and link not in seen:
            seen.append(link)
            found += [str(link), repr(link), str(getattr(link, "hint", "")), *getattr(link, "__notes__", ())]
            waiting += [link.__cause__, link.__context__]
    return "\n".join(found)


class Unseekable:
    """A stream that can only be read, as a socket or a pipe; fails with ``error`` after its content if given one."""

    def __init__(self, data: bytes, error: BaseException | None = None, most: int | None = None) -> None:
        self._data = memoryview(data)
        self._error = error
        self._most = most
        self.taken = 0

    def read(self, size: int = -1, /) -> bytes:
        limit = len(self._data) if size < 0 else size
        if self._most is not None:
            limit = min(limit, self._most)
        piece = bytes(self._data[self.taken : self.taken + limit])
        self.taken += len(piece)
        if not piece and self._error is not None and limit:
            raise self._error
        return piece
