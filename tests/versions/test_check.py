"""Checking: every kind of damage is reported, with the paths it hurts, and never served."""

from __future__ import annotations

import random
import stat
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from datastore import DataReference, MemoryStore
from datastore.errors import StoreError, TransientError
from datastore.metric_names import Operation
from datastore.wrappers.faulty import FaultyStore, Raise, Rule
from stowstore.chunks.block import PackKind
from stowstore.index.keys import ROOT_INODE, SUPERBLOCK, entry_key, extents_key, inode_key, xattr_key
from stowstore.index.records import EntryRecord, InodeRecord, Superblock, pack_extents, unpack_extents
from stowstore.versions.check import check
from stowstore.versions.errors import NoSuchVersion, NoSuchVolume
from stowstore.versions.findings import CheckDepth, CheckReport, FindingKind
from stowstore.versions.manifest import VersionName
from stowstore.versions.structure import ProblemKind
from tests.versions.volumes import Volumes

CHANCE = random.Random(3)
FILES = {
    **{f"many/f{number:04}": b"%d " % number * 20 for number in range(500)},
    "big": CHANCE.randbytes(20_000),
    "dir/small": CHANCE.randbytes(700),
    "dir/deep/other": CHANCE.randbytes(900),
}


@pytest.fixture
def volumes() -> Iterator[Volumes]:
    with Volumes() as volumes:
        yield volumes


def look(volumes: Volumes, depth: CheckDepth = CheckDepth.DATA, **more: Any) -> CheckReport:
    return check(volumes.root, volumes.chunks, depth=depth, **more)


@pytest.mark.parametrize("depth", list(CheckDepth))
def test_whole_volumes_are_whole(volumes: Volumes, depth: CheckDepth) -> None:
    """Nothing is found where nothing is wrong, whatever the shape of the index."""
    first = volumes.commit("data", FILES, merge=True)
    volumes.commit("data", {**FILES, "new": b"x" * 5000})
    volumes.commit("data", {"only": b"this"})
    volumes.root.set_tag("data", "v1", first)
    volumes.root.set_head("fork", first, None)

    report = look(volumes, depth)

    assert () == report.findings
    assert report.is_whole
    assert 3 == report.versions
    assert report.inodes > 1000
    assert (report.blocks > 0) == (depth is CheckDepth.DATA)


def test_what_is_not_there_cannot_be_looked_at(volumes: Volumes) -> None:
    """Names of nothing are errors of the caller's, not damage."""
    volumes.commit("data", {})
    with pytest.raises(NoSuchVolume):
        look(volumes, volume="other")
    with pytest.raises(NoSuchVersion):
        look(volumes, volume="data", version="nothing")


@pytest.mark.parametrize("keys", ["root/index/*", "root/versions/*", "root/refs/*", "root/packs/*"])
def test_store_that_cannot_be_read_is_no_damage(keys: str) -> None:
    """A check that could not look says so, instead of calling things damaged."""
    store = FaultyStore(MemoryStore())
    with Volumes(store) as volumes:
        volumes.commit("data", FILES)
        store.add(Rule(Raise(TransientError), operations={Operation.READ}, keys=keys))
        with pytest.raises(TransientError):
            look(volumes)


Damage = Callable[[Volumes, DataReference], None]


def delete(volumes: Volumes, reference: DataReference) -> None:
    volumes.store.delete(reference, missing_ok=False)


def flip(volumes: Volumes, reference: DataReference) -> None:
    content = bytearray(volumes.store.read_bytes(reference))
    for position in range(10, len(content), 40):
        content[position] ^= 1
    volumes.store.write_bytes(reference, bytes(content))


def flip_one(volumes: Volumes, reference: DataReference) -> None:
    content = bytearray(volumes.store.read_bytes(reference))
    content[10] ^= 1
    volumes.store.write_bytes(reference, bytes(content))


