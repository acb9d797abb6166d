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


#: Reads a file in one call, with a signal handled meanwhile, and tells how many bytes came or which error.
_HANDLING = """
import ctypes, os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: None)
libc = ctypes.CDLL(None, use_errno=True)
descriptor = os.open(sys.argv[1], os.O_RDONLY)
buffer = ctypes.create_string_buffer(1 << 20)
print("reads", flush=True)
found = libc.read(descriptor, buffer, 1 << 20)
print(found, ctypes.get_errno(), flush=True)
"""


def test_a_reader_that_waits_is_interrupted_only_when_it_is_killed(
    mounting: Mounting, pausable_gateway: servers.Server
) -> None:
    """SIGKILL ends a program that waits for the store, at once; a signal that it handles leaves its read alone."""
    volume = Volume.new("data", s3_root(pausable_gateway))
    with volume.blocking as files:
        for name in ("/one", "/two"):
            files.write_bytes(name, os.urandom(8 << 20))
        volume.blocking.commit("one")
    path = mounting.mount(volume, cache_dir=mounting.directory / "fresh", meta_dir=mounting.directory / "meta")
    assert sorted(os.listdir(path)) == ["one", "two"]
    pausable_gateway.pause()
    try:
        with _reading(path / "one") as killed, _reading(path / "two") as handling:
            for _ in range(3):
                time.sleep(0.3)
                for reader in (killed, handling):
                    reader.send_signal(signal.SIGUSR1)
            time.sleep(0.5)
            assert (killed.poll(), handling.poll()) == (None, None)
            killed.kill()
            assert killed.wait(20) == -signal.SIGKILL
            pausable_gateway.resume()
            assert handling.communicate(timeout=60)[0] == f"{1 << 20} 0\n"
    finally:
        pausable_gateway.resume()
    assert len((path / "one").read_bytes()) == 8 << 20


def _reading(path: Path) -> subprocess.Popen[str]:
    reader = subprocess.Popen([sys.executable, "-c", _HANDLING, path], stdout=subprocess.PIPE, text=True)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reads\n"
    return reader


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
