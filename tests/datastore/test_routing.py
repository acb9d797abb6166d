"""One store for many schemes: who serves what, dialled when and how often."""

import pickle
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from datastore import DataReference, Feature, MemoryStore, SignedURLProperties, WriteOptions, deadline
from datastore.errors import ConfigError, DeadlineExceeded, InvalidReference, NotFound, NotSupported, TransientError
from datastore.protocol import Store
from datastore.wrappers.base import StoreWrapper
from datastore.wrappers.faulty import BreakStream, FaultyStore, Raise, Rule
from datastore.wrappers.routing import RoutingStore, account_name


class Based(StoreWrapper):
    """A memory store that says it has a base container, counts its closings, and remembers what it was asked for."""

    def __init__(self, base: str, inner: Store | None = None) -> None:
        super().__init__(inner or MemoryStore())
        self.base = DataReference(base)
        self.closed = 0
        self.asked: list[DataReference] = []

    @property
    def base_container_fqn(self) -> DataReference:
        return self.base

    def head(self, reference: Any) -> Any:
        self.asked.append(reference)
        return super().head(reference)

    def close(self) -> None:
        self.closed += 1


class Dialler:
    """Dials memory stores and counts."""

    def __init__(self) -> None:
        self.calls: Counter[tuple[str, str | None, str]] = Counter()
        self.stores: list[Based] = []
        self.failures = 0
        self.gate: threading.Event | None = None

    def __call__(self, scheme: str, account: str | None, reference: DataReference) -> Store:
        self.calls[scheme, account, reference.container] += 1
        if self.gate is not None:
            assert self.gate.wait(10)
        if self.failures:
            self.failures -= 1
            raise ConfigError(f"nothing configured for {scheme}")
        store = Based("")
        self.stores.append(store)
        return store


@pytest.fixture
def dial() -> Dialler:
    """A dial function that counts."""
    return Dialler()


def test_the_primary_serves_its_own_scheme_without_dialling(dial: Dialler) -> None:
    """And its base container is the router's."""
    primary = Based("s3://base")
    store = RoutingStore(primary, dial)
    store.write_bytes("s3://base/k", b"content")
    assert store.base_container_fqn == DataReference("s3://base")
    assert store.store_of("s3://other/k") is primary
    assert not dial.calls


def test_a_secondary_is_dialled_once(dial: Dialler) -> None:
    """Five operations, one store; each scheme has its own objects."""
    store = RoutingStore(Based("s3://base"), dial)
    for _ in range(5):
        store.write_bytes("gs://b/k", b"secondary")
    store.write_bytes("s3://b/k", b"primary")
    assert (store.read_bytes("gs://b/k"), store.read_bytes("s3://b/k")) == (b"secondary", b"primary")
    assert dial.calls == {("gs", None, "b"): 1}


def test_fifty_threads_dial_once(dial: Dialler) -> None:
    """They all wait for the one that began."""
    dial.gate = threading.Event()
    store = RoutingStore(Based("s3://base"), dial)
    with ThreadPoolExecutor(50) as pool:
        found = [pool.submit(store.store_of, "gs://b/k") for _ in range(50)]
        dial.gate.set()
        assert len({id(future.result()) for future in found}) == 1
    assert dial.calls.total() == 1


def test_one_slow_dial_does_not_hold_up_another_scheme(dial: Dialler) -> None:
    """There is no lock over all of them."""
    dial.gate = threading.Event()
    store = RoutingStore(Based("s3://base"), dial)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(store.store_of, "gs://b/k")
        while not dial.calls:
            time.sleep(0.001)
        gate, dial.gate = dial.gate, None
        store.store_of("sw://b/k")
        with deadline(0.02), pytest.raises(DeadlineExceeded):
            store.store_of("gs://b/k")
        gate.set()
        slow.result()
    assert dial.calls == {("gs", None, "b"): 1, ("sw", None, "b"): 1}


def test_a_failed_dial_is_not_remembered(dial: Dialler) -> None:
    """The next call dials again."""
    dial.failures = 1
    store = RoutingStore(Based("s3://base"), dial)
    with pytest.raises(ConfigError, match="nothing configured for gs"):
        store.head("gs://b/k")
    assert not store.head("gs://b/k").exists
    assert dial.calls.total() == 2


def test_who_waited_for_a_failed_dial_gets_its_error(dial: Dialler) -> None:
    """Fifty callers of a backend that is down do not try it one after the other."""
    dial.gate, dial.failures = threading.Event(), 1
    store = RoutingStore(Based("s3://base"), dial)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(store.head, "gs://b/k")
        while not dial.calls:
            time.sleep(0.001)
        second = pool.submit(store.head, "gs://b/k")
        while second.running() is False:
            time.sleep(0.001)
        dial.gate.set()
        errors = [future.exception() for future in (first, second)]
    assert isinstance(errors[0], ConfigError)
    assert errors[1] is None or (isinstance(errors[1], ConfigError) and errors[1] is not errors[0])


