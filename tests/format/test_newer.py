"""Whatever a newer release may write is refused in words: what it is, what this release reads, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from datastore import DataReference, MemoryStore
from datastore.errors import StoreError
from stowstore.chunks.block import PackKind
from stowstore.chunks.encryption import Encryption
from stowstore.index.node import CorruptNode
from stowstore.index.snapshot import SnapshotRef
from stowstore.index.tree import TreeRef
from stowstore.namespace.permissions import ROOT
from stowstore.versions.check import check
from stowstore.versions.errors import FormatTooNew
from stowstore.versions.findings import CheckDepth, FindingKind
from stowstore.versions.manifest import Manifest
from stowstore.versions.options import SessionOptions, chunk_store
from stowstore.versions.root import Root, RootFormat
from stowstore.versions.session import Session
from tests.volumes_faults.programs import write_file

BASE = DataReference("mem://main/root")

_KEY = bytes(range(32))


@pytest.fixture
def root() -> Root:
    """A root with one version of one file."""
    return _made()


def _made(encryption: dict[str, Any] | None = None) -> Root:
    root = Root.create(MemoryStore(), BASE, RootFormat(encryption=encryption))
    with Session.write(root, "data", SessionOptions(key=_KEY if encryption else None)) as session:
        write_file(session.files, "file", b"content")
        session.commit()
    return root


def _rewrite(root: Root, reference: DataReference, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(root.store.read_bytes(reference))
    change(data)
    root.store.write_bytes(reference, json.dumps(data, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("version", 2, r"format 2, this release reads up to 1.*newer release"),
        ("hash", "blake4", r"uses blake4 and zstd, which this release does not know"),
        ("compression", "brotli", r"uses blake3 and brotli, which this release does not know"),
    ],
)
def test_root(root: Root, name: str, value: object, said: str) -> None:
    """A root of another format, hash or compression is not opened."""
    _rewrite(root, BASE.join("format.json"), lambda data: data.update({name: value}))
    with pytest.raises(FormatTooNew, match=said):
        Root.open(root.store, BASE)


def test_manifest(root: Root) -> None:
    """A manifest may have other fields then, so its format is looked at first; a check tells it as damage."""
    version = root.head("data")
    reference = BASE.join("versions", "data", version.id)
    _rewrite(root, reference, lambda data: data.update({"format": 2, "snapshot": "of another form"}))
    with pytest.raises(FormatTooNew, match=r"format 2, this release reads up to 1.*newer release"):
        root.manifest("data", version.id)


@pytest.mark.parametrize("items", [[2, 0, [b"s"], [b""]], [2, 0, [b"s"], [b""], "more"], [2, {"other": "order"}]])
def test_index_node(root: Root, items: list[Any]) -> None:
    """A node of another format is refused by its number, whatever else is in it."""
    with chunk_store(root, SessionOptions()) as chunks:
        writer = chunks.index_writer()
        node = writer.add(msgspec.msgpack.encode(items))
        writer.flush()
        writer.close()
        made = root.write_manifest(Manifest(volume="data", snapshot=SnapshotRef(tree=TreeRef(node, 0))))
        root.set_head("data", made, root.head("data"))
        report = check(root, chunks, "data", "head")
    with (
        Session.read(root, made) as session,
        pytest.raises(CorruptNode, match=r"index node has format 2, this release reads 1.*newer release"),
    ):
        session.files.lookup(1, b"file", ROOT)
    assert any("format 2" in finding.message for finding in report.findings)


def test_pack(root: Root) -> None:
    """A table of another format is not used; who reads whole blocks needs none, and a check says why it is bad."""
    with chunk_store(root, SessionOptions()) as chunks:
        (entry,) = chunks.list_packs(PackKind.DATA)
        reference = chunks.pack_reference(PackKind.DATA, entry.pack)
        raw = root.store.read_bytes(reference)
        length = int.from_bytes(raw[-36:-32], "big")
        trailer = raw[-48:-40] + (2).to_bytes(2, "big") + raw[-38:-32]
        digest = blake3(raw[-48 - length : -48] + trailer).digest()
        root.store.write_bytes(reference, raw[:-48] + trailer + digest)
        with pytest.raises(StoreError, match=r"has format 2, this release reads 1.*newer release"):
            chunks.pack_table(PackKind.DATA, entry.pack)
        (finding,) = check(root, chunks, depth=CheckDepth.DATA).findings
        assert (finding.kind, "format 2" in finding.message) == (FindingKind.BAD_TABLE, True)
    with Session.read(root, root.head("data")) as session:
        found = session.files.lookup(1, b"file", ROOT)
        handle = session.files.open(found.ino, 0, ROOT)
        assert session.files.read(handle, 0, 100) == b"content"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cipher": "ML-KEM"}, r"encrypted with 'ML-KEM' and 'HKDF-SHA256', this release knows AES-256-GCM"),
        ({"derivation": "HKDF-SHA3"}, r"'AES-256-GCM' and 'HKDF-SHA3', this release knows AES-256-GCM and HKDF-SHA256"),
        ({"passphrase": {"kdf": "argon2id"}}, r"stretched by 'argon2id', this release knows scrypt"),
    ],
)
def test_encryption(change: dict[str, Any], said: str) -> None:
    """Another cipher, derivation or stretching is named, and the release that reads it."""
    root = _made(Encryption.create(_KEY)[0].to_data())
    _rewrite(root, BASE.join("format.json"), lambda data: data["encryption"].update(change))
    again = Root.open(root.store, BASE)
    with pytest.raises(StoreError, match=f"{said}.*newer release"):
        Session.read(again, again.head("data"), SessionOptions(key=_KEY))


def test_locators_and_references_have_no_format_of_their_own(root: Root, tmp_path: Path) -> None:
    """They name a manifest by its digest, and it is the manifest that says which format it has."""
    _rewrite(root, BASE.join("refs", "data", "head"), lambda data: data.update({"more": "of a newer release"}))
    assert root.head("data").volume == "data"
