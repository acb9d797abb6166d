"""Manifests: what is written is read, and nothing in one is believed before it was checked."""

from __future__ import annotations

import hashlib
import json
import zlib
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from stowstore.records.errors import InvalidRecord, RecordDamaged, RecordFormatTooNew
from stowstore.records.manifest import cut, decode_manifest, decode_part, encode_manifest, encode_part, with_files
from stowstore.records.model import Edge, FileKind, Manifest, RecordFile, RecordHeader, Retired
from stowstore.records.paths import check_link, check_path

HEADER = RecordHeader(uuid="abcDEF123456", identity_key="i" * 24, predicate_key="p" * 32, parent="root")
FILE = RecordFile(path="a/b.txt", size=3, sha256="0" * 64, mode=0o755, key="records/abcDEF123456/f/a/b.txt")
MANIFEST = Manifest(
    header=HEADER,
    generation=3,
    commit="me",
    committed_at_ns=5,
    updated_at="2026-01-01",
    place="x/y",
    model={"label": "best", "config": {"lr": 0.1}},
    edges=(Edge("Interface.Interface.using", "abcDEF123456", "other", "uses"),),
    files=(
        FILE,
        RecordFile(path="bytes-\udcff", size=0, sha256="1" * 64, key="records/abcDEF123456/v/x"),
        RecordFile(path="empty", kind=FileKind.DIRECTORY, mode=0o755),
        RecordFile(path="link", kind=FileKind.LINK, target="a/b.txt"),
    ),
    file_count=4,
    total_bytes=3,
    retired=(Retired("records/abcDEF123456/v/y", 7),),
)

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=40).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 256
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


def test_a_manifest_is_read_as_it_was_written() -> None:
    """Modes, links, empty directories and names that are no UTF-8 included."""
    assert decode_manifest(encode_manifest(MANIFEST), "abcDEF123456") == evolve(
        MANIFEST, files=tuple(f._replace(mode=0o644) if f.kind is FileKind.LINK else f for f in MANIFEST.files)
    )


@given(st.sets(PATHS, max_size=600))
def test_parts_hold_what_they_were_cut_from(paths: set[str]) -> None:
    """Cutting a list of files and joining the parts gives the list."""
    files = [FILE._replace(path=path) for path in sorted(paths)]
    parts = [encode_part(piece) for piece in cut(files)]

    assert files == [file for digest, packed in parts for file in decode_part(packed, digest, "u")]


def test_a_changed_file_changes_one_part() -> None:
    """Ten thousand files of which one changes share all parts but one."""
    files = [FILE._replace(path=f"d/{number:05}") for number in range(10_000)]
    before = dict(map(encode_part, cut(files)))
    files[5000] = files[5000]._replace(sha256="2" * 64)
    after = dict(map(encode_part, cut(files)))

    assert 1 == len(before.keys() - after.keys()) == len(after.keys() - before.keys())
    assert 50 < len(before)


HOSTILE: list[tuple[str, Any]] = [
    ("an absolute path", {"path": "/etc/passwd"}),
    ("a path that leads out", {"path": "a/../../b"}),
    ("a dot segment", {"path": "a/./b"}),
    ("an empty segment", {"path": "a//b"}),
    ("no path", {"path": ""}),
    ("a path with NUL", {"path": "a\0b"}),
    ("a path that is a number", {"path": 7}),
    ("a name too long", {"path": "n" * 300}),
    ("raw bytes that lead out", {"raw": "Li4vYQ=="}),
    ("a digest that is none", {"sha256": "zz"}),
    ("a negative size", {"size": -1}),
    ("a size that is a text", {"size": "1"}),
    ("a key that leads out", {"key": "../other"}),
    ("no key", {"key": None}),
]


