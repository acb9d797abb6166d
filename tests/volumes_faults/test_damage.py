"""Damaged and hostile volumes: errors that say what is lost, never wrong bytes, never a hang."""

from __future__ import annotations

import io
import itertools
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random
from typing import Any

import pytest
import zstandard

from datastore import DataReference, MemoryStore
from datastore.errors import StoreError
from stowstore.chunks.block import BLOCK_BYTES, BlockRef, Codec, PackKind
from stowstore.chunks.store import ChunkStore
from stowstore.index.keys import ROOT_INODE, SUPERBLOCK, entry_key, inode_key, xattr_key
from stowstore.index.node import encode_node
from stowstore.index.records import EntryRecord, Extent, InodeRecord, Superblock, pack_extents
from stowstore.index.snapshot import Snapshot, SnapshotRef, commit_changes
from stowstore.index.tree import TreeRef, build_tree
from stowstore.transfer import export_directory, export_tar
from stowstore.versions.changes import path_changes
from stowstore.versions.check import check
from stowstore.versions.findings import CheckDepth
from stowstore.versions.manifest import Manifest
from stowstore.versions.merging import Conflicts, merge_snapshots
from stowstore.versions.repair import repair
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from tests.volumes_faults.programs import ROOT_USER, Tree, read_file, tree_of, write_file

BASE = DataReference("mem://main/root")
VOLUME = "data"

#: What a volume consists of, as patterns of keys, and what an error says of the loss of one.
_KINDS: dict[str, tuple[str, Callable[[str], str]]] = {
    "data pack": ("root/packs/*", lambda key: key.rpartition("/")[2]),
    "index pack": ("root/index/*", lambda key: key.rpartition("/")[2]),
    "manifest": ("root/versions/*", lambda key: VOLUME),
    "head": ("root/refs/*", lambda key: VOLUME),
    "format": ("root/format.json", lambda key: "format.json"),
}
_DIRECTORY = stat.S_IFDIR | 0o755
_FILE = stat.S_IFREG | 0o644


@pytest.fixture(scope="module")
def pristine() -> tuple[dict[str, bytes], Tree]:
    """The objects of a volume of two commits, and what it holds."""
    store = MemoryStore()
    root = Root.open_or_create(store, BASE)
    random = Random(7)
    with Session.write(root, VOLUME) as session:
        for number in range(8):
            write_file(session.files, f"f{number}", random.randbytes(40_000) if number % 2 else b"prose " * 9_000)
        session.commit()
        write_file(session.files, "later", random.randbytes(5_000))
        session.commit()
        expected = tree_of(session.files)
    return {entry.reference.key: store.read_bytes(entry.reference) for entry in store.walk(BASE)}, expected


def _store_of(objects: Mapping[str, bytes]) -> MemoryStore:
    store = MemoryStore()
    for key, content in objects.items():
        store.write_bytes(DataReference(f"mem://main/{key}"), content)
    return store


def _read(store: MemoryStore) -> Tree:
    root = Root.open(store, BASE)
    with Session.read(root, root.head(VOLUME)) as reader:
        return tree_of(reader.files)


def _live_keys(objects: Mapping[str, bytes], pattern: str) -> list[str]:
    """The objects of a kind that the newest version needs."""
    keys = sorted(key for key in objects if fnmatchcase(key, pattern))
    if pattern.startswith("root/versions"):
        head = json.loads(objects[f"root/refs/{VOLUME}/head"])["id"]
        return [key for key in keys if key.endswith(head)]
    return keys


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: None, id="deleted"),
        pytest.param(lambda content: b"", id="emptied"),
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(lambda content: bytes(len(content)), id="zeroed"),
        pytest.param(lambda content: Random(1).randbytes(len(content)), id="overwritten"),
        pytest.param(lambda content: b"[" * (1 << 18), id="nested"),
        pytest.param(lambda content: content * (1 + (2 << 20) // len(content)), id="grown"),
    ],
)
def test_damaged_object_is_named(
    pristine: tuple[dict[str, bytes], Tree], kind: str, damage: Callable[[bytes], bytes | None]
) -> None:
    """What cannot be read any more raises an error that says which object it was."""
    objects, expected = pristine
    pattern, name = _KINDS[kind]
    for key in _live_keys(objects, pattern):
        changed = dict(objects)
        content = damage(changed.pop(key))
        if content is not None:
            changed[key] = content
        try:
            found = _read(_store_of(changed))
        except StoreError as error:
            said = f"{error} {error.reference}"
        else:
            # Bytes behind a pack's blocks hurt nobody: blocks are found by the index.
            assert content is not None
            assert kind.endswith("pack")
            assert content.startswith(objects[key])
            assert found == expected
            continue
        assert name(key) in said or key in said, f"the error does not name {key}"


