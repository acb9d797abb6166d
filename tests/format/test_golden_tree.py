"""The golden root with a tree: read, compared, merged and written on by this release, whichever it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stowstore import ROVolume, RWVolume, Volume
from stowstore.versions.check import check
from stowstore.versions.errors import LeaseHeld
from stowstore.versions.findings import CheckDepth
from stowstore.versions.lease import read_lease
from stowstore.versions.options import SessionOptions, chunk_store
from stowstore.versions.session import Session
from stowstore.volumes.registry import registry
from tests.golden.make import describe
from tests.golden.unpacking import unpack


@pytest.fixture
def golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, Any]]]:
    """The URL of a copy of the root, and what its versions held."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    unpack(Path(__file__).parent / "v1" / "tree.tar.xz", tmp_path)
    yield f"file://{tmp_path}/tree", json.loads((tmp_path / "expected.json").read_text())["tree"]
    registry.close_all()


def test_every_version_is_what_it_was(golden: tuple[str, dict[str, Any]]) -> None:
    """Before the segments were merged, of the tree alone, and of the segment above it."""
    url, expected = golden
    assert len(expected) == 3
    for version, about in expected.items():
        found = Volume.blocking.at(f"{url}#golden@{version}")
        assert isinstance(found, ROVolume)
        with found.blocking as files:
            assert describe(files) == about["files"]
    root = registry.root(url)
    depths = {root.manifest("golden", version).snapshot.tree.depth for version in expected}
    assert depths == {0, 1}
    with chunk_store(root, SessionOptions()) as chunks:
        report = check(root, chunks, depth=CheckDepth.DATA)
    assert (report.findings, report.versions) == ((), 3)


def test_versions_are_compared(golden: tuple[str, dict[str, Any]]) -> None:
    """A version and its rewriting have the same files; above the tree is what was changed there."""
    url, expected = golden
    many, rewritten, above = sorted(expected)
    newest = Volume.blocking.at(f"{url}#golden").blocking
    assert Volume.blocking.at(f"{url}#golden@{rewritten}").blocking.diff(many) == []
    changes = [(change.path, change.kind.value) for change in newest.diff()]
    assert changes == [
        ("five", "added"),
        ("many/3/003", "removed"),
        ("many/4/004", "content"),
        ("many/5", "removed"),
        ("windows", "content"),
    ]
    assert newest._newest().id == above


def test_it_is_written_on_and_merged(golden: tuple[str, dict[str, Any]]) -> None:
    """A fork of the oldest version and the newest become one; the lease that was left then is understood, and over."""
    url, expected = golden
    many, _, above = sorted(expected)
    root = registry.root(url)
    lease = read_lease(root.store, root.lease_reference("golden"))
    assert lease is not None
    assert (lease.base, lease.is_over) == (above, True)
    oldest, volume = (Volume.blocking.at(f"{url}#golden{version}") for version in (f"@{many}", ""))
    assert isinstance(oldest, ROVolume)
    assert isinstance(volume, RWVolume)
    fork = oldest.blocking.fork("fork")
    with fork.blocking as forked:
        forked.write_text("/many/7/007", "of the fork")
        forked.rmtree("/many/8")
        fork.blocking.commit("of the fork")
    with volume.blocking as files:
        volume.blocking.merge(fork)
        assert files.read_text("/many/7/007") == "of the fork"
        assert files.read_text("/many/4/004") == "changed above the tree"
        assert sorted(files.listdir("/many")) == ["0", "1", "2", "3", "4", "6", "7", "9"]
        assert len(files.listdir("/five")) == 30
        with pytest.raises(LeaseHeld):
            Session.write(root, "golden")
    with chunk_store(root, SessionOptions()) as chunks:
        assert check(root, chunks, depth=CheckDepth.DATA).is_whole
