"""What is written is what ``docs/format.md`` says: a reader made from it alone reads all of it."""

from __future__ import annotations

import hashlib
import json
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datastore import DataReference, MemoryStore
from datastore.protocol import Store
from stowstore.chunks.block import PackKind
from stowstore.chunks.encryption import Encryption
from stowstore.versions.lease import Lease
from stowstore.versions.manifest import VersionName
from stowstore.versions.merging import Conflicts
from stowstore.versions.options import CommitOptions, SessionOptions, chunk_store
from stowstore.versions.rewriting import rewrite_packs
from stowstore.versions.root import Root, RootFormat
from stowstore.versions.session import Session
from stowstore.versions.successors import merge_version, restore_version
from tests.format.reader import Damaged, NewerFormat, Reader, Version
from tests.golden.unpacking import unpack
from tests.volumes_faults.programs import ROOT_USER as _ROOT
from tests.volumes_faults.programs import Tree, perform, program, shown, tree_of, write_file

_ARCHIVES = {
    "plain": Path(__file__).parent.parent / "golden" / "v1.tar.xz",
    "sealed": Path(__file__).parent.parent / "golden" / "v1.tar.xz",
    "tree": Path(__file__).parent / "v1" / "tree.tar.xz",
}

#: The passphrase of the golden root that has one.
_PASSPHRASE = "the golden key of version 1"

_KEY = bytes(range(32))


def _of_directory(directory: Path) -> Callable[[str], bytes]:
    return lambda name: (directory / name).read_bytes()


def _of_store(root: Root) -> Callable[[str], bytes]:
    return lambda name: root.store.read_bytes(root.base.join(*name.split("/")))