@pytest.mark.parametrize("kind", _KINDS)
def test_flipped_bits_never_give_wrong_bytes(pristine: tuple[dict[str, bytes], Tree], kind: str) -> None:
    """Wherever a bit flips, content is what was written, or there is an error of the taxonomy."""
    objects, expected = pristine
    random = Random(kind)
    refused = 0
    for key in _live_keys(objects, _KINDS[kind][0]):
        size = len(objects[key])
        for at in random.sample(range(size), min(size, 60 if size < 5000 else 25)):
            damaged = bytearray(objects[key])
            damaged[at] ^= 1 << random.randrange(8)
            try:
                assert _read(_store_of({**objects, key: bytes(damaged)})) == expected
            except StoreError:
                refused += 1
    assert refused


@pytest.mark.parametrize("kind", ["data pack", "index pack", "manifest"])
def test_exchanged_objects_are_noticed(pristine: tuple[dict[str, bytes], Tree], kind: str) -> None:
    """An object in another's place is as good as none."""
    objects, _ = pristine
    keys = sorted(key for key in objects if fnmatchcase(key, _KINDS[kind][0]))
    assert len(keys) > 1
    turned = {key: objects[other] for key, other in zip(keys, keys[1:] + keys[:1], strict=True)}
    with pytest.raises(StoreError):
        _read(_store_of({**objects, **turned}))


_HOSTILE: list[object] = [
    None,
    True,
    -1,
    1 << 70,
    1e308,
    "x",
    "",
    [],
    {},
    [[]],
    {"id": 1},
    "é" * 300,
    "../../x",
    "a\0b",
]


@pytest.mark.parametrize("kind", ["manifest", "head", "format"])
@pytest.mark.parametrize("value", _HOSTILE, ids=repr)
def test_hostile_descriptions_are_refused(pristine: tuple[dict[str, bytes], Tree], kind: str, value: object) -> None:
    """Any field may hold anything: the answer is an error of the taxonomy, or the content as it was written."""
    objects, expected = pristine
    for key in _live_keys(objects, _KINDS[kind][0]):
        fields = json.loads(objects[key])
        for field in fields:
            raw = json.dumps({**fields, field: value}).encode()
            changed = {**objects, key: raw}
            if kind == "manifest":
                _point_at(changed, raw)
            try:
                assert _read(_store_of(changed)) == expected
            except StoreError:
                pass
        for raw in (b"\xff\xfe", b"null", b"7", b'"x"', b"[]", b"NaN", json.dumps(value).encode()):
            with pytest.raises(StoreError):
                _read(_store_of({**objects, key: raw}))


def _point_at(objects: dict[str, bytes], manifest: bytes) -> None:
    """Makes a head that vouches for a manifest."""
    import hashlib

    key = f"root/refs/{VOLUME}/head"
    objects[key] = json.dumps({**json.loads(objects[key]), "digest": hashlib.sha256(manifest).hexdigest()}).encode()


