"""What goes wrong under a mount: a store that stands still, a daemon that is killed, a full cache."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import pytest

from stowstore import Volume
from stowstore.mounts import table
from stowstore.mounts.options import MountOptions
from tests import servers
from tests.mounts.conftest import Mounting
from tests.mounts.places import s3_root


def test_a_read_that_waits_holds_nobody_else_up(mounting: Mounting, pausable_gateway: servers.Server) -> None:
    """While the store stands still one reader waits; names, attributes, writes and cached data are served on."""
    volume = Volume.new("data", s3_root(pausable_gateway))
    with volume.blocking as files:
        files.write_bytes("/far", os.urandom(8 << 20))
        volume.blocking.commit("one")
    path = mounting.mount(volume, cache_dir=mounting.directory / "fresh", meta_dir=mounting.directory / "meta")
    assert os.listdir(path) == ["far"]
    (path / "near").write_bytes(b"near" * 1000)
    pausable_gateway.pause()
    waited: list[bytes] = []
    reader = threading.Thread(target=lambda: waited.append((path / "far").read_bytes()), daemon=True)
    try:
        reader.start()
        time.sleep(0.5)
        for number in range(200):
            (path / f"new-{number}").write_bytes(b"x" * 100)
            assert (path / f"new-{number}").stat().st_size == 100
        assert (path / "near").read_bytes() == b"near" * 1000
        assert len(os.listdir(path)) == 202
        assert reader.is_alive()
    finally:
        pausable_gateway.resume()
    reader.join(60)
    assert len(waited[0]) == 8 << 20


def test_a_reader_that_waits_can_be_interrupted(mounting: Mounting, pausable_gateway: servers.Server) -> None:
    """SIGKILL ends a program that waits for the store, at once."""
    volume = Volume.new("data", s3_root(pausable_gateway))
    with volume.blocking as files:
        files.write_bytes("/far", os.urandom(8 << 20))
        volume.blocking.commit("one")
    path = mounting.mount(volume, cache_dir=mounting.directory / "fresh", meta_dir=mounting.directory / "meta")
    pausable_gateway.pause()
    try:
        with subprocess.Popen(["cat", str(path / "far")], stdout=subprocess.DEVNULL) as reader:
            time.sleep(0.5)
            assert reader.poll() is None
            reader.kill()
            assert reader.wait(20) == -signal.SIGKILL
    finally:
        pausable_gateway.resume()
    assert len((path / "far").read_bytes()) == 8 << 20


def test_a_store_that_comes_back_has_everything(mounting: Mounting, pausable_gateway: servers.Server) -> None:
    """Writers go on while the store is away, a commit fails with the reason, and the next one has it all."""
    volume = Volume.new("data", s3_root(pausable_gateway))
    path = mounting.mount(volume)
    expected: dict[str, bytes] = {}

    def write(name: str) -> None:
        expected[name] = os.urandom(300_000)
        with open(path / name, "wb") as file:
            file.write(expected[name])
            file.flush()
            os.fsync(file.fileno())

    for number in range(5):
        write(f"before-{number}")
    pausable_gateway.stop_gateway()
    for number in range(5):
        write(f"away-{number}")
    pausable_gateway.start_gateway()
    version = volume.blocking.commit("all")
    assert {name: version.files.read_bytes(f"/{name}") for name in expected} == expected


_WRITER = """
import os, sys
path, seed = sys.argv[1], int(sys.argv[2])
number = 0
while True:
    name = f"{path}/{seed}-{number}"
    with open(name, "wb") as file:
        file.write(b"%d" % number * (1 + (number * 7919 + seed) % 5000))
        file.flush()
        os.fsync(file.fileno())
    # Only what was acknowledged is told.
    print(number, flush=True)
    if number % 3 == 2:
        os.rename(name, f"{name}.moved")
        os.rename(f"{name}.moved", name)
    number += 1
"""


@pytest.mark.parametrize("kernel_cache", ["writethrough", "writeback"])
def test_daemons_killed_at_any_moment_lose_nothing_acknowledged(mounting: Mounting, kernel_cache: str) -> None:
    """Rounds of writers, a daemon killed under them, and another mount: every file that was fsynced is whole."""
    volume = mounting.volume()
    acknowledged: dict[str, bytes] = {}
    for seed in range(5):
        path = mounting.mount(volume, options=MountOptions(kernel_cache=kernel_cache))
        for name, data in acknowledged.items():
            assert (path / name).read_bytes() == data, name
        if seed == 2:
            volume.blocking.commit("in between")
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path), str(seed)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        time.sleep(0.3 + 0.13 * seed)
        record = table.find(path)
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)
        out, _ = writer.communicate(timeout=30)
        for word in out.split():
            number = int(word)
            acknowledged[f"{seed}-{number}"] = b"%d" % number * (1 + (number * 7919 + seed) % 5000)
        while record.is_alive:
            time.sleep(0.01)
    assert len(acknowledged) > 20
    path = mounting.mount(volume)
    for name, data in acknowledged.items():
        assert (path / name).read_bytes() == data, name


def test_a_full_cache_loses_nothing(mounting: Mounting, tmp_path: Path) -> None:
    """When the disk below the cache is full, writes make room in it or say so; whatever was written is committed."""
    if os.geteuid() != 0:
        pytest.skip("a small disk takes root")
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)], check=True)
    try:
        volume = mounting.volume()
        path = mounting.mount(volume, cache_dir=small / "cache", meta_dir=tmp_path / "meta")
        (path / "first").write_bytes(b"1" * 1000)
        blocks = [os.urandom(1 << 20) for _ in range(60)]
        with open(path / "large", "wb", buffering=0) as file:
            written = _write_until_full(file, blocks)
        version = _committed(volume)
        assert version.files.read_bytes("/first") == b"1" * 1000
        found = version.files.read_bytes("/large")
        assert len(written) >= 8 << 20
        assert found[: len(written)] == written
        volume.blocking.unmount()
    finally:
        subprocess.run(["umount", "-l", str(small)], check=False)


def _write_until_full(file: IO[bytes], blocks: list[bytes]) -> bytes:
    """What could be written before there was no room for more."""
    written = b""
    for block in blocks:
        try:
            written += block[: file.write(block)]
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            break
    return written


def _committed(volume: Volume) -> Volume:
    """A commit as soon as there is room for it: the upload that makes room runs in the background."""
    end = time.monotonic() + 30
    while True:
        try:
            return volume.blocking.commit("despite all")  # type: ignore[attr-defined, no-any-return]
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
