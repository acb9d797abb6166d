"""Threads and processes that share a local root: every write whole, every condition held, no update lost."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest

from datastore.context import deadline
from datastore.driver import Container
from datastore.errors import AlreadyExists, DeadlineExceeded, NotFound, PreconditionFailed, StoreError
from stowstore.locations.local import LocalLocation
from stowstore.locations.local.locking import LockMode
from tests.locations.local_files import all_keys, container_at, drafts_of, get, put

_START = 30.0


def _together(count: int, work: Callable[[int], object]) -> list[object]:
    """Runs ``work`` in threads that start at once; errors come back as results."""
    barrier = threading.Barrier(count)

    def run(number: int) -> object:
        barrier.wait(_START)
        try:
            return work(number)
        except StoreError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def _create(root: str, barrier: object, results: object, number: int) -> None:
    """What a competing process does."""
    container = LocalLocation(root).container("c")
    for attempt in range(10):
        barrier.wait(_START)  # type: ignore[attr-defined]
        try:
            put(container, f"d{attempt}/k", str(number).encode(), if_absent=True)
            results.put((attempt, number))  # type: ignore[attr-defined]
        except AlreadyExists:
            pass


def _increment(root: str, times: int) -> None:
    """Adds one to the number in ``count``, again and again, by compare and swap."""
    container = LocalLocation(root).container("c")
    for _ in range(times):
        while True:
            with container.open("count", 0, None, None) as stream:
                value, etag = int(stream.read()), stream.metadata.etag
            try:
                put(container, "count", str(value + 1).encode(), if_match=etag)
                break
            except PreconditionFailed:
                continue


def _create_numbered(container: Container, key: str, options: dict[str, object], number: int) -> str:
    return put(container, key, str(number).encode(), if_absent=True, **options)


@pytest.mark.parametrize("options", [{}, {"metadata": {"a": "1"}}], ids=["plain", "with metadata"])
def test_one_of_32_threads_creates(tmp_path: Path, options: dict[str, object]) -> None:
    """Of 32 threads that create the same object exactly one wins, and its bytes and metadata stand."""
    with container_at(tmp_path) as container:
        for attempt in range(10):
            key = f"d{attempt}/k"
            results = _together(32, partial(_create_numbered, container, key, options))
            winners = [number for number, result in enumerate(results) if isinstance(result, str)]
            assert len(winners) == 1
            assert sum(isinstance(result, AlreadyExists) for result in results) == 31
            assert get(container, key) == str(winners[0]).encode()
            assert container.head(key).user_metadata == options.get("metadata", {})
    assert drafts_of(tmp_path) == []


def test_one_of_many_processes_creates(tmp_path: Path) -> None:
    """So it is between processes."""
    context = multiprocessing.get_context("spawn")
    with container_at(tmp_path) as container:
        barrier, results = context.Barrier(4), context.Queue()
        workers = [context.Process(target=_create, args=(str(tmp_path), barrier, results, n)) for n in range(4)]
        for worker in workers:
            worker.start()
        won = dict(results.get(timeout=_START) for _ in range(10))
        for worker in workers:
            worker.join(_START)
            assert worker.exitcode == 0
        assert sorted(won) == list(range(10))
        assert [get(container, f"d{attempt}/k") for attempt in range(10)] == [str(won[n]).encode() for n in range(10)]


@pytest.mark.parametrize("method", ["threads", "fork", "spawn"])
def test_no_update_is_lost(tmp_path: Path, method: str) -> None:
    """Counting by compare and swap from many threads or processes counts every one."""
    with container_at(tmp_path) as container:
        put(container, "count", b"0")
        put(container, "used", b"before forking")
        if method == "threads":
            _together(8, lambda _: _increment(str(tmp_path), 10))
            expected = 80
        else:
            context: BaseContext = multiprocessing.get_context(method)
            workers = [context.Process(target=_increment, args=(str(tmp_path), 10)) for _ in range(2)]  # type: ignore[attr-defined]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(_START)
                assert worker.exitcode == 0
            expected = 20
        assert get(container, "count") == str(expected).encode()


def test_a_plain_write_is_never_taken_for_the_one_replaced(tmp_path: Path) -> None:
    """Between comparing and replacing nobody's plain write fits: what was compared is what is replaced."""
    with container_at(tmp_path) as container:
        replaced: set[str] = set()
        compared: set[str] = set()
        stop = threading.Event()
        put(container, "k", b"start")

        def plain() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                etag = put(container, "k", b"plain %d" % number)
                time.sleep(0)
                if container.head("k").etag != etag:
                    replaced.add(etag)

        writer = threading.Thread(target=plain)
        writer.start()
        try:
            swapped = 0
            end = time.monotonic() + _START
            while swapped < 50 and time.monotonic() < end:
                etag = container.head("k").etag
                try:
                    put(container, "k", b"swapped", if_match=etag)
                except PreconditionFailed:
                    continue
                swapped += 1
                compared.add(etag)
        finally:
            stop.set()
            writer.join()
        assert swapped == 50
        assert replaced <= compared, "a swap replaced a write that it had not compared"


