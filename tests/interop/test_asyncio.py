"""Stores for coroutines: what is bounded, what is cancelled, and what a stream takes."""

from __future__ import annotations

import asyncio
import pickle
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from datastore import context, deadline
from datastore.errors import Cancelled, ConfigError, DeadlineExceeded, NotFound, SizeMismatch
from datastore.memory import MemoryStore
from datastore.model import WriteOptions
from datastore.protocol import Reference
from stowstore import open_store
from stowstore.interop.asyncio import AsyncStore
from tests.interop.places import s3_options
from tests.servers import Server

BASE = "mem://main"

#: How long anything here may take; reached only when something hangs.
PATIENCE = 60.0


class Slow(MemoryStore):
    """A store whose reads wait, watching their limits as drivers do, until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.running = 0
        self.most = 0
        self.ends: list[str] = []
        self._counting = threading.Lock()

    def read_bytes(self, reference: Reference, start: int = 0, length: int | None = None) -> bytes:
        with self._counting:
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            context.wait_for(self.go)
        except (Cancelled, DeadlineExceeded) as error:
            self.ends.append(type(error).__name__)
            raise
        finally:
            with self._counting:
                self.running -= 1
        self.ends.append("done")
        return b"x"


async def until(condition: Any) -> None:
    """Waits for something another thread does."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(params=["mem", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return open_store("mem://main" if request.param == "mem" else f"file://{tmp_path}/main")


def test_the_verbs_do_what_those_of_the_store_do(store: Any) -> None:
    """What is written by one is read by the other, and errors are the same."""

    async def run() -> None:
        async with AsyncStore(store) as asynchronous:
            base = asynchronous.base_container_fqn
            written = await asynchronous.write_bytes(base.join("a"), b"hello", WriteOptions(metadata={"k": "v"}))
            assert written.size == 5
            assert b"hello" == store.read_bytes(base.join("a"))
            assert {"k": "v"} == (await asynchronous.head(base.join("a"))).user_metadata
            assert b"ell" == await asynchronous.read_bytes(base.join("a"), 1, 3)
            await asynchronous.copy_raw(base.join("a"), base.join("dir", "b"))
            assert await asynchronous.exists(base.join("dir", "b"))
            names = [entry.reference.key async for entry in asynchronous.walk(base, directory=True, page_size=1)]
            assert ["a", "dir/b"] == names
            references, cursor = await asynchronous.list(base)
            assert (2, True) == (len(references), cursor.is_at_end)
            assert not await asynchronous.delete_many(references)
            with pytest.raises(NotFound, match="a"):
                await asynchronous.read_bytes(base.join("a"))
            with pytest.raises(NotFound):
                await asynchronous.delete(base.join("a"), missing_ok=False)

    asyncio.run(run())


def test_streams_go_both_ways_piece_by_piece(store: Any) -> None:
    """A source that is made as it goes is stored whole, and a stream is read in pieces."""
    pieces = [bytes([number]) * (300 << 10) for number in range(12)]

    async def made() -> AsyncIterator[bytes]:
        for piece in pieces:
            await asyncio.sleep(0)
            yield piece

    async def run() -> None:
        async with AsyncStore(store) as asynchronous:
            reference = asynchronous.base_container_fqn.join("large")
            await asynchronous.write_raw(reference, None, None, made())
            async with await asynchronous.read_raw(reference, start=-1000) as stream:
                assert (b"\x0b" * 10, 990) == (await stream.read(10), len(await stream.read()))
                assert (1000, 1000) == (stream.size, stream.position)
            whole = b"".join([piece async for piece in await asynchronous.read_raw(reference)])
            assert b"".join(pieces) == whole

    asyncio.run(run())