def _described(reader: Reader, version: Version) -> dict[str, Any]:
    """What the golden files say of each path."""
    found: dict[str, Any] = {}
    for path, ino, node in reader.walk(version):
        about: dict[str, Any] = {
            "mode": oct(node.mode),
            "nlink": node.nlink,
            "owner": [node.uid, node.gid],
            "size": node.size,
            "blocks": -(-node.allocated // 512),
            "mtime_ns": node.mtime_ns,
        }
        if stat.S_ISREG(node.mode):
            first = 0 if node.size <= 1 << 30 else node.size - 4096
            about["sha256"] = hashlib.sha256(reader.read(version, ino, first, node.size - first)).hexdigest()
            assert node.allocated == sum(extent.length for extent in reader.extents(version, ino))
        elif stat.S_ISLNK(node.mode):
            about["target"] = node.target.hex()
        elif stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
            about["rdev"] = node.rdev
        xattrs = reader.xattrs(version, ino)
        assert bool(xattrs) == node.xattrs
        if xattrs:
            about["xattrs"] = {name.decode(): value.hex() for name, value in sorted(xattrs.items())}
        found[path.hex()] = about
    return found


@pytest.mark.parametrize("name", _ARCHIVES)
def test_golden_roots(name: str, tmp_path: Path) -> None:
    """Every version of every root that is kept is read, with all that was known of its files."""
    unpack(_ARCHIVES[name], tmp_path)
    expected = json.loads((tmp_path / "expected.json").read_text())[name]
    reader = Reader(_of_directory(tmp_path / name), passphrase=_PASSPHRASE)
    for identity, about in expected.items():
        version = reader.version(about["volume"], identity)
        assert version.manifest["message"] == about["message"]
        assert _described(reader, version) == about["files"]
        _, used, count, _, _ = reader.superblock(version)
        assert (used, count) == (version.manifest["used_bytes"], version.manifest["inode_count"])
    # Names lead to the same versions, and histories can be followed to their beginnings.
    waiting, seen = [reader.head("golden")], set()
    while waiting:
        found = waiting.pop()
        seen.add(found.manifest["id"])
        waiting += reader.parents(found)
    assert seen >= set(expected)
    if name == "tree":
        assert reader.lease("golden")["base"] == reader.head("golden").manifest["id"]
    else:
        assert reader.tag("golden", "everything").manifest["message"] == "everything"


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "sealed"])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_written(seed: int, encrypted: bool) -> None:
    """Random programs, through commits, a fork, a merge, a rewriting into a tree and a restore, are read."""
    encryption = Encryption.create(_KEY)[0].to_data() if encrypted else None
    store: Store = MemoryStore()
    root = Root.create(store, DataReference("mem://main/some/root"), RootFormat(encryption=encryption))
    options = SessionOptions(key=_KEY if encrypted else None)
    wanted: dict[VersionName, Tree] = {}

    def keep(name: VersionName) -> VersionName:
        with Session.read(root, name, options) as session:
            wanted[name] = tree_of(session.files)
        return name

    with Session.write(root, "data", options) as session:
        for step in program(5000 + seed, 60):
            perform(session.files, step, commit=lambda: keep(session.commit().name))
        write_file(session.files, "pieces", b"")
        ino = session.files.lookup(1, b"pieces", _ROOT).ino
        handle = session.files.open(ino, 2, _ROOT)
        for number in range(12):
            session.files.write(handle, random.Random(number).randrange(20 << 20), b"piece %d" % number * 50, _ROOT)
        session.files.release(handle)
        first = keep(session.commit(CommitOptions(message="ü\u2028 and more")).name)
        session.branch("fork")
        write_file(session.files, "ours", b"ours")
        keep(session.commit().name)
    with Session.write(root, "fork", options) as fork:
        write_file(fork.files, "theirs", random.Random(seed).randbytes(100_000))
        theirs = keep(fork.commit().name)
    with chunk_store(root, options) as chunks:
        keep(merge_version(root, chunks, "data", theirs, conflicts=Conflicts.THEIRS).version)
        lease = Lease(store, root.lease_reference("data"))
        packs = [(kind, entry.pack) for kind in PackKind for entry in chunks.list_packs(kind)]
        keep(rewrite_packs(root, chunks, "data", lease, packs=packs))
        lease.release()
        keep(restore_version(root, chunks, "data", first))

    reader = Reader(_of_store(root), key=_KEY)
    assert len(wanted) >= 5
    for name, tree in wanted.items():
        version = reader.version(name.volume, name.id, name.digest)
        found: Tree = {}
        for path, ino, node in reader.walk(version):
            if path != b"/":
                content = None if stat.S_ISDIR(node.mode) else reader.read(version, ino, 0, node.size)
                found[path[1:].decode()] = content
        # Shown first: contents are large.
        assert shown(found) == shown(tree)
        assert found == tree, f"{name} differs somewhere"
    assert reader.head("data").records.keys() == reader.version(first.volume, first.id).records.keys()


def test_the_reader_is_no_pushover(tmp_path: Path) -> None:
    """What makes the tests above mean something: it notices any changed byte of what it reads."""
    unpack(_ARCHIVES["tree"], tmp_path)
    directory = tmp_path / "tree"
    chance = random.Random(7)
    for path in sorted(path for part in ("packs", "index", "versions") for path in (directory / part).rglob("*")):
        if path.is_dir():
            continue
        whole = path.read_bytes()
        for _ in range(4):
            at = chance.randrange(len(whole))
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :])
            with pytest.raises((Damaged, NewerFormat, ValueError, KeyError, LookupError)):
                _read_all(Reader(_of_directory(directory)))
        path.write_bytes(whole)
    _read_all(Reader(_of_directory(directory)))


def _read_all(reader: Reader) -> None:
    waiting = [reader.head("golden")]
    while waiting:
        version = waiting.pop()
        for _, ino, node in reader.walk(version):
            if stat.S_ISREG(node.mode):
                reader.read(version, ino, 0, node.size)
        waiting += reader.parents(version)


def test_sealed_roots_need_their_key(tmp_path: Path) -> None:
    """The check value tells a wrong passphrase and a wrong key."""
    unpack(_ARCHIVES["sealed"], tmp_path)
    with pytest.raises(Damaged, match="wrong"):
        Reader(_of_directory(tmp_path / "sealed"), passphrase="another")
