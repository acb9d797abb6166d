"""Manifests: what they say, what they verify, what they refuse."""

from __future__ import annotations

import json
import pickle

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from stowstore.chunks.block import BlockRef, Codec
from stowstore.index.delta import DeltaRef
from stowstore.index.snapshot import SnapshotRef
from stowstore.index.tree import TreeRef
from stowstore.versions.errors import CorruptManifest, FormatTooNew
from stowstore.versions.manifest import Manifest, Statistics, VersionName, digest_of
from stowstore.versions.ulid import is_ulid, new_ulid, ulid_seconds

BLOCK = BlockRef(b"p" * 16, 7, 100, 200, Codec.ZSTD, b"n" * 32)
MANIFEST = Manifest(
    volume="data",
    snapshot=SnapshotRef(tree=TreeRef(BLOCK, 2), deltas=[DeltaRef((BLOCK,), 3), DeltaRef((BLOCK,), 3, b"12345")]),
    parents=(VersionName("data", new_ulid(), "0" * 64),),
    message="epoch 1 \u2713",
    statistics=Statistics(used_bytes=5, inode_count=6, index_bytes=7),
    inode_offset=1 << 50,
    metadata_store_type="sqlite",
    produced_by={"run": "r1"},
)


def test_manifest_round_trip() -> None:
    """What is written is read, and its digest names it."""
    raw = MANIFEST.encode()

    assert MANIFEST == Manifest.decode(raw, digest=MANIFEST.name.digest)
    assert VersionName("data", MANIFEST.id, digest_of(raw)) == MANIFEST.name
    assert MANIFEST.name == VersionName.from_data(json.loads(json.dumps(MANIFEST.name.to_data())))


def test_changed_manifest_is_told_by_its_digest() -> None:
    """Any other manifest than the one a locator names is refused."""
    with pytest.raises(CorruptManifest, match="digest differs"):
        Manifest.decode(MANIFEST.encode().replace(b"epoch 1", b"epoch 2"), digest=MANIFEST.name.digest)


def test_newer_format_is_refused_in_words() -> None:
    """A version of a newer release is not half understood."""
    with pytest.raises(FormatTooNew, match="format 2, this release reads up to 1"):
        Manifest.decode(MANIFEST.encode().replace(b'"format":1', b'"format":2'))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", "../x"),
        ("id", 5),
        ("volume", None),
        ("created", "yesterday"),
        ("used_bytes", -1),
        ("inode_count", True),
        ("parents", {}),
        ("parents", [{"volume": "v"}]),
        ("snapshot", {"root": "00"}),
        ("message", "x" * 70_000),
    ],
)
def test_hostile_manifest(name: str, value: object) -> None:
    """A manifest with a field that cannot be is refused, whatever else it says."""
    data = {**json.loads(MANIFEST.encode()), name: value}

    with pytest.raises(CorruptManifest):
        Manifest.decode(json.dumps(data).encode())


@given(raw=st.binary(max_size=200))
def test_garbage_is_no_manifest(raw: bytes) -> None:
    """Bytes that are no manifest are an error of ours, never another one."""
    with pytest.raises(CorruptManifest):
        Manifest.decode(raw)


def test_ulids_ascend_and_tell_their_time() -> None:
    """Names made one after the other sort so, even within a millisecond."""
    made = [new_ulid() for _ in range(1000)]

    assert sorted(made) == made
    assert all(map(is_ulid, made))
    assert abs(ulid_seconds(made[0]) - MANIFEST.created.timestamp()) < 3600
    assert not is_ulid("../../../../etc/passwd0000")


def test_what_a_later_release_adds_stays_part_of_the_name() -> None:
    """A manifest with keys that are not known here is named by the text it was read from; a changed one by its own."""
    raw = MANIFEST.encode().replace(b'"format":1', b'"format":1,"hint":"of a later release"')
    found = Manifest.decode(raw)

    assert MANIFEST == found
    assert raw == found.encode()
    assert digest_of(raw) == found.name.digest == pickle.loads(pickle.dumps(found)).name.digest
    assert evolve(MANIFEST, message="other").name == evolve(found, message="other").name
