"""What programs that do not stop find afterwards, when the daemon or the store did."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from datastore.errors import StoreError
from stowstore import Volume
from stowstore.mounts import table
from stowstore.mounts.options import MountOptions
from tests import servers
from tests.mounts.conftest import Mounting
from tests.mounts.places import s3_root

#: Replaces files by longer and shorter ones, and tells the number of each that will not be lost any more.
_WRITER = """
import os, sys

path, name = sys.argv[1], sys.argv[2]
number = 0
while True:
    slot = f"{path}/{name}-{number % 20}"
    with open(f"{slot}.new", "wb") as file:
        file.write(b"%d " % number * (1 + number * 7919 % 3000))
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{slot}.new", slot)
    directory = os.open(path, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    print(number, flush=True)
    number += 1
"""

#: Reads files over and over, each one whole or not at all.
_READER = """
import sys, zlib

wanted = dict(zip(sys.argv[1::2], map(int, sys.argv[2::2])))
while True:
    for path, checksum in wanted.items():
        try:
            with open(path, "rb", buffering=0) as file:
                data = file.readall()
        except OSError:
            continue
        assert zlib.crc32(data) == checksum, path
"""


class _Writer:
    """A process that writes until it is ended, or its mount is."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._process = _started(_WRITER, path, name)
        self._told = b""
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    @property
    def count(self) -> int:
        """How many files it has told so far."""
        return self._told.count(b"\n")

    def end(self) -> int:
        """Ends it and gives how many files it told in all."""
        self._process.kill()
        self._listening.join(60)
        assert not self._listening.is_alive(), "a writer hangs"
        self._process.wait(60)
        return self.count

    def _listen(self) -> None:
        assert self._process.stdout is not None
        while told := self._process.stdout.read1():  # type: ignore[attr-defined]
            self._told += told
        self._process.stdout.close()


def _started(program: str, *arguments: object, output: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)


def _whole(data: bytes) -> int:
    """The number of the file that this is, all of it."""
    number = int(data.partition(b" ")[0])
    assert data == b"%d " % number * (1 + number * 7919 % 3000)
    return number


def _check(acknowledged: dict[str, int], place: Any) -> None:
    """Every file of a mount, or of a version's files, is whole, and none is older than what its writer told last."""
    for name, count in acknowledged.items():
        for slot in range(min(count, 20)):
            path = f"{name}-{slot}"
            data = (place / path).read_bytes() if isinstance(place, Path) else place.read_bytes(f"/{path}")
            assert _whole(data) >= count - 1 - (count - 1 - slot) % 20, path


def _until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing more happens"
        time.sleep(0.02)


def _killed_under_load(volume: Any, path: Path, name: str, seconds: float) -> dict[str, int]:
    """How many files each of two writers told before the daemon was killed, a while after all had begun."""
    record = table.find(path)
    assert record is not None
    writers = [_Writer(path, f"{name}.{number}") for number in range(2)]
    try:
        with _publishing(volume):
            _until(lambda: all(writer.count > 3 for writer in writers))
            time.sleep(seconds)
            os.kill(record.pid, signal.SIGKILL)
            _until(lambda: not record.is_alive)
    finally:
        told = {writer.name: writer.end() for writer in writers}
    return told


@contextmanager
def _publishing(volume: Any) -> Iterator[list[str]]:
    """Publishes one version after another meanwhile; what failed is no matter, as long as it ends."""
    published: list[str] = []
    enough = threading.Event()

    def publish() -> None:
        while not enough.is_set():
            with contextlib.suppress(StoreError, OSError):
                published.append(volume.blocking.commit().locator)
            enough.wait(0.05)

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()
    try:
        yield published
    finally:
        enough.set()
        thread.join(90)
        assert not thread.is_alive(), "a commit hangs"


@pytest.mark.parametrize("kernel_cache", ["writethrough", "writeback"])
def test_daemons_killed_while_they_publish_lose_nothing(mounting: Mounting, kernel_cache: str) -> None:
    """Writers and commits all the while, and a kill at any moment: what was told is there, in mount and version."""
    volume = mounting.volume()
    chance = Random()
    acknowledged: dict[str, int] = {}
    for turn in range(5):
        path = mounting.mount(volume, options=MountOptions(kernel_cache=kernel_cache))
        _check(acknowledged, path)
        acknowledged |= _killed_under_load(volume, path, f"turn-{turn}", chance.uniform(0.0, 0.6))
    path = mounting.mount(volume)
    _check(acknowledged, path)
    mounted = {name: (path / name).read_bytes() for name in os.listdir(path)}
    version = volume.blocking.finalize()
    assert mounted == {name: version.files.read_bytes(f"/{name}") for name in version.files.listdir("/")}


def test_a_store_that_is_away_for_a_while_under_load_loses_nothing(
    mounting: Mounting, pausable_gateway: servers.Server
) -> None:
    """Writers, readers and commits go on or wait, none hangs, and in the end everything is in the store."""
    root = s3_root(pausable_gateway)
    stored = {f"stored-{number}": os.urandom(300_000) for number in range(6)}
    before = Volume.new("data", root)
    with before.blocking as files:
        for name, data in stored.items():
            files.write_bytes(f"/{name}", data)
        before.blocking.commit("before")
    volume = Volume.new("data", root)
    # A cache in which nothing is yet.
    path = mounting.mount(volume, cache_dir=mounting.directory / "fresh", meta_dir=mounting.directory / "meta")
    wanted = [word for name, data in stored.items() for word in (path / name, zlib.crc32(data))]
    with ExitStack() as ends:
        writers = [_Writer(path, str(number)) for number in range(2)]
        for writer in writers:
            ends.callback(writer.end)
        reader = _started(_READER, *wanted, output=subprocess.DEVNULL)
        ends.callback(reader.wait, 60)
        ends.callback(reader.kill)
        published = ends.enter_context(_publishing(volume))
        _until(lambda: published and all(writer.count > 20 for writer in writers))
        pausable_gateway.stop_gateway()
        counts = [writer.count for writer in writers]
        # What the cache has room for is acknowledged without a store.
        _until(lambda: all(writer.count > count + 20 for writer, count in zip(writers, counts, strict=True)))
        time.sleep(3)
        pausable_gateway.start_gateway()
        count = len(published)
        _until(lambda: len(published) > count)
        assert reader.poll() is None, "it read something else"
    acknowledged = {writer.name: writer.count for writer in writers}
    version = volume.blocking.commit("after")
    _check(acknowledged, path)
    _check(acknowledged, version.files)
    assert stored == {name: (path / name).read_bytes() for name in stored}