def truncate(volumes: Volumes, reference: DataReference) -> None:
    content = volumes.store.read_bytes(reference)
    volumes.store.write_bytes(reference, content[: len(content) // 2])


def empty(volumes: Volumes, reference: DataReference) -> None:
    volumes.store.write_bytes(reference, b"")


def swap(volumes: Volumes, reference: DataReference) -> None:
    """Another object of the same kind, in its place."""
    kind = reference.key.split("/")[1]
    others = [entry.reference for entry in volumes.store.walk(volumes.root.base.join(kind), directory=True)]
    other = next(found for found in others if found != reference)
    mine, theirs = volumes.store.read_bytes(reference), volumes.store.read_bytes(other)
    volumes.store.write_bytes(reference, theirs)
    volumes.store.write_bytes(other, mine)


#: A head in the place of another is left out: it may name any version, which is how a fork begins.
TABLE = [
    (what, damage)
    for what in ("data", "index", "delta", "manifest", "head")
    for damage in (delete, flip, truncate, empty, swap)
    if (what, damage) != ("head", swap)
]


@pytest.mark.parametrize(("what", "damage"), TABLE)
def test_damage_is_reported_and_never_served(volumes: Volumes, what: str, damage: Damage) -> None:
    """Every object a volume consists of, damaged in every way: found by the check, an error for readers."""
    volumes.commit("other", {"o": b"other" * 100})
    volumes.commit("data", FILES, merge=True)
    changed = volumes.commit("data", {**FILES, "dir/small": b"changed" * 50})
    manifest = volumes.root.load(changed)
    assert manifest.snapshot.tree.root is not None
    damage(
        volumes,
        {
            "data": volumes.pack_of(changed, "dir/deep/other"),
            "index": volumes.chunks.pack_reference(PackKind.INDEX, manifest.snapshot.tree.root.pack),
            "delta": volumes.chunks.pack_reference(PackKind.INDEX, manifest.snapshot.deltas[0].blocks[0].pack),
            "manifest": volumes.root.base.join("versions/data", changed.id),
            "head": volumes.root.base.join("refs/data/head"),
        }[what],
    )

    with Volumes(volumes.store) as fresh:
        report = look(fresh)
        assert not report.is_whole
        assert any("data" == found.volume for found in report.findings)
        if what == "head":
            with pytest.raises(StoreError):
                fresh.root.head("data")
        else:
            with pytest.raises(StoreError):
                fresh.files(changed)


def test_missing_pack_names_the_files_it_hurts_in_every_version(volumes: Volumes) -> None:
    """The paths of all files with a block in it, and no others."""
    volumes.commit("data", {"dir/a": b"a" * 3000, "dir/b": b"b" * 300})
    volumes.commit("data", {"dir/a": b"a" * 3000, "moved/c": b"c" * 300})
    last = volumes.root.head("data")
    delete(volumes, volumes.pack_of(last, "dir/a"))

    report = look(volumes, CheckDepth.EXISTENCE)

    assert [FindingKind.MISSING_PACK] * 2 == [found.kind for found in report.findings]
    assert [("dir/a", "dir/b"), ("dir/a",)] == [found.paths for found in report.findings]
    assert last.id == report.findings[1].version
    assert "is missing; hurts 1: dir/a" in str(report.findings[1])


def test_flipped_block_names_its_file(volumes: Volumes) -> None:
    """Only reading finds a flipped byte, and then the file it lies in."""
    name = volumes.commit("data", {"a": CHANCE.randbytes(500), "b": CHANCE.randbytes(500)})
    flip_one(volumes, volumes.pack_of(name, "a"))

    assert look(volumes, CheckDepth.EXISTENCE).is_whole
    findings = look(volumes).findings
    assert [(FindingKind.BAD_BLOCK, ("a",))] == [(found.kind, found.paths) for found in findings]


def test_lost_leaf_names_the_files_and_directories_it_hurts(volumes: Volumes) -> None:
    """Files whose inodes are lost are named by the entries that are left."""
    name = volumes.commit("data", FILES, merge=True)
    root = volumes.root.load(name).snapshot.tree.root
    assert root is not None
    snapshot = volumes.snapshot(volumes.root.load(name).snapshot)
    node = snapshot.cache.get(root, snapshot.ref.tree.depth)
    wanted = inode_key(volumes.ino_of(name, "many/f0300"))
    position = max(number for number, key in enumerate(node.keys) if key <= wanted)
    leaf = node.child(position)
    reference = volumes.chunks.pack_reference(PackKind.INDEX, leaf.pack)
    content = bytearray(volumes.store.read_bytes(reference))
    content[leaf.offset + leaf.stored // 2] ^= 0xFF
    volumes.store.write_bytes(reference, bytes(content))

    report = look(volumes, CheckDepth.STRUCTURE)

    lost = [found for found in report.findings if found.kind is FindingKind.LOST_INDEX]
    assert 1 == len(lost)
    assert "many/f0300" in lost[0].paths
    assert len(lost[0].paths) < 400


def test_missing_version_that_is_named_is_found(volumes: Volumes) -> None:
    """A tag that names nothing any more is damage; a pruned parent is not."""
    first = volumes.commit("data", {"a": b"1"})
    second = volumes.commit("data", {"a": b"2"})
    volumes.commit("data", {"a": b"3"})
    volumes.root.delete_version("data", first.id)
    assert look(volumes).is_whole

    volumes.root.set_tag("data", "v2", second)
    volumes.root.delete_version("data", second.id)
    assert [FindingKind.BAD_REFERENCE] == [found.kind for found in look(volumes).findings]


def test_manifest_that_only_its_children_name_is_held_against_them(volumes: Volumes) -> None:
    """A changed message of an old version is found by the digest that the next version keeps."""
    first = volumes.commit("data", {"a": b"1"}, message="honest")
    volumes.commit("data", {"a": b"2"})
    reference = volumes.root.base.join("versions/data", first.id)
    volumes.store.write_bytes(reference, volumes.store.read_bytes(reference).replace(b"honest", b"forged"))

    assert [(FindingKind.BAD_MANIFEST, first.id)] == [(found.kind, found.version) for found in look(volumes).findings]


def inode(volumes: Volumes, name: VersionName, path: str, **changes: Any) -> dict[bytes, bytes | None]:
    """The record of an inode, changed."""
    key = inode_key(volumes.ino_of(name, path))
    record = InodeRecord.decode(volumes.snapshot(volumes.root.load(name).snapshot).get(key) or b"")
    return {key: msgspec.structs.replace(record, **changes).encode()}


def overlapping(volumes: Volumes, name: VersionName) -> dict[bytes, bytes | None]:
    key = inode_key(volumes.ino_of(name, "two"))
    record = InodeRecord.decode(volumes.snapshot(volumes.root.load(name).snapshot).get(key) or b"")
    first, second = unpack_extents(record.extents)
    packed = pack_extents([first, second._replace(offset=first.offset + 1)])
    return {key: msgspec.structs.replace(record, extents=packed).encode()}


Hostile = Callable[[Volumes, VersionName, Callable[[str], int]], dict[bytes, bytes | None]]
D, F = stat.S_IFDIR, stat.S_IFREG

#: What is done to the records, and what the check has to say of it.
HOSTILE: dict[str, tuple[Hostile, set[ProblemKind]]] = {
    "dangling": (
        lambda v, n, i: {entry_key(ROOT_INODE, b"ghost"): EntryRecord(99999, F).encode()},
        {ProblemKind.DANGLING_ENTRY},
    ),
    "slash": (
        lambda v, n, i: {entry_key(i("dir"), b"../../etc"): EntryRecord(i("one"), F).encode()},
        {ProblemKind.BAD_NAME, ProblemKind.WRONG_NLINK},
    ),
    "nul": (
        lambda v, n, i: {entry_key(i("dir"), b"a\0b"): EntryRecord(i("one"), F).encode()},
        {ProblemKind.BAD_NAME, ProblemKind.WRONG_NLINK},
    ),
    "dots": (
        lambda v, n, i: {entry_key(i("dir"), b".."): EntryRecord(i("one"), F).encode()},
        {ProblemKind.BAD_NAME, ProblemKind.WRONG_NLINK},
    ),
    "giant name": (
        lambda v, n, i: {entry_key(i("dir"), b"n" * 5000): EntryRecord(i("one"), F).encode()},
        {ProblemKind.BAD_NAME, ProblemKind.WRONG_NLINK},
    ),
    "empty name": (
        lambda v, n, i: {entry_key(i("dir"), b""): EntryRecord(i("one"), F).encode()},
        {ProblemKind.BAD_NAME, ProblemKind.WRONG_NLINK},
    ),
    "circle": (
        lambda v, n, i: {
            entry_key(i("dir"), b"sub"): None,
            entry_key(i("dir/sub/low"), b"up"): EntryRecord(i("dir/sub"), D).encode(),
            **inode(v, n, "dir/sub", parent=i("dir/sub/low")),
            **inode(v, n, "dir/sub/low", nlink=3),
            **inode(v, n, "dir", nlink=2),
        },
        {ProblemKind.CIRCLE},
    ),
    "directory twice": (
        lambda v, n, i: {entry_key(ROOT_INODE, b"again"): EntryRecord(i("dir/sub"), D).encode()},
        {ProblemKind.EXTRA_NAME, ProblemKind.WRONG_NLINK},
    ),
    "root named": (
        lambda v, n, i: {entry_key(i("dir"), b"root"): EntryRecord(ROOT_INODE, D).encode()},
        {ProblemKind.EXTRA_NAME, ProblemKind.WRONG_NLINK},
    ),
    "orphan": (lambda v, n, i: {entry_key(ROOT_INODE, b"one"): None}, {ProblemKind.ORPHAN}),
    "no root": (lambda v, n, i: {inode_key(ROOT_INODE): None}, {ProblemKind.NO_ROOT, ProblemKind.WRONG_COUNTERS}),
    "file as directory": (
        lambda v, n, i: {entry_key(i("one"), b"below"): EntryRecord(i("two"), F).encode()},
        {ProblemKind.NO_DIRECTORY, ProblemKind.WRONG_NLINK},
    ),
    "no such directory": (
        lambda v, n, i: {entry_key(77777, b"below"): EntryRecord(i("two"), F).encode()},
        {ProblemKind.NO_DIRECTORY, ProblemKind.WRONG_NLINK},
    ),
    "wrong type": (
        lambda v, n, i: {entry_key(ROOT_INODE, b"one"): EntryRecord(i("one"), stat.S_IFLNK).encode()},
        {ProblemKind.WRONG_TYPE},
    ),
    "wrong nlink": (lambda v, n, i: inode(v, n, "one", nlink=7), {ProblemKind.WRONG_NLINK}),
    "wrong parent": (lambda v, n, i: inode(v, n, "dir/sub", parent=ROOT_INODE), {ProblemKind.WRONG_PARENT}),
    "past the end": (lambda v, n, i: inode(v, n, "one", size=10), {ProblemKind.BAD_EXTENTS}),
    "overlap": (
        lambda v, n, i: overlapping(v, n),
        {ProblemKind.BAD_EXTENTS, ProblemKind.WRONG_ALLOCATED, ProblemKind.WRONG_COUNTERS},
    ),
    "wrong allocated": (lambda v, n, i: inode(v, n, "one", allocated=1), {ProblemKind.WRONG_ALLOCATED}),
    "stray extents": (lambda v, n, i: {extents_key(88888, 0): b""}, {ProblemKind.STRAY_RECORD}),
    "stray attributes": (
        lambda v, n, i: {xattr_key(88888, b"user.x"): b"", xattr_key(i("one"), b"user.y"): b""},
        {ProblemKind.STRAY_RECORD},
    ),
    "bad inode": (
        lambda v, n, i: {inode_key(i("one")): b"\xc1"},
        {ProblemKind.BAD_RECORD, ProblemKind.DANGLING_ENTRY, ProblemKind.WRONG_COUNTERS},
    ),
    "bad mode": (
        lambda v, n, i: inode(v, n, "one", mode=0o644),
        {ProblemKind.BAD_RECORD, ProblemKind.DANGLING_ENTRY, ProblemKind.WRONG_COUNTERS},
    ),
    "bad entry": (
        lambda v, n, i: {entry_key(ROOT_INODE, b"one"): b"\xc1"},
        {ProblemKind.BAD_RECORD, ProblemKind.ORPHAN},
    ),
    "impossible entry": (
        lambda v, n, i: {entry_key(ROOT_INODE, b"bad"): EntryRecord(-5, F).encode()},
        {ProblemKind.BAD_RECORD},
    ),
    "short keys": (
        lambda v, n, i: {b"d1": b"", b"i": b"", b"q": b"", b"": b""},
        {ProblemKind.BAD_RECORD},
    ),
    "counters": (
        lambda v, n, i: {SUPERBLOCK: Superblock(next_ino=3, used_bytes=0, inode_count=1).encode()},
        {ProblemKind.WRONG_COUNTERS},
    ),
    "no counters": (lambda v, n, i: {SUPERBLOCK: None}, {ProblemKind.WRONG_COUNTERS}),
    "bad counters": (lambda v, n, i: {SUPERBLOCK: b"\xc1"}, {ProblemKind.WRONG_COUNTERS}),
}


def hostile_volume(volumes: Volumes, what: str) -> VersionName:
    """A volume whose head has been tampered with."""
    name = volumes.commit("data", {"one": b"1" * 100, "two": b"2" * 2000, "dir/sub/low/file": b"low"})
    changes = HOSTILE[what][0](volumes, name, lambda path: volumes.ino_of(name, path))
    snapshot = volumes.snapshot(volumes.root.load(name).snapshot)
    return volumes.publish("data", snapshot, changes, name, name)


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_contradictions_are_found(volumes: Volumes, what: str) -> None:
    """Each way in which records can contradict each other is told by its kind, and nothing else is."""
    name = hostile_volume(volumes, what)

    report = look(volumes, CheckDepth.STRUCTURE, volume="data", version="head")

    assert HOSTILE[what][1] == {found.problem for found in report.findings}
    assert {(FindingKind.BAD_STRUCTURE, name.id)} == {(found.kind, found.version) for found in report.findings}