@pytest.mark.parametrize("reference", ["some/key", "unknown://c/k", "other+x://c/k"])
def test_unknown_and_missing_schemes_go_to_the_primary_untouched(dial: Dialler, reference: str) -> None:
    """It may know what to do with them."""
    primary = Based("")
    store = RoutingStore(primary, dial)
    store.head(reference)
    assert primary.asked == [DataReference(reference)]
    assert not dial.calls


@pytest.mark.parametrize("text", ["://c/k", "s3://b/%zz"])
def test_text_that_is_no_reference_is_refused(dial: Dialler, text: str) -> None:
    """Upstream gives it to the primary."""
    with pytest.raises(InvalidReference):
        RoutingStore(Based("s3://base"), dial).head(text)


def test_a_primary_without_base_container_is_memory(dial: Dialler) -> None:
    """``mem`` is its scheme, and its base stays empty."""
    primary = MemoryStore()
    store = RoutingStore(primary, dial)
    assert store.base_container_fqn == DataReference("")
    assert store.store_of("mem://c/k") is primary
    assert store.store_of("redis://h/k") is not primary


def test_azure_spellings_are_one_store_an_account(dial: Dialler) -> None:
    """abfs, abfss and wasb, with either host of the account."""
    store = RoutingStore(Based("s3://base"), dial)
    spellings = (
        "abfs://c@acct.dfs.core.windows.net/k",
        "abfss://c@acct.dfs.core.windows.net/k",
        "wasb://c@acct.blob.core.windows.net/k",
        "wasbs://c@ACCT.blob.core.windows.net/k",
        "abfs://c@acct/k",
    )
    assert len({id(store.store_of(text)) for text in spellings}) == 1
    assert store.store_of("abfs://c@other.dfs.core.windows.net/k") is not store.store_of(spellings[0])
    assert store.store_of("abfs://c/k") is not store.store_of(spellings[0])
    assert dial.calls == {("abfs", "acct", "c"): 1, ("abfs", "other", "c"): 1, ("abfs", None, "c"): 1}


@pytest.mark.parametrize(
    ("primary_account", "reference", "own"),
    [
        ("acct", "abfs://c/k", True),
        ("acct", "abfss://c/k", True),
        ("acct", "abfss://c@acct.dfs.core.windows.net/k", True),
        ("acct", "abfs://c@foreign.dfs.core.windows.net/k", False),
        ("acct", "abfs://c@acct.dfs.core.chinacloudapi.cn/k", False),
        (None, "abfs://c@acct.dfs.core.windows.net/k", False),
    ],
)
def test_a_foreign_account_is_never_read_from_the_configured_one(
    dial: Dialler, primary_account: str | None, reference: str, own: bool
) -> None:
    """Upstream ignores the account, and serves abfs only."""
    primary = Based("abfs://base")
    store = RoutingStore(primary, dial, primary_account=primary_account)
    assert (store.store_of(reference) is primary) is own


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (None, ""),
        ("acct", "acct"),
        ("Acct.dfs.core.windows.net", "acct"),
        ("acct.blob.core.windows.net", "acct"),
        ("acct.blob.core.usgovcloudapi.net", "acct.core.usgovcloudapi.net"),
        ("127.0.0.1:10000", "127.0.0.1:10000"),
    ],
)
def test_the_account_a_host_names(host: str | None, name: str) -> None:
    """The public cloud's suffix is understood."""
    assert account_name(host) == name


def test_redis_is_dialled_once_a_host_unless_configured(dial: Dialler) -> None:
    """Two hosts, then the first again; with an address one store serves all."""
    store = RoutingStore(MemoryStore(), dial, per_host={"redis"})
    for host in ("h1:6379", "h2:6379", "h1:6379"):
        store.head(f"redis://{host}/k")
    assert dial.calls.total() == 2
    configured = RoutingStore(MemoryStore(), dial)
    for host in ("h1", "h2"):
        configured.head(f"redis://{host}/k")
    assert dial.calls.total() == 3