def test_a_source_that_fails_leaves_nothing(store: Any) -> None:
    """What raises while it is stored, or is shorter than it said, makes no object, and the error is its own."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("the producer broke")

    async def short() -> AsyncIterator[bytes]:
        yield b"half"

    async def run() -> None:
        async with AsyncStore(store) as asynchronous:
            reference = asynchronous.base_container_fqn.join("never")
            with pytest.raises(RuntimeError, match="the producer broke"):
                await asynchronous.write_raw(reference, None, None, broken())
            with pytest.raises(SizeMismatch):
                await asynchronous.write_raw(reference, 10, None, short())
            assert not await asynchronous.exists(reference)

    asyncio.run(run())


def test_a_producer_is_no_faster_than_the_store() -> None:
    """Pieces are taken one by one as the store reads them, however many there would be."""
    made = 0
    taken: list[int] = []

    class Taking(MemoryStore):
        def write_raw(self, reference: Any, size: Any, options: Any, stream: Any) -> Any:
            for _ in range(5):
                next(stream)
                taken.append(made)
            return self.head(reference)

    async def endless() -> AsyncIterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield b"x" * 1000

    async def run() -> None:
        async with AsyncStore(Taking()) as asynchronous:
            await asynchronous.write_raw(f"{BASE}/k", None, None, endless())

    asyncio.run(run())
    assert [1, 2, 3, 4, 5] == taken


def test_only_so_many_operations_run_at_once() -> None:
    """A hundred tasks begin; four operations are under way at any moment, and all of them end."""
    slow = Slow()

    async def run() -> list[bytes]:
        async with AsyncStore(slow, max_concurrency=4) as asynchronous:
            tasks = [asyncio.create_task(asynchronous.read_bytes(f"{BASE}/{number}")) for number in range(100)]
            await until(lambda: slow.running == 4)
            slow.go.set()
            return await asyncio.gather(*tasks)

    assert [b"x"] * 100 == asyncio.run(run())
    assert slow.most == 4


def test_cancelling_a_task_ends_the_work_it_has_begun() -> None:
    """Once the task has ended the thread has ended, too; those still waiting for a place never begin."""
    slow = Slow()

    async def run() -> None:
        async with AsyncStore(slow, max_concurrency=2) as asynchronous:
            tasks = [asyncio.create_task(asynchronous.read_bytes(f"{BASE}/{number}")) for number in range(5)]
            await until(lambda: slow.running == 2)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert all(task.cancelled() for task in tasks)
            assert (0, ["Cancelled"] * 2) == (slow.running, slow.ends)
            slow.go.set()
            assert b"x" == await asynchronous.read_bytes(f"{BASE}/next")

    asyncio.run(run())
    assert slow.ends == ["Cancelled", "Cancelled", "done"]


def test_a_task_group_that_fails_takes_its_operations_with_it() -> None:
    """The failure of one task stops the operations of its siblings."""
    slow = Slow()

    async def fail() -> None:
        await until(lambda: slow.running == 3)
        raise RuntimeError("one of them")

    async def run() -> None:
        async with AsyncStore(slow) as asynchronous, asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(asynchronous.read_bytes(f"{BASE}/{number}"))
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(run())
    assert caught.group_contains(RuntimeError, match="one of them")
    assert (0, ["Cancelled"] * 3) == (slow.running, slow.ends)


def test_deadlines_hold_while_working_and_while_waiting() -> None:
    """A deadline ends an operation, and the wait for a place; the second says so."""
    slow = Slow()

    async def run() -> None:
        async with AsyncStore(slow, max_concurrency=1) as asynchronous:
            first = asyncio.create_task(asynchronous.read_bytes(f"{BASE}/first"))
            await until(lambda: slow.running == 1)
            with deadline(0.05), pytest.raises(DeadlineExceeded, match="1 other operations were under way"):
                await asynchronous.read_bytes(f"{BASE}/second")
            slow.go.set()
            await first
            slow.go.clear()
            with deadline(0.05), pytest.raises(DeadlineExceeded):
                await asynchronous.read_bytes(f"{BASE}/third")

    asyncio.run(run())
    assert ["done", "DeadlineExceeded"] == slow.ends


def test_a_cancelled_write_leaves_its_source_and_no_object(store: Any) -> None:
    """A write whose producer never goes on is cancelled: the producer is, too, and nothing appears."""
    ended: list[str] = []
    waiting = threading.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"first"
        try:
            waiting.set()
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def run() -> None:
        async with AsyncStore(store) as asynchronous:
            reference = asynchronous.base_container_fqn.join("stuck")
            task = asyncio.create_task(asynchronous.write_raw(reference, None, None, stuck()))
            await until(waiting.is_set)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ["cancelled"] == ended
            assert not await asynchronous.exists(reference)

    asyncio.run(run())


@contextmanager
def silent_server() -> Iterator[tuple[str, list[str]]]:
    """A server that takes requests and never answers; what became of its connections."""
    ends: list[str] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=watch, args=(connection,), daemon=True).start()

    def watch(connection: socket.socket) -> None:
        with connection:
            ends.append("asked" if connection.recv(65536) else "empty")
            try:
                while connection.recv(65536):
                    pass
            except OSError:
                pass
            ends.append("closed")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", ends
    finally:
        listening.close()


def test_cancelling_closes_the_connection_of_a_request_in_flight() -> None:
    """A request that S3 does not answer is given up where it is: its connection is closed."""

    async def run(endpoint: str, ends: list[str]) -> None:
        options = {"access_key_id": "k", "secret_key": "s", "region": "us-east-1"}
        store = open_store(
            f"s3://bucket?endpoint={endpoint}&create_container=never&multicontainer=true", options=options
        )
        async with AsyncStore(store) as asynchronous:
            task = asyncio.create_task(asynchronous.read_bytes("s3://other/key"))
            await until(lambda: "asked" in ends)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: "closed" in ends)
            assert ["asked", "closed"] == ends

    with silent_server() as (endpoint, ends):
        asyncio.run(run(endpoint, ends))


def test_a_real_store_under_many_tasks(radosgw: Server, bucket: str) -> None:
    """Two hundred objects are written and read again by as many tasks, over Ceph."""

    async def run() -> None:
        options = {name: text for name, text in s3_options(radosgw).items() if name != "endpoint"}
        url = f"s3://{bucket}?endpoint={radosgw.endpoint}"
        async with await AsyncStore.open(url, max_concurrency=8, options=options) as asynchronous:
            base = asynchronous.base_container_fqn

            async def there_and_back(number: int) -> bytes:
                await asynchronous.write_bytes(base.join(f"{number:03}"), b"%d" % number)
                return await asynchronous.read_bytes(base.join(f"{number:03}"))

            found = await asyncio.gather(*(there_and_back(number) for number in range(200)))
            assert [b"%d" % number for number in range(200)] == found
            assert 200 == len([entry async for entry in asynchronous.walk(base)])

    asyncio.run(run())


def test_it_travels_with_its_store(tmp_path: Path) -> None:
    """A copy by pickle reads what the first has written."""

    async def run() -> None:
        async with AsyncStore(open_store(f"file://{tmp_path}/main"), max_concurrency=3) as asynchronous:
            await asynchronous.write_bytes(asynchronous.base_container_fqn.join("k"), b"v")
            async with pickle.loads(pickle.dumps(asynchronous)) as other:
                assert (b"v", 3) == (await other.read_bytes(other.base_container_fqn.join("k")), other.max_concurrency)

    asyncio.run(run())


def test_no_operation_at_a_time_is_refused() -> None:
    """A bound that nothing passes is a mistake, and named."""
    with pytest.raises(ConfigError, match="max_concurrency is 0"):
        AsyncStore(MemoryStore(), max_concurrency=0)
