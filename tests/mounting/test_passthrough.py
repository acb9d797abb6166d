"""Files that the kernel reads from a plain file by itself: the same bytes, whatever becomes of the mount meanwhile."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stowstore import ROVolume, Volume
from stowstore.chunks.encryption import Passphrase
from stowstore.mounts import control
from tests.mounting.places import Place, eventually

_MIB = 1 << 20


def _version(place: Place, contents: Mapping[str, bytes]) -> ROVolume:
    volume = place.volume()
    with volume.blocking as files:
        for name, content in contents.items():
            files.write_bytes(f"/{name}", content)
        made: ROVolume = volume.blocking.commit()
    return made


def _mount(place: Place, version: ROVolume) -> Path:
    """A mount whose files the kernel may read by itself, where this one can."""
    path = version.blocking.mount(place.directory / "ro", cache_dir=place.directory / "ro-cache", timeout=30.0)
    refusal = _passing(path)["refusal"]
    if refusal is not None:
        pytest.skip(f"no passthrough: {refusal}")
    return path


def _passing(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = control.ask(path, "stats")["passthrough"]
    return found


def _reads(path: Path) -> int:
    """How often the kernel has asked for content."""
    found: int = control.ask(path, "stats")["requests"].get("read", 0)
    return found


def _dropped(path: Path) -> bytes:
    """What is read of a file of which the kernel remembers nothing."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def test_what_was_warmed_up_is_read_without_the_daemon(place: Place) -> None:
    """Holes, the odd end of a file, parts of it and mappings included; small files are served as ever."""
    large = os.urandom(3 * _MIB) + bytes(9 * _MIB) + os.urandom(_MIB + 77)
    path = _mount(place, _version(place, {"large": large, "small": b"s" * 1000}))
    control.ask(path, "warmup")
    before = _reads(path)
    assert large == _dropped(path / "large")
    with open(path / "large", "rb") as file:
        assert large[_MIB + 5 : _MIB + 105] == os.pread(file.fileno(), 100, _MIB + 5)
        assert b"" == os.pread(file.fileno(), 100, len(large))
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            assert large == mapped[:]
        assert (len(large), 0o100644) == (os.fstat(file.fileno()).st_size, os.fstat(file.fileno()).st_mode)
    assert before == _reads(path)
    assert {"refusal": None, "files": 1, "bytes": len(large), "opens": 2} == _passing(path)
    assert b"s" * 1000 == _dropped(path / "small")
    assert before < _reads(path)


def test_what_is_read_again_and_again_is_copied(place: Place) -> None:
    """Nobody has to ask: when the kernel has had to fetch a file twice, it gets one of its own."""
    content = os.urandom(2 * _MIB)
    path = _mount(place, _version(place, {"f": content}))
    for _ in range(2):
        assert content == _dropped(path / "f")
    assert eventually(lambda: _passing(path)["files"] == 1)
    before = _reads(path)
    assert content == _dropped(path / "f")
    assert before == _reads(path)


def test_all_handles_of_a_file_are_of_one_kind(place: Place) -> None:
    """While somebody has the file open as it was served before, others read it in that way, too."""
    content = os.urandom(2 * _MIB)
    path = _mount(place, _version(place, {"f": content}))
    with open(path / "f", "rb") as early:
        assert content[:100] == early.read(100)
        control.ask(path, "warmup")
        assert content == _dropped(path / "f")
        assert (1, 0) == (_passing(path)["files"], _passing(path)["opens"])
        assert content[100:] == early.read()
    # The release of the first handle comes when the kernel gets round to it.
    assert eventually(lambda: content == _dropped(path / "f") and _passing(path)["opens"] > 0)
    assert content == (path / "f").read_bytes()


def test_a_newer_version_is_read_beside_an_old_handle(place: Place) -> None:
    """Who has the file open keeps what it was; who opens it then reads what it is, and so it stays."""
    volume = place.volume()
    old, new = os.urandom(2 * _MIB), os.urandom(3 * _MIB)
    with volume.blocking as files:
        files.write_bytes("/f", old)
        files.write_bytes("/g", old)
        version = volume.blocking.commit()
        path = _mount(place, version)
        control.ask(path, "warmup")
        with open(path / "f", "rb") as early:
            assert old[:10] == early.read(10)
            files.write_bytes("/f", new)
            volume.blocking.commit()
            control.ask(path, "refresh")
            assert 0 == _passing(path)["files"]
            assert (new, old) == ((path / "f").read_bytes(), (path / "g").read_bytes())
            control.ask(path, "warmup")
            assert new == (path / "f").read_bytes()
            assert old[10:] == early.read()
        assert new == (path / "f").read_bytes()
    assert eventually(lambda: new == _dropped(path / "f") and _passing(path)["opens"] > 1)


def test_why_nothing_is_passed_through_is_told(place: Place) -> None:
    """A mount that is written, one without a cache directory, and one whose content must not lie in the clear."""
    volume = place.volume()
    path = place.mount(volume)
    (path / "f").write_bytes(os.urandom(_MIB))
    assert "written" in _passing(path)["refusal"]
    version = volume.blocking.finalize()
    ro = version.blocking.mount(place.directory / "ro", timeout=30.0)
    assert "cache directory" in _passing(ro)["refusal"]
    version.blocking.unmount()


def test_what_is_encrypted_is_not_copied_in_the_clear(place: Place) -> None:
    """The kernel reads what the daemon has opened for it, and no plain file."""
    Volume.configure(place.root, key=Passphrase("correct horse battery staple"))
    content = os.urandom(_MIB)
    version = _version(place, {"f": content})
    path = version.blocking.mount(place.directory / "ro", cache_dir=place.directory / "ro-cache", timeout=30.0)
    control.ask(path, "warmup")
    assert content == _dropped(path / "f")
    assert "encrypted" in _passing(path)["refusal"]