@pytest.mark.parametrize(("what", "change"), HOSTILE, ids=[what for what, _ in HOSTILE])
def test_hostile_files_are_refused(what: str, change: dict[str, Any]) -> None:
    """A manifest that names such a file is damaged, in the list itself and in a part."""
    data = json.loads(encode_manifest(MANIFEST))
    data["files"][0].update(change)
    packed = zlib.compress(json.dumps([data["files"][0]]).encode())
    digest = hashlib.sha256(packed).hexdigest()

    with pytest.raises(RecordDamaged, match="cannot be trusted"):
        decode_manifest(json.dumps(data).encode(), "abcDEF123456")
    with pytest.raises(RecordDamaged):
        decode_part(packed, digest, "abcDEF123456")


TREES: list[tuple[str, list[dict[str, Any]]]] = [
    ("a path twice", [{"path": "a"}, {"path": "a"}]),
    ("a file below a file", [{"path": "a"}, {"path": "a/b/c"}]),
    ("a file below a link", [{"path": "a", "link": "Yg=="}, {"path": "a/b"}]),
    ("a link that leads out", [{"path": "a/b", "link": "Li4vLi4vYw=="}]),
    ("a link to an absolute path", [{"path": "a", "link": "L2V0Yw=="}]),
]


@pytest.mark.parametrize(("what", "files"), TREES, ids=[what for what, _ in TREES])
def test_hostile_trees_are_refused(what: str, files: list[dict[str, Any]]) -> None:
    """What could lead a write out of the directory is refused before anything is written."""
    data = json.loads(encode_manifest(MANIFEST))
    data["files"] = [{"size": 0, "sha256": "0" * 64, "mode": 0o644, "key": "records/u/v/x", **file} for file in files]

    with pytest.raises(RecordDamaged, match="cannot be trusted"):
        decode_manifest(json.dumps(data).encode(), "abcDEF123456")


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"null", b'{"format":"1"}', b"[" * 100_000, b"\xff", b'{"format":1}'],
    ids=["empty", "cut", "list", "null", "format text", "deep", "no UTF-8", "bare"],
)
def test_what_is_no_manifest_is_damaged(raw: bytes) -> None:
    """Anything else gives the one error, never one of the parser's."""
    with pytest.raises(RecordDamaged, match="abcDEF123456"):
        decode_manifest(raw, "abcDEF123456")


def test_a_manifest_of_another_record_is_refused() -> None:
    """A manifest under the name of another record is not that record."""
    with pytest.raises(RecordDamaged, match="it is the manifest of"):
        decode_manifest(encode_manifest(MANIFEST), "other")


def test_a_newer_format_says_so() -> None:
    """What a newer release wrote is not guessed at."""
    data = {**json.loads(encode_manifest(MANIFEST)), "format": 2}

    with pytest.raises(RecordFormatTooNew, match="format 2"):
        decode_manifest(json.dumps(data).encode(), "abcDEF123456")


def test_a_part_that_grows_without_end_is_refused() -> None:
    """A small object that unpacks to a huge one is not unpacked."""
    packed = zlib.compress(b" " * (64 << 20))

    with pytest.raises(RecordDamaged, match="larger than a part"):
        decode_part(packed, hashlib.sha256(packed).hexdigest(), "u")


def test_a_part_that_is_missing_some_files_is_refused() -> None:
    """The manifest says how many files there are."""
    with pytest.raises(RecordDamaged, match="lists 0 of its 4 files"):
        with_files(MANIFEST, [])


@given(PATHS)
def test_ordinary_paths_are_accepted(path: str) -> None:
    """Any names a file system takes make a path."""
    assert path == check_path(path)


@pytest.mark.parametrize(
    ("path", "target", "accepted"),
    [
        ("link", "file", True),
        ("a/link", "../file", True),
        ("a/link", "../../file", False),
        ("link", "/etc/passwd", False),
        ("link", "a/../../b", False),
        ("link", "..", False),
        ("a/link", "..", True),
        ("link", "", False),
    ],
)
def test_links_stay_in_their_record(path: str, target: str, accepted: bool) -> None:
    """A link is read as text: where it leads must be in the record."""
    if accepted:
        assert target == check_link(path, target)
    else:
        with pytest.raises(InvalidRecord, match="leads to"):
            check_link(path, target)
