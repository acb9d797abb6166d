"""Extended attributes through imports and exports, compared with the originals."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowstore.config import ContainerPolicy
from stowstore.transfer import export_directory, export_tar, import_directory, import_tar
from stowstore.transfer.paths import find
from stowstore.transfer.xattrs import xattrs_of
from stowstore.versions.address import open_root_store
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from tests.transfer.trees import attributes, require_attributes

#: Values that are text, empty, binary, no UTF-8, or look like a part of a tar header; a name with signs of its own.
VALUES = {
    b"user.text": b"words",
    b"user.empty": b"",
    b"user.binary": bytes(range(256)) * 3,
    b"user.header": b"21 hdrcharset=BINARY\n\xff\xfe",
    b"user.a=b%3D%c": b"=",
    b"user.\xe9": b"a name that is no UTF-8",
}


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    store, base = open_root_store(f"file://{tmp_path}/root", create=ContainerPolicy.IF_MISSING)
    with store, Session.write(Root.create(store, base), "data") as session:
        yield session


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory of files of all sizes and links, with attributes."""
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below" / "small").write_bytes(b"content")
    (tree / "large").write_bytes(bytes(3_000_000))
    (tree / "read-only").write_bytes(b"nobody writes")
    (tree / "plain").touch()
    os.link(tree / "large", tree / "second name")
    os.symlink("below", tree / "link")
    require_attributes(tree)
    for name in ("below", "below/small", "large", "read-only"):
        for attribute, value in VALUES.items():
            os.setxattr(tree / name, attribute, value)
    if os.geteuid() == 0:
        os.setxattr(tree / "link", "trusted.of-a-link", b"\0\xff", follow_symlinks=False)
        os.setxattr(tree / "below" / "small", "trusted.kept", b"\xff")
    (tree / "read-only").chmod(0o444)
    return tree


def test_attributes_survive_import_commit_and_export(session: Session, tree: Path, tmp_path: Path) -> None:
    """Files, directories and links come out with the attributes they went in with, whatever bytes these are."""
    imported = import_directory(session.files, tree)
    manifest = session.commit()
    with Session.read(session.root, manifest.name) as version:
        exported = export_directory(version.files, tmp_path / "out")

    assert not imported.skipped
    assert not exported.skipped
    assert attributes(tree) == attributes(tmp_path / "out")


def test_attributes_survive_gnu_tar_both_ways(session: Session, tree: Path, tmp_path: Path) -> None:
    """What GNU tar stores is imported, and GNU tar restores what is exported, without a complaint."""
    options = ["--xattrs", "--xattrs-include=*"]
    packed = subprocess.run(["tar", *options, "-C", tree, "-cf", "-", "."], capture_output=True, check=True).stdout
    report = import_tar(session.files, io.BytesIO(packed))
    out = io.BytesIO()
    export_tar(session.files, out)
    (tmp_path / "out").mkdir()
    command = ["tar", *options, "-C", tmp_path / "out", "-xpf", "-"]
    unpacked = subprocess.run(command, input=out.getvalue(), capture_output=True, check=True)

    assert not report.skipped
    assert not unpacked.stderr
    assert attributes(tree) == attributes(tmp_path / "out")


def test_an_import_notices_attributes_alone(session: Session, tree: Path) -> None:
    """Attributes as they were make no version; set, changed and removed ones do, and move no content."""
    import_directory(session.files, tree)
    session.commit()
    assert 0 == import_directory(session.files, tree).files
    assert 0 == session.files.changed_inodes

    os.setxattr(tree / "plain", "user.new", b"1")
    os.setxattr(tree / "large", "user.text", b"others")
    os.removexattr(tree / "below", "user.text")
    again = import_directory(session.files, tree)

    assert (2, 0) == (again.files, again.bytes)
    assert 3 == session.files.changed_inodes
    assert {b"user.new": b"1"} == xattrs_of(session.files, find(session.files, "plain").ino)
    assert b"others" == xattrs_of(session.files, find(session.files, "second name").ino)[b"user.text"]
    assert b"user.text" not in xattrs_of(session.files, find(session.files, "below").ino)


def test_a_new_version_of_a_file_has_its_attributes_only(session: Session, tree: Path) -> None:
    """A file that is replaced brings its attributes; those of the one before are gone, also from the version."""
    import_directory(session.files, tree)
    session.commit()
    (tree / "below" / "small").unlink()
    (tree / "below" / "small").write_bytes(b"another")
    os.setxattr(tree / "below" / "small", "user.mine", b"2")

    import_directory(session.files, tree)
    manifest = session.commit()

    with Session.read(session.root, manifest.name) as version:
        assert {b"user.mine": b"2"} == xattrs_of(version.files, find(version.files, "below/small").ino)


@pytest.mark.parametrize("size", [4, 3_000_000])
@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("SCHILY.xattr.user." + "n" * 300, "x", "1 to 255 bytes"),
        ("SCHILY.xattr.user.big", "x" * 70_000, "64 KiB"),
        ("SCHILY.xattr.user.nul\0", "x", "without a NUL"),
        ("LIBARCHIVE.xattr.user.a%00b", "eA", "without a NUL"),
        ("LIBARCHIVE.xattr.user.odd", "x", "base64|data characters"),
    ],
)
def test_hostile_attributes_of_tar_members(session: Session, keyword: str, value: str, reason: str, size: int) -> None:
    """What no attribute can be is left out and told; the file and its other attributes are taken."""
    report = _import_member(session, size, {keyword: value, "SCHILY.xattr.user.good": "kept"})

    assert {b"user.good": b"kept"} == xattrs_of(session.files, find(session.files, "name").ino)
    ((path, told),) = report
    assert "name" == path
    assert any(part in told for part in reason.split("|"))


def test_attributes_by_libarchive(session: Session) -> None:
    """Names as in addresses and values in base64 without padding are read; what a volume does not keep is left out."""
    headers = {
        "LIBARCHIVE.xattr.user.a%3D%FF": base64.b64encode(b"\0\xff\n!").decode().rstrip("="),
        "SCHILY.xattr.user.a%3D%FF": b"\0\xff\n!".decode(errors="surrogateescape"),
        "SCHILY.xattr.system.posix_acl_access": "no attribute of volumes",
    }

    assert [] == _import_member(session, 4, headers)
    assert {b"user.a=\xff": b"\0\xff\n!"} == xattrs_of(session.files, find(session.files, "name").ino)


def _import_member(session: Session, size: int, headers: dict[str, str]) -> list[tuple[str, str]]:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("name")
        info.size, info.pax_headers = size, headers
        archive.addfile(info, io.BytesIO(bytes(size)))
    return import_tar(session.files, io.BytesIO(out.getvalue())).skipped