class _Forge:
    """Publishes whatever records it is given."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.root = Root.open_or_create(self.store, BASE)
        self.chunks = ChunkStore(self.store, BASE, workers=1, max_fetches=2)

    def block(self, data: bytes) -> BlockRef:
        writer = self.chunks.writer()
        pending = writer.add(data)
        writer.flush()
        writer.close()
        return pending.ref

    def publish(self, records: Mapping[bytes, bytes]) -> Session:
        """A reading session over records, to which an innocent root is added."""
        base = {
            SUPERBLOCK: Superblock(next_ino=100, inode_count=9).encode(),
            inode_key(ROOT_INODE): _inode(_DIRECTORY, nlink=2, parent=ROOT_INODE),
        }
        index = self.chunks.index_writer()
        tree = build_tree(sorted({**base, **records}.items()), index)
        index.flush()
        return self.publish_tree(tree)

    def publish_tree(self, tree: TreeRef) -> Session:
        manifest = Manifest(volume=VOLUME, snapshot=SnapshotRef(tree=tree))
        self.root.set_head(VOLUME, self.root.write_manifest(manifest), None)
        return Session.read(self.root, manifest.name)


@pytest.fixture
def forge() -> Iterator[_Forge]:
    made = _Forge()
    yield made
    made.chunks.close()


def _inode(mode: int, **more: Any) -> bytes:
    values: dict[str, Any] = {"nlink": 1, "size": 0, "parent": ROOT_INODE, **more}
    return InodeRecord(mode=mode, uid=0, gid=0, atime_ns=0, mtime_ns=0, ctime_ns=0, btime_ns=0, **values).encode()


_REFUSED = (StoreError, OSError)


@pytest.mark.parametrize("name", [b"a/b", b"/", b"a\0b", b"\0", b".", b"..", b"", b"x" * 256, b"../../etc/passwd"])
def test_hostile_names_are_refused(forge: _Forge, name: bytes) -> None:
    """A name that no file system could hold never comes out of a listing: whoever exports it would write elsewhere."""
    records = {entry_key(ROOT_INODE, name): EntryRecord(5, stat.S_IFREG).encode(), inode_key(5): _inode(_FILE)}
    with forge.publish(records) as session:
        files = session.files
        handle = files.opendir(ROOT_INODE, ROOT_USER)
        with pytest.raises(_REFUSED):
            files.readdir(handle, 0, 100)


@pytest.mark.parametrize(
    ("cycle", "parents"),
    [
        ([(1, b"a", 2), (2, b"b", 3), (3, b"c", 2)], {2: 1, 3: 2}),
        ([(1, b"a", 2), (2, b"b", 3), (3, b"c", 2)], {2: 3, 3: 2}),
        ([(1, b"a", 2), (2, b"b", 2)], {2: 2}),
        ([(1, b"a", 1)], {}),
        ([(1, b"a", 2), (2, b"b", 1)], {2: 1}),
        ([(1, b"a", 2), (1, b"b", 2), (2, b"c", 3), (3, b"d", 1)], {2: 1, 3: 2}),
    ],
    ids=["back", "closed", "itself", "root", "to-root", "twice"],
)
def test_cycles_end(forge: _Forge, cycle: list[tuple[int, bytes, int]], parents: dict[int, int]) -> None:
    """A directory is entered from where it lies and from nowhere else, so no path is endless."""
    records = {entry_key(parent, name): EntryRecord(ino, stat.S_IFDIR).encode() for parent, name, ino in cycle}
    records |= {inode_key(ino): _inode(_DIRECTORY, nlink=2, parent=parent) for ino, parent in parents.items()}
    names = {(parent, name) for parent, name, _ in cycle}
    with forge.publish(records) as session:
        waiting = [ROOT_INODE]
        visited = refused = 0
        while waiting:
            ino = waiting.pop()
            visited += 1
            assert visited < 50, "the walk does not end"
            for parent, name in names:
                if parent == ino:
                    try:
                        waiting.append(session.files.lookup(ino, name, ROOT_USER).ino)
                    except _REFUSED:
                        refused += 1
        assert refused


@pytest.mark.parametrize(
    ("cycle", "parents"),
    [
        ([(1, b"a", 2), (2, b"b", 3), (3, b"c", 2)], {2: 1, 3: 2}),
        ([(1, b"a", 2), (2, b"b", 3), (3, b"c", 2)], {2: 3, 3: 2}),
        ([(1, b"a", 2), (2, b"b", 2)], {2: 2}),
        ([(2, b"b", 3), (3, b"c", 2)], {2: 3, 3: 2}),
        ([(1, b"a", 1)], {}),
        ([(1, b"a", 2), (2, b"b", 1)], {2: 1}),
    ],
    ids=["back", "closed", "itself", "apart", "root", "to-root"],
)
def test_whatever_walks_a_cycle_ends(
    forge: _Forge, tmp_path: Path, cycle: list[tuple[int, bytes, int]], parents: dict[int, int]
) -> None:
    """Checks, repairs, exports, comparisons and merges of an index that leads in a circle end."""
    records = {entry_key(parent, name): EntryRecord(ino, stat.S_IFDIR).encode() for parent, name, ino in cycle}
    records |= {inode_key(ino): _inode(_DIRECTORY, nlink=2, parent=parent) for ino, parent in parents.items()}
    with forge.publish(records) as session:
        report = check(forge.root, forge.chunks, depth=CheckDepth.DATA)
        assert report.findings
        if any(parent == ROOT_INODE for parent, _, _ in cycle):
            with pytest.raises(_REFUSED):
                export_directory(session.files, tmp_path / "out")
            with pytest.raises(_REFUSED):
                export_tar(session.files, io.BytesIO())
        hostile = session.files.snapshot
    index = forge.chunks.index_writer()
    touched = {
        inode_key(ino): _inode(_DIRECTORY | 0o022, nlink=3, parent=parent) for ino, parent in parents.items()
    } | {entry_key(3, b"new"): EntryRecord(9, stat.S_IFDIR).encode(), inode_key(9): _inode(_DIRECTORY, parent=3)}
    other = hostile.with_changes(commit_changes(hostile, touched, index), touched)
    index.flush()
    empty = Snapshot(SnapshotRef(), hostile.cache)
    for old, new in ((empty, hostile), (hostile, empty), (hostile, other), (other, hostile)):
        with suppress(*_REFUSED):
            assert len(list(path_changes(old, new))) < 50
    for sides in itertools.permutations((empty, hostile, other)):
        with suppress(*_REFUSED):
            merge_snapshots(*sides, Conflicts.THEIRS)
    repair(forge.root, forge.chunks, VOLUME, dry_run=False)
    assert check(forge.root, forge.chunks, VOLUME, "head", depth=CheckDepth.DATA).is_whole


def test_entries_that_name_nothing(forge: _Forge) -> None:
    """A name whose inode is missing, or of another kind, is an error and not an empty file."""
    records = {
        entry_key(1, b"nothing"): EntryRecord(7, stat.S_IFREG).encode(),
        entry_key(1, b"number"): EntryRecord(1 << 63, stat.S_IFREG).encode(),
        entry_key(1, b"garbage"): b"\xc1",
        entry_key(1, b"broken"): EntryRecord(8, stat.S_IFREG).encode(),
        inode_key(8): b"\x93\x01\x02\x03",
    }
    with forge.publish(records) as session:
        for name in (b"nothing", b"number", b"garbage", b"broken"):
            with pytest.raises(_REFUSED):
                session.files.lookup(1, name, ROOT_USER)


@pytest.mark.parametrize(
    "more",
    [
        {"size": 1 << 63},
        {"size": (1 << 64) - 1},
        {"nlink": 1 << 63},
        {"allocated": 1 << 63},
        {"uid": 1 << 40},
        {"mtime_ns": 1 << 63},
        {"target": b"x" * 5000},
        {"extents": b"x" * 77},
        {"extents": b"x" * 3},
        {"extents": b"\xff" * 77},
    ],
    ids=str,
)
def test_impossible_inodes_are_refused(forge: _Forge, more: dict[str, Any]) -> None:
    """Sizes, links and extents that cannot be are never acted on."""
    values = {"mode": _FILE, "uid": 0, "gid": 0, "nlink": 1, "size": 9, "parent": 1, **more}
    times = {f"{letter}time_ns": values.pop(f"{letter}time_ns", 0) for letter in "amcb"}
    records = {
        entry_key(1, b"f"): EntryRecord(5, stat.S_IFREG).encode(),
        inode_key(5): InodeRecord(**values, **times).encode(),
    }
    with forge.publish(records) as session, pytest.raises(_REFUSED):
        read_file(session.files, "f")


@pytest.mark.parametrize("claimed", [BLOCK_BYTES, 100, 0xFFFFFFFF])
def test_decompression_bombs_are_refused(forge: _Forge, claimed: int) -> None:
    """A block gives no more than its reference says, and no reference says more than a block may hold."""
    bomb = zstandard.compress(bytes(200 << 20))
    noise = Random(1).randbytes(1 << 20)
    carrier = forge.block(noise + bomb)
    assert carrier.codec is Codec.RAW
    ref = BlockRef(carrier.pack, carrier.offset + len(noise), len(bomb), claimed, Codec.ZSTD, carrier.name)
    size = min(claimed, BLOCK_BYTES)
    records = {
        entry_key(1, b"f"): EntryRecord(5, stat.S_IFREG).encode(),
        inode_key(5): _inode(_FILE, size=size, allocated=size, extents=pack_extents([Extent(0, size, 0, ref)])),
    }
    with forge.publish(records) as session:
        handle = session.files.open(5, os.O_RDONLY, ROOT_USER)
        with pytest.raises(_REFUSED):
            session.files.read(handle, 0, size)


def test_nodes_that_lead_back_or_nowhere(forge: _Forge) -> None:
    """Levels fall by one with every step, so a chain of nodes ends; keys ascend; children are there."""
    index = forge.chunks.index_writer()
    leaf = index.add(encode_node(0, [inode_key(1)], [_inode(_DIRECTORY, nlink=2)]))
    nodes = {
        "a leaf among inner nodes": (index.add(encode_node(2, [b"a"], [leaf.pack_bytes()])), 2),
        "keys that fall": (index.add(encode_node(0, [b"i2", b"i1"], [b"", b""])), 0),
        "no keys": (index.add(encode_node(0, [], [])), 0),
        "a short reference": (index.add(encode_node(1, [b"a"], [b"short"])), 1),
        "another level": (leaf, 3),
        "no node": (index.add(b"\xc1\xc1"), 0),
        "nested": (index.add(b"\x91" * 100_000), 0),
        "a length that is none": (index.add(b"\x94\x01\x00\xdd\xff\xff\xff\xff"), 0),
    }
    index.flush()
    gone = BlockRef(os.urandom(16), 0, 10, 10, Codec.RAW, os.urandom(32))
    nodes["nothing"] = gone, 0
    for what, (root, depth) in nodes.items():
        snapshot = SnapshotRef(tree=TreeRef(root, depth))
        manifest = Manifest(volume=VOLUME, snapshot=snapshot)
        with Session.read(forge.root, forge.root.write_manifest(manifest)) as session:
            try:
                found = session.files.getattr(ROOT_INODE)
            except StoreError:
                continue
            pytest.fail(f"{what} was taken for an index: {found}")


def test_segments_of_something_else(forge: _Forge) -> None:
    """A delta segment that is none is refused when it is first needed."""
    index = forge.chunks.index_writer()
    snapshot = Snapshot(SnapshotRef(), None)  # type: ignore[arg-type]
    ref = commit_changes(snapshot, {b"k": b"v"}, index)
    index.flush()
    data = ref.to_data()
    block = forge.block(Random(3).randbytes(500))
    for blocks in (
        [block.pack_bytes().hex()],
        data["deltas"][0]["blocks"] * 2,
        [],
    ):
        made = SnapshotRef.from_data({**data, "deltas": [{"records": 1, "blocks": blocks}]})
        manifest = Manifest(volume=VOLUME, snapshot=made)
        with Session.read(forge.root, forge.root.write_manifest(manifest)) as session, pytest.raises(_REFUSED):
            session.files.getattr(ROOT_INODE)


def test_hostile_attributes(forge: _Forge) -> None:
    """An attribute without a name is not shown."""
    records = {
        entry_key(1, b"f"): EntryRecord(5, stat.S_IFREG).encode(),
        inode_key(5): _inode(_FILE, xattrs=True),
        xattr_key(5, b""): b"x",
    }
    with forge.publish(records) as session, pytest.raises(_REFUSED):
        session.files.getxattr(5, b"", ROOT_USER)


def test_reading_by_kind(forge: _Forge) -> None:
    """An index block is no file block, even when a file says so: packs of both kinds have places of their own."""
    index = forge.chunks.index_writer()
    ref = index.add(b"x" * 100)
    index.flush()
    records = {inode_key(5): _inode(_FILE, size=100, allocated=100, extents=pack_extents([Extent(0, 100, 0, ref)]))}
    with forge.publish(records) as session:
        handle = session.files.open(5, os.O_RDONLY, ROOT_USER)
        with pytest.raises(StoreError, match=ref.pack.hex()):
            session.files.read(handle, 0, 100)
    assert forge.chunks.pack_reference(PackKind.INDEX, ref.pack) != forge.chunks.pack_reference(PackKind.DATA, ref.pack)
