"""Repair: a whole version out of a damaged one, with nothing deleted and every loss told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from stowstore.chunks.block import PackKind
from stowstore.chunks.disk_cache import DiskCache
from stowstore.chunks.store import ChunkStore
from stowstore.index.keys import ROOT_INODE, entry_key, inode_key
from stowstore.index.records import InodeRecord, unpack_extents
from stowstore.versions.check import check
from stowstore.versions.errors import CorruptManifest, LeaseHeld
from stowstore.versions.findings import CheckDepth, FindingKind
from stowstore.versions.lease import Lease
from stowstore.versions.repair import LostRange, RepairReport, repair
from stowstore.versions.ulid import new_ulid
from tests.versions.test_check import FILES, HOSTILE, delete, flip, hostile_volume
from tests.versions.volumes import Volumes


@pytest.fixture
def volumes() -> Iterator[Volumes]:
    with Volumes() as volumes:
        yield volumes


def mend(volumes: Volumes, **more: Any) -> RepairReport:
    with Volumes(volumes.store) as fresh:
        return repair(fresh.root, fresh.chunks, "data", **{"dry_run": False, **more})


def is_whole(volumes: Volumes) -> bool:
    with Volumes(volumes.store) as fresh:
        report = check(fresh.root, fresh.chunks, "data", "head", depth=CheckDepth.DATA)
    assert () == report.findings
    return report.is_whole


def test_nothing_is_done_where_nothing_is_wrong(volumes: Volumes) -> None:
    """A whole head stays the head."""
    name = volumes.commit("data", FILES, merge=True)

    assert RepairReport(dry_run=False) == mend(volumes)
    assert name == volumes.root.head("data")


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_contradictions_are_mended(volumes: Volumes, what: str) -> None:
    """After a repair of any contradiction the head is whole, and no file has been deleted."""
    damaged = hostile_volume(volumes, what)

    planned = mend(volumes, dry_run=True)
    assert damaged == volumes.root.head("data")
    report = mend(volumes)

    assert report.actions == planned.actions
    assert report.actions
    assert report.version == volumes.root.head("data")
    manifest = volumes.root.load(volumes.root.head("data"))
    assert (damaged,) == manifest.parents
    assert manifest.message is not None
    assert f"Repair of version {damaged.id}: " in manifest.message
    assert is_whole(volumes)
    files = volumes.files(volumes.root.head("data"))
    contents = set(files.values())
    # Of a record that cannot be read nothing is left; of all others the content is.
    lost = {"bad inode": {b"1" * 100}, "bad mode": {b"1" * 100}, "overlap": {b"2" * 2000}, "past the end": {b"1" * 100}}
    assert {b"1" * 100, b"2" * 2000, b"low"} - lost.get(what, set()) <= contents
    assert mend(volumes).was_whole


def test_filter_that_hides_records_is_mended(volumes: Volumes) -> None:
    """A segment whose filter denies its records is told by a check; a repair has every name found again."""
    before = volumes.root.load(volumes.commit("data", {"one": b"1"}, merge=True))
    head = volumes.commit("data", {"one": b"1", "two": b"2"})
    manifest = volumes.root.load(head)
    (delta,) = manifest.snapshot.deltas
    assert delta.filter is not None
    hiding = evolve(manifest.snapshot, deltas=[evolve(delta, filter=bytes(len(delta.filter)))])
    damaged = volumes.root.write_manifest(evolve(manifest, id=new_ulid(), snapshot=hiding, parents=(before.name,)))
    volumes.root.set_head("data", damaged, head)
    assert volumes.snapshot(hiding).get(entry_key(ROOT_INODE, b"two")) is None

    (found,) = check(volumes.root, volumes.chunks, "data", "head").findings
    assert (FindingKind.BAD_STRUCTURE, damaged.id) == (found.kind, found.version)
    assert "the filter of an index segment denies records" in found.message
    report = mend(volumes)

    assert ("wrote the index anew, whose filters denied records that it holds",) == report.actions
    assert is_whole(volumes)
    assert {"one": b"1", "two": b"2"} == volumes.files(volumes.root.head("data"))
    assert mend(volumes).was_whole


def test_what_is_nowhere_else_becomes_a_hole_in_lost_and_found(volumes: Volumes) -> None:
    """A file with a lost block moves to lost+found, its range is told, and its other bytes are there."""
    name = volumes.commit("data", {"dir/a": b"a" * 900, "dir/b": b"b" * 900})
    again = volumes.commit("data", {"dir/a": b"a" * 900 + b"x" * 100, "dir/b": b"b" * 900})
    delete(volumes, volumes.pack_of(again, "dir/a"))

    report = mend(volumes)

    ino = volumes.ino_of(name, "dir/a")
    assert (LostRange("dir/a", 0, 1000),) == report.lost_ranges
    assert "moved dir/a to lost+found: bytes 0+1000 are lost" in report.actions
    assert {f"lost+found/#{ino}-a": b"\0" * 1000, "dir/b": b"b" * 900} == volumes.files(volumes.root.head("data"))
    assert is_whole(volumes)


def test_block_that_another_version_has_is_uploaded_again(volumes: Volumes) -> None:
    """The same content in another pack, of any volume, brings a file back whole."""
    volumes.commit("other", {"copy": b"same" * 200})
    name = volumes.commit("data", {"a": b"same" * 200, "b": b"b"})
    assert volumes.pack_of(name, "a") != volumes.pack_of(volumes.root.head("other"), "copy")
    flip(volumes, volumes.pack_of(name, "a"))

    report = mend(volumes)

    assert report.restored_blocks >= 1
    assert () == report.lost_ranges
    assert {"a": b"same" * 200, "b": b"b"} == volumes.files(volumes.root.head("data"))
    assert is_whole(volumes)


def test_block_that_the_local_cache_has_is_uploaded_again(volumes: Volumes, tmp_path: Path) -> None:
    """What a reader has cached outlives the pack."""
    name = volumes.commit("data", {"big": b"0123456789" * 90, "c": b"c" * 100})
    cache = DiskCache(tmp_path, max_bytes=1 << 24)
    with ChunkStore(volumes.store, volumes.root.base, disk=cache) as chunks:
        snapshot = volumes.snapshot(volumes.root.load(name).snapshot)
        for path in ("big", "c"):
            raw = snapshot.get(inode_key(volumes.ino_of(name, path))) or b""
            chunks.reader.read(unpack_extents(InodeRecord.decode(raw).extents)[0].block)
    delete(volumes, volumes.pack_of(name, "big"))

    report = mend(volumes, cache=cache)

    cache.close()
    assert 2 == report.restored_blocks
    assert {"big": b"0123456789" * 90, "c": b"c" * 100} == volumes.files(volumes.root.head("data"))


def test_lost_leaf_comes_back_from_an_older_version(volumes: Volumes) -> None:
    """Records of a damaged node are taken as the newest version that has them knew them."""
    files = {f"f{number:04}": b"%d" % number for number in range(400)}
    volumes.commit("data", files, merge=True)
    files["f0001"] = b"changed"
    name = volumes.commit("data", files, merge=True)
    root = volumes.root.load(name).snapshot.tree.root
    assert root is not None
    delete(volumes, volumes.chunks.pack_reference(PackKind.INDEX, root.pack))

    report = mend(volumes)

    assert report.restored_records > 0
    found = volumes.files(volumes.root.head("data"))
    assert found.keys() == files.keys()
    assert {path: content for path, content in files.items() if path != "f0001"} == {
        path: content for path, content in found.items() if path != "f0001"
    }
    assert is_whole(volumes)


def test_lost_index_without_another_version_leaves_what_can_be_read(volumes: Volumes) -> None:
    """Inodes whose names are lost are found again in lost+found."""
    files = {f"f{number:04}": b"content %d" % number for number in range(400)}
    name = volumes.commit("data", files, merge=True)
    snapshot = volumes.snapshot(volumes.root.load(name).snapshot)
    root = snapshot.ref.tree.root
    assert root is not None
    node = snapshot.cache.get(root, snapshot.ref.tree.depth)
    leaf = node.child(0)
    reference = volumes.chunks.pack_reference(PackKind.INDEX, leaf.pack)
    content = bytearray(volumes.store.read_bytes(reference))
    content[leaf.offset + leaf.stored // 2] ^= 0xFF
    volumes.store.write_bytes(reference, bytes(content))

    mend(volumes)

    assert is_whole(volumes)
    found = volumes.files(volumes.root.head("data"))
    assert sorted(files.values()) == sorted(found.values())
    assert any(path.startswith("lost+found/#") for path in found)


def test_damaged_head_is_replaced_by_a_named_version(volumes: Volumes) -> None:
    """Where the head is damaged the version to go on from has to be named."""
    name = volumes.commit("data", FILES)
    volumes.store.write_bytes(volumes.root.base.join("refs/data/head"), b"garbage")

    with pytest.raises(CorruptManifest, match="the head of data is damaged"):
        mend(volumes)
    report = mend(volumes, version=name.id)

    assert report.version == volumes.root.head("data")
    assert FILES == volumes.files(volumes.root.head("data"))


def test_damaged_version_gives_way_to_an_older_one(volumes: Volumes) -> None:
    """A head whose manifest is gone is followed by what an older version has."""
    old = volumes.commit("data", {"a": b"old"})
    new = volumes.commit("data", {"a": b"new"})
    volumes.root.delete_version("data", new.id)

    report = mend(volumes, version=old.id)

    assert report.actions == (f"went back to version {old.id}",)
    assert {"a": b"old"} == volumes.files(volumes.root.head("data"))


def test_repair_needs_the_lease(volumes: Volumes) -> None:
    """Nobody repairs a volume somebody is writing."""
    hostile_volume(volumes, "orphan")
    lease = Lease(volumes.store, volumes.root.lease_reference("data"))

    with pytest.raises(LeaseHeld):
        mend(volumes)
    mend(volumes, lease=lease)
    lease.release()
    assert is_whole(volumes)
