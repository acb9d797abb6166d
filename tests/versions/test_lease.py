"""Leases: one writer, fenced, across threads and processes."""

from __future__ import annotations

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from attrs import evolve

from datastore import DataReference, MemoryStore
from stowstore import open_store
from stowstore.versions.errors import CorruptManifest, LeaseHeld, LeaseLost
from stowstore.versions.lease import Lease, LeaseRecord, read_lease

REFERENCE = DataReference("mem://main/leases/data")


def test_second_writer_is_told_who_holds_it() -> None:
    """A lease that is held names its holder, host and process to whoever else asks."""
    store = MemoryStore()
    lease = Lease(store, REFERENCE, base="v1")

    with pytest.raises(LeaseHeld, match=r"another writer holds the volume: .+ on .+, process \d+, since"):
        Lease(store, REFERENCE)
    assert lease.remaining > 0
    lease.require()
    found = read_lease(store, REFERENCE)
    assert found is not None
    assert "v1" == found.base
    lease.release()
    lease.release()
    assert read_lease(store, REFERENCE) is None
    Lease(store, REFERENCE).release()


def test_expired_lease_is_taken_over_and_its_holder_fenced() -> None:
    """A holder whose lease was taken cannot publish any more."""
    store = MemoryStore()
    lost = Lease(store, REFERENCE)
    _rewrite(store, expires=time.time() - 60)

    taken = Lease(store, REFERENCE)

    taken.require()
    with pytest.raises(LeaseLost, match="it is now held by"):
        lost.require()
    lost.release()
    taken.require()
    taken.release()


def test_lease_of_a_dead_process_of_this_machine_is_free_at_once() -> None:
    """A writer killed on this machine does not block the volume until its lease runs out."""
    store = MemoryStore()
    lease = Lease(store, REFERENCE)
    _rewrite(store, process="0")

    Lease(store, REFERENCE).release()
    lease.release()


def test_lease_is_renewed_while_it_is_held() -> None:
    """The object's end moves on while its holder lives."""
    store = MemoryStore()
    lease = Lease(store, REFERENCE, seconds=0.3)
    before = read_lease(store, REFERENCE)
    deadline = time.monotonic() + 20
    while (now := read_lease(store, REFERENCE)) == before and time.monotonic() < deadline:
        time.sleep(0.02)

    assert before is not None
    assert now is not None
    assert now.expires > before.expires
    lease.release()


def test_loss_is_told_to_the_holder() -> None:
    """A holder hears that its lease was taken, without asking."""
    store = MemoryStore()
    told: list[bool] = []
    lease = Lease(store, REFERENCE, seconds=0.3, on_lost=lambda: told.append(True))
    _rewrite(store, token="somebody else")
    deadline = time.monotonic() + 20
    while not told and time.monotonic() < deadline:
        time.sleep(0.02)

    assert [True] == told
    with pytest.raises(LeaseLost):
        lease.require()
    lease.release()


def test_rebase_names_what_collection_must_keep() -> None:
    """The version a writer stands on is kept in its lease."""
    store = MemoryStore()
    lease = Lease(store, REFERENCE, base="v1")
    lease.rebase("v2")

    found = read_lease(store, REFERENCE)
    assert found is not None
    assert "v2" == found.base
    lease.release()


def test_of_many_threads_one_wins() -> None:
    """Sixteen writers at once: one lease."""
    store = MemoryStore()

    def attempt(_: int) -> Lease | None:
        try:
            return Lease(store, REFERENCE)
        except LeaseHeld:
            return None

    with ThreadPoolExecutor(16) as pool:
        won = [lease for lease in pool.map(attempt, range(16)) if lease is not None]
    assert 1 == len(won)
    won[0].release()


def test_of_two_processes_one_wins(tmp_path: Path) -> None:
    """Two processes that race for one lease: exactly one holds it."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    results = context.Queue()
    racers = [context.Process(target=_race, args=(str(tmp_path), barrier, results)) for _ in range(2)]
    for racer in racers:
        racer.start()
    outcomes = sorted(results.get(timeout=60) for _ in racers)
    for racer in racers:
        racer.join(60)

    assert ["held", "won"] == outcomes


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b"\xff", b'{"token": 1}'])
def test_damaged_lease(raw: bytes) -> None:
    """A lease that cannot be read blocks writers with an explanation, instead of being ignored."""
    store = MemoryStore()
    store.write_bytes(REFERENCE, raw)

    with pytest.raises(CorruptManifest, match="lease cannot be read"):
        Lease(store, REFERENCE)


def _race(directory: str, barrier: Barrier, results: multiprocessing.Queue[str]) -> None:
    with open_store(f"file://{directory}/main") as store:
        barrier.wait(60)
        try:
            lease = Lease(store, store.base_container_fqn.join("leases", "data"))
        except LeaseHeld:
            results.put("held")
            barrier.wait(60)
        else:
            results.put("won")
            barrier.wait(60)
            lease.release()


def _rewrite(store: MemoryStore, **changes: object) -> None:
    found = read_lease(store, REFERENCE)
    assert found is not None
    changed: LeaseRecord = evolve(found, **changes)
    store.write_bytes(REFERENCE, changed.encode())