def test_every_operation_reaches_the_store_of_its_reference(dial: Dialler) -> None:
    """Delete, list, capabilities and batches over several stores."""
    store = RoutingStore(Based("s3://base"), dial)
    for text in ("s3://b/k", "gs://b/k", "gs://b/l"):
        store.write_bytes(text, text.encode())
    assert [str(ref) for ref in store.list("gs://b")[0]] == ["gs://b/k", "gs://b/l"]
    assert store.delete_many(iter(["s3://b/k", "gs://b/k", "gs://b/missing"])) == {}
    assert [store.exists(text) for text in ("s3://b/k", "gs://b/k", "gs://b/l")] == [False, False, True]
    store.delete("gs://b/l", missing_ok=False)
    assert not store.exists("gs://b/l")
    assert Feature.ATOMIC_CREATE in store.capabilities("gs://b/k")
    assert store.capabilities() == store.inner.capabilities()
    with pytest.raises(NotSupported, match="gs://b/k"):
        store.create_signed_url("gs://b/k", SignedURLProperties())


def test_copies_across_stores_carry_everything(dial: Dialler) -> None:
    """Bytes, metadata and content type; options override."""
    store = RoutingStore(Based("s3://base"), dial)
    store.write_bytes("s3://b/k", b"content", WriteOptions(content_type="text/plain", metadata={"a": "1", "b": "1"}))
    store.copy_raw("s3://b/k", "gs://b/k", WriteOptions(metadata={"b": "2"}))
    found = store.head("gs://b/k")
    assert store.read_bytes("gs://b/k") == b"content"
    assert (found.content_type, dict(found.user_metadata)) == ("text/plain", {"a": "1", "b": "2"})


def test_copies_inside_one_store_are_its_own(dial: Dialler) -> None:
    """No byte passes through here."""
    faulty = FaultyStore(MemoryStore(), [Rule(Raise(), operations=["read", "write"])])  # type: ignore[list-item]
    faulty.inner.write_bytes("mem://c/k", b"content")
    store = RoutingStore(faulty, dial)
    store.copy_raw("mem://c/k", "mem://c/copy")
    assert faulty.inner.read_bytes("mem://c/copy") == b"content"


@pytest.mark.parametrize(
    ("rule", "side"),
    [
        (("s3", Rule(Raise(), operations=["read"])), "s3://b/k"),  # type: ignore[list-item]
        (("s3", Rule(BreakStream(after=3), operations=["read"])), "s3://b/k"),  # type: ignore[list-item]
        (("gs", Rule(Raise(), operations=["write"])), "gs://b/k"),  # type: ignore[list-item]
    ],
)
def test_a_failing_copy_names_the_side_that_failed(rule: tuple[str, Rule], side: str) -> None:
    """Although the source fails in the middle of the write; nothing is left behind."""
    memories = {"s3": MemoryStore(), "gs": MemoryStore()}
    memories["s3"].write_bytes("s3://b/k", b"content")
    faulty = {name: FaultyStore(memory, [rule[1]] if rule[0] == name else []) for name, memory in memories.items()}
    store = RoutingStore(faulty["s3"], lambda scheme, account, reference: faulty[scheme], primary_scheme="s3")
    with pytest.raises(TransientError) as caught:
        store.copy_raw("s3://b/k", "gs://b/k")
    assert caught.value.reference == side
    assert not memories["gs"].exists("gs://b/k")


def test_copying_what_is_not_there_writes_nothing(dial: Dialler) -> None:
    """The error names the source."""
    store = RoutingStore(Based("s3://base"), dial)
    with pytest.raises(NotFound, match="s3://b/missing"):
        store.copy_raw("s3://b/missing", "gs://b/k")
    assert not store.exists("gs://b/k")


def test_closing_closes_everything_dialled(dial: Dialler) -> None:
    """The primary too."""
    primary = Based("s3://base")
    with RoutingStore(primary, dial) as store:
        store.head("gs://b/k")
        store.head("sw://b/k")
    assert [primary.closed, *(each.closed for each in dial.stores)] == [1, 1, 1]


def test_another_primary_takes_over(dial: Dialler) -> None:
    """The old stores are closed, schemes are dialled anew, and the new base container counts."""
    old, new = Based("s3://base"), Based("gs://other")
    store = RoutingStore(old, dial)
    store.head("sw://b/k")
    store.replace_primary(new)
    assert store.base_container_fqn == DataReference("gs://other")
    assert store.store_of("gs://b/k") is new
    store.head("sw://b/k")
    assert dial.calls["sw", None, "b"] == 2
    assert [old.closed, dial.stores[0].closed, new.closed] == [1, 1, 0]


class Picklable(MemoryStore):
    """Arrives empty, as a store of an outside backend would arrive with new connections."""

    def __reduce__(self) -> Any:
        return Picklable, ()


def _dial(scheme: str, account: str | None, reference: DataReference) -> Store:
    return Picklable()


def test_it_can_be_pickled_and_dials_anew() -> None:
    """Connections stay behind."""
    store = RoutingStore(Picklable(), _dial)
    store.write_bytes("gs://b/k", b"content")
    other = pickle.loads(pickle.dumps(store))
    assert not other.exists("gs://b/k")
