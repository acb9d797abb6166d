"""Every wrapper passes the whole kit over memory: alone, and in the stack that stores are built of."""

from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry

from datastore import DataReference, MemoryStore
from datastore.metric_names import Operation
from datastore.protobuf import ProtobufStore
from datastore.protocol import Store
from datastore.testing import AfterFork, ConformanceTests, Harness, Scale
from datastore.wrappers.base import StoreWrapper
from datastore.wrappers.cached import CachedStore, CachePolicy
from datastore.wrappers.faulty import BreakStream, FaultyStore, Raise, Rule, Truncate, When
from datastore.wrappers.measured import MeasuredStore, StoreMetrics
from datastore.wrappers.prefixed import PrefixedStore
from datastore.wrappers.retrying import RetryingStore, RetryPolicy
from datastore.wrappers.routing import RoutingStore
from datastore.wrappers.traced import TracedStore
from metrics import Scope

Wrap = Callable[[Store], Store]

_MIB = 1 << 20
_ROOT = DataReference("mem://kit")
_VIEW = _ROOT.join("some", "where")
_IDEMPOTENT = [Operation.HEAD, Operation.LIST, Operation.READ, Operation.COPY, Operation.DELETE, Operation.DELETE_MANY]


def _flaky(store: Store) -> Store:
    """Fails often, in ways that no caller may notice behind retries."""
    return FaultyStore(
        store,
        [
            Rule(Raise(), operations=_IDEMPOTENT, probability=0.1),
            Rule(Raise(when=When.AFTER), operations=_IDEMPOTENT, probability=0.1),
            Rule(BreakStream(after=100), operations=[Operation.READ], probability=0.1),
            Rule(Truncate(after=1), operations=[Operation.READ], probability=0.1),
        ],
    )


def _retrying(store: Store) -> Store:
    return RetryingStore(store, RetryPolicy(attempts=50, max_elapsed=None), sleep=lambda seconds: None)


def _cached(store: Store) -> Store:
    return CachedStore(store, CachePolicy(max_bytes=4 * _MIB))


def _validating(store: Store) -> Store:
    return CachedStore(store, CachePolicy(max_bytes=4 * _MIB, max_entry_bytes=_MIB, revalidate_after=0))


def _measured(store: Store) -> Store:
    return MeasuredStore(store, StoreMetrics(Scope("stow", CollectorRegistry()), "memory", "main"))


def _routing(store: Store) -> Store:
    return RoutingStore(store, lambda scheme, account, reference: MemoryStore())


def _secondary(store: Store) -> Store:
    return RoutingStore(MemoryStore(), lambda scheme, account, reference: store, primary_scheme="s3")


def _prefixed(store: Store) -> Store:
    return PrefixedStore(store, _VIEW)


WRAPPERS: dict[str, tuple[Wrap, ...]] = {
    "those that change nothing": (StoreWrapper, ProtobufStore, FaultyStore, TracedStore, _retrying),
    "prefixed": (_prefixed,),
    "cached": (_cached,),
    "routing to a secondary": (_secondary,),
    # As `stowstore.opening` stacks them, over a backend that fails often.
    "the stack": (_flaky, _retrying, _validating, _measured, _routing),
}


class _WrappedHarness(Harness):
    """Memory in wrappers, the first one innermost."""

    shared = False
    scale = Scale.SMALL
    after_fork = AfterFork.WORKS

    def __init__(self, wraps: tuple[Wrap, ...]) -> None:
        self._wraps = wraps

    def open_store(self, *, max_download_bytes: int = 0) -> Store:
        store: Store = MemoryStore(max_download_bytes=max_download_bytes)
        for wrap in self._wraps:
            store = wrap(store)
        return store

    @property
    def root(self) -> DataReference:
        return _VIEW if _prefixed in self._wraps else _ROOT

    def missing_container(self, name: str) -> DataReference | None:
        # A view has but one container.
        return None if _prefixed in self._wraps else super().missing_container(name)


class TestWrappers(ConformanceTests):
    """A `MemoryStore` in each of them."""

    @pytest.fixture(scope="class", params=WRAPPERS.values(), ids=WRAPPERS.keys())
    @classmethod
    def harness(cls, request: pytest.FixtureRequest) -> Iterator[Harness]:
        with _WrappedHarness(request.param) as harness:
            yield harness
