"""Stores that fail: a commit raises and loses nothing, and readers get errors rather than wrong bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random

import pytest

from datastore import DataReference, MemoryStore
from datastore.context import deadline
from datastore.errors import PermissionDenied, StoreError, TransientError
from datastore.metric_names import Operation
from datastore.model import Metadata, WriteOptions
from datastore.protocol import Reference, Store
from datastore.source import Source, SourceLike
from datastore.wrappers.base import StoreWrapper, as_reference
from datastore.wrappers.faulty import BreakStream, Delay, Fault, FaultyStore, Raise, Rule, Truncate, When
from stowstore.config import ContainerPolicy
from stowstore.versions.address import open_root_store
from stowstore.versions.check import check
from stowstore.versions.errors import RootInUse
from stowstore.versions.findings import CheckDepth
from stowstore.versions.options import SessionOptions
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from tests import servers
from tests.servers.requiring import are_required
from tests.volumes_faults.programs import Tree, perform, program, states, tree_of, write_file

BASE = DataReference("mem://main/root")
VOLUME = "data"

_WRITES = {Operation.WRITE}
_READS = {Operation.READ, Operation.HEAD, Operation.LIST}


def _faulty(store: Store | None = None) -> tuple[FaultyStore, Root]:
    faulty = FaultyStore(store or MemoryStore())
    return faulty, Root.open_or_create(faulty, BASE)


def _fill(session: Session, seed: int) -> None:
    random = Random(seed)
    for number in range(5):
        write_file(session.files, f"{seed}-{number}", random.randbytes(random.randrange(1, 60_000)))


def _require_newest(root: Root, expected: Tree) -> None:
    """The newest version holds exactly this, and everything there is proves whole."""
    with Session.read(root, root.head(VOLUME)) as reader:
        assert tree_of(reader.files) == expected
        report = check(root, reader.chunks, depth=CheckDepth.DATA)
        assert report.is_whole, "\n".join(map(str, report.findings))


@pytest.mark.parametrize("keys", ["*/packs/*", "*/index/*", "*/versions/*", "*/refs/*"])
@pytest.mark.parametrize(
    "fault",
    [
        Raise(),
        Raise(PermissionDenied),
        BreakStream(after=10),
        Raise(when=When.AFTER),
    ],
    ids=["refused", "forbidden", "broken", "answer-lost"],
)
@pytest.mark.parametrize("first", [True, False], ids=["first-commit", "later-commit"])
def test_failed_commit_is_repeated(keys: str, fault: Fault, first: bool) -> None:
    """Nothing is published before it is whole, and the next commit has what the failed one had and what came since."""
    faulty, root = _faulty()
    with Session.write(root, VOLUME) as session:
        if not first:
            _fill(session, 0)
            session.commit()
        before = tree_of(session.files)
        _fill(session, 1)
        attempted = tree_of(session.files)
        faulty.add(Rule(fault, operations=_WRITES, keys=keys))
        with pytest.raises(StoreError, match="injected"):
            session.commit()
        assert tree_of(session.files) == attempted
        faulty.clear()
        if root.has_volume(VOLUME):
            published = keys == "*/refs/*" and fault == Raise(when=When.AFTER)
            _require_newest(root, attempted if published else before)
        else:
            assert first
        _fill(session, 2)
        expected = tree_of(session.files)
        manifest = session.commit()
        assert root.head(VOLUME) == manifest.name
        _require_newest(root, expected)
        _fill(session, 3)
        session.commit()
        _require_newest(root, tree_of(session.files))


@pytest.mark.parametrize("changed", [False, True], ids=["clean", "changed"])
@pytest.mark.parametrize("seen", [False, True], ids=["unseen", "seen"])
def test_fork_whose_answer_is_lost_is_no_name_taken(changed: bool, seen: bool) -> None:
    """The fork is found by looking, or by the next try, and is of the newest state either way."""
    faulty, root = _faulty()
    with Session.write(root, VOLUME) as session:
        _fill(session, 0)
        session.commit()
        if changed:
            _fill(session, 1)
        faulty.add(Rule(Raise(when=When.AFTER), operations=_WRITES, keys="*/refs/fork/*"))
        if seen:
            session.branch("fork")
        else:
            faulty.add(Rule(Raise(), operations={Operation.READ}, keys="*/refs/fork/*"))
            with pytest.raises(StoreError, match="injected"):
                session.branch("fork")
            faulty.clear()
            if changed:
                _fill(session, 2)
            session.branch("fork")
        faulty.clear()
        expected = tree_of(session.files)
        with pytest.raises(RootInUse):
            session.branch("fork")
    with Session.read(root, root.head("fork")) as fork:
        assert tree_of(fork.files) == expected


@pytest.mark.parametrize("seed", range(12))
def test_faults_everywhere(seed: int) -> None:
    """A program that repeats what fails comes out where it would without any fault."""
    faulty = FaultyStore(MemoryStore(), seed=seed)
    root = Root.open_or_create(faulty, BASE)
    steps = program(seed, 80)
    with Session.write(root, VOLUME) as session:
        faulty.add(
            Rule(Raise(), probability=0.1),
            Rule(Raise(when=When.AFTER), probability=0.15),
            Rule(BreakStream(after=100), probability=0.05),
            Rule(Delay(0.001), probability=0.05),
        )

        def commit() -> None:
            for _ in range(200):
                with suppress(TransientError):
                    session.commit()
                    return
            raise AssertionError("no commit in 200 was let through")

        for step in steps:
            _insist(lambda step=step: perform(session.files, step, commit=commit))  # type: ignore[misc]
        commit()
        faulty.clear()
        expected = states(steps)[-1]
        assert tree_of(session.files) == expected
        assert sum(faulty.fired.values()) > 10
        _require_newest(root, expected)


def _insist(act: Callable[[], None]) -> None:
    for _ in range(200):
        with suppress(TransientError):
            act()
            return
    raise AssertionError("nothing in 200 tries was let through")


@pytest.mark.parametrize("when", When)
def test_lease_whose_answer_is_lost_blocks_nobody(when: When) -> None:
    """Opening fails, and opening again does not meet the lease of the try before."""
    faulty, root = _faulty()
    faulty.add(Rule(Raise(when=when), operations=_WRITES, keys="*/leases/*", times=1))
    with pytest.raises(TransientError):
        Session.write(root, VOLUME)

    with Session.write(root, VOLUME) as session:
        _fill(session, 1)
        session.commit()


@pytest.mark.parametrize("when", When)
def test_lease_renewal_whose_answer_is_lost_is_no_loss(when: When) -> None:
    """The writer goes on to publish: the lease is its own, whichever of its renewals arrived."""
    faulty, root = _faulty()
    with Session.write(root, VOLUME) as session:
        _fill(session, 1)
        faulty.add(Rule(Raise(when=when), operations=_WRITES, keys="*/leases/*", times=1))
        session.commit()
        _fill(session, 2)
        session.commit()
        _fill(session, 3)
        session.commit()
        assert sum(faulty.fired.values()) == 1
        _require_newest(root, tree_of(session.files))


@pytest.mark.parametrize("keys", ["*/packs/*", "*/index/*", "*/versions/*", "*/refs/*", "*/format.json"])
@pytest.mark.parametrize(
    "fault",
    [Raise(), Truncate(after=0), Truncate(after=20), BreakStream(after=20), Raise(when=When.AFTER)],
    ids=["refused", "empty", "truncated", "broken", "answer-lost"],
)
def test_failing_reads_are_errors(keys: str, fault: Fault) -> None:
    """Whatever is read short or not at all, nobody takes it for content, and it heals with the store."""
    faulty, root = _faulty()
    with Session.write(root, VOLUME) as session:
        _fill(session, 1)
        session.commit()
        expected = tree_of(session.files)

    def read() -> Tree:
        again = Root.open(faulty, BASE)
        with Session.read(again, again.head(VOLUME)) as reader:
            return tree_of(reader.files)

    faulty.add(Rule(fault, operations={Operation.READ}, keys=keys))
    with pytest.raises((StoreError, OSError)):
        read()
    assert sum(faulty.fired.values()) > 0
    faulty.clear()
    assert read() == expected


@pytest.mark.parametrize("operation", [Operation.READ, Operation.HEAD, Operation.LIST])
def test_commit_over_an_unreadable_store(operation: Operation) -> None:
    """What a commit has to read, it may fail to; then it publishes nothing and loses nothing."""
    faulty, root = _faulty()
    with Session.write(root, VOLUME) as session:
        _fill(session, 1)
        session.commit()
    with Session.write(root, VOLUME) as session:
        before = root.head(VOLUME)
        _fill(session, 2)
        faulty.add(Rule(Raise(), operations={operation}))
        with suppress(TransientError):
            session.commit()
            before = session.base.name if session.base else before
        faulty.clear()
        assert root.head(VOLUME) == before
        _fill(session, 3)
        expected = tree_of(session.files)
        session.commit()
        _require_newest(root, expected)


@pytest.fixture
def gateway() -> Iterator[servers.Server]:
    """A gateway that may be stopped."""
    try:
        server = servers.radosgw.start()
    except servers.ServerUnavailable as error:
        if are_required():
            pytest.fail(str(error))
        pytest.skip(str(error))
    with server:
        yield server


class _Tripwire(StoreWrapper):
    """Calls a function once, just before a write whose key contains a text."""

    def __init__(self, inner: Store, text: str, act: Callable[[], None]) -> None:
        super().__init__(inner)
        self._text = text
        self._act = act
        self._lock = threading.Lock()
        self.is_armed = True

    def write_raw(
        self, reference: Reference, size: int | None, options: WriteOptions | None, stream: SourceLike | Source
    ) -> Metadata:
        if self._text in as_reference(reference).key:
            with self._lock:
                if self.is_armed:
                    self.is_armed = False
                    self._act()
        return self._inner.write_raw(reference, size, options, stream)


def test_gateway_that_goes_away(gateway: servers.Server) -> None:
    """A gateway stopped in the middle of a commit costs an error at most: back again, the next commit has it all."""
    url = f"s3://volume-faults/root?endpoint={gateway.endpoint}"
    options = {"access_key_id": gateway.access_key, "secret_key": gateway.secret_key}
    store, base = open_root_store(url, options=options, create=ContainerPolicy.IF_MISSING)
    root = Root.open_or_create(store, base)
    with Session.write(root, VOLUME) as session:
        _fill(session, 0)
        session.commit()
    for number, text in enumerate(("/packs/", "/index/", "/versions/", "/refs/"), 1):
        tripwire = _Tripwire(store, text, gateway.stop_gateway)
        with Session.write(Root(tripwire, base, root.format), VOLUME, SessionOptions(lease_seconds=600)) as session:
            _fill(session, number)
            expected = tree_of(session.files)
            with pytest.raises(StoreError), deadline(1.5):
                session.commit()
            assert not tripwire.is_armed
            gateway.start_gateway()
            assert tree_of(session.files) == expected
            session.commit()
            _require_newest(root, expected)

    def blink() -> None:
        gateway.stop_gateway()
        threading.Timer(0.3, gateway.start_gateway).start()

    tripwire = _Tripwire(store, "/packs/", blink)
    with Session.write(Root(tripwire, base, root.format), VOLUME) as session:
        _fill(session, 9)
        expected = tree_of(session.files)
        with suppress(TransientError):
            session.commit()
        _eventually(session.commit)
        _require_newest(root, expected)
    store.close()


def _eventually(act: Callable[[], object]) -> None:
    """Does something that may fail for as long as a gateway starts."""
    for _ in range(20):
        with suppress(TransientError):
            act()
            return
    raise AssertionError("the gateway is back, and still nothing can be done")