def test_writers_and_pruning_deleters(tmp_path: Path) -> None:
    """Directories that vanish under a writer are made again; no write fails, and all is gone in the end."""
    with container_at(tmp_path) as container:

        def work(number: int) -> None:
            for _ in range(60):
                put(container, f"a/b/c/{number}", b"x")
                assert get(container, f"a/b/c/{number}") == b"x"
                container.delete(f"a/b/c/{number}")

        results = _together(8, work)
        assert results == [None] * 8
        assert list((tmp_path / "c").iterdir()) == []


@pytest.mark.parametrize("size", [100, 400_000])
def test_readers_see_whole_versions(tmp_path: Path, size: int) -> None:
    """Readers of an object that is replaced and deleted all the time see one version, with its own metadata."""
    with container_at(tmp_path) as container:
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                number = (number + 1) % 10
                put(container, "d/k", str(number).encode() * size, metadata={"number": str(number)})
                if number == 0:
                    container.delete("d/k")

        writers = [threading.Thread(target=write) for _ in range(2)]
        for writer in writers:
            writer.start()
        try:
            seen = 0
            end = time.monotonic() + _START
            while seen < 150 and time.monotonic() < end:
                try:
                    with container.open("d/k", 0, None, None) as stream:
                        data, metadata = stream.read(), stream.metadata
                except NotFound:
                    continue
                assert data == metadata.user_metadata["number"].encode() * size
                seen += 1
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert seen == 150
    assert drafts_of(tmp_path) == []


def test_listing_while_everything_changes(tmp_path: Path) -> None:
    """A listing is in order, without doubles, and has all that was there throughout."""
    with container_at(tmp_path) as container:
        steady = [f"s{number:02}/k" for number in range(20)]
        for key in steady:
            put(container, key)
        stop = threading.Event()

        def churn() -> None:
            while not stop.is_set():
                for number in range(20):
                    put(container, f"s{number:02}/x/{number}")
                for number in range(20):
                    container.delete(f"s{number:02}/x/{number}")

        writer = threading.Thread(target=churn)
        writer.start()
        try:
            for _ in range(15):
                keys = all_keys(container, page=7)
                assert keys == sorted(set(keys))
                assert [key for key in keys if "x" not in key] == steady
        finally:
            stop.set()
            writer.join()


def test_a_lock_held_by_another_does_not_outlast_the_deadline(tmp_path: Path) -> None:
    """A writer stopped in the middle keeps others of the same key waiting, but not beyond their deadline."""
    location = LocalLocation(str(tmp_path))
    location.create_container("c")
    area = location._place.area()
    with area.lock(7, LockMode.EXCLUSIVE):
        for mode in LockMode:
            with pytest.raises(DeadlineExceeded), deadline(0.05), area.lock(7, mode):
                pass
        with area.lock(8, LockMode.EXCLUSIVE):
            pass
    with area.lock(7, LockMode.SHARED), area.lock(7, LockMode.SHARED), deadline(10):
        pass
    with deadline(10), area.lock(7, LockMode.EXCLUSIVE):
        pass


def test_a_child_forked_while_a_lock_is_held_does_not_keep_it(tmp_path: Path) -> None:
    """A lock ends with its holder's block, although a forked child has its descriptor; the child has its own."""
    location = LocalLocation(str(tmp_path))
    location.create_container("c")
    area = location._place.area()
    with area.lock(7, LockMode.EXCLUSIVE):
        pass
    with area.lock(7, LockMode.EXCLUSIVE):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                with deadline(0.05), area.lock(7, LockMode.SHARED):
                    os.write(write, b"got in")
            except DeadlineExceeded:
                os.write(write, b"kept out")
            finally:
                time.sleep(0.3)
                os._exit(0)
        assert os.read(read, 100) == b"kept out"
    with deadline(0.2), area.lock(7, LockMode.EXCLUSIVE):
        pass
    assert os.waitpid(child, 0)[1] == 0
    os.close(read)
    os.close(write)
