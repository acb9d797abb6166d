"""Directories and tar streams into a volume and out of it, compared with the originals."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowstore.config import ContainerPolicy
from stowstore.namespace.filesystem import FileSystem
from stowstore.transfer import export_directory, export_tar, import_directory, import_tar
from stowstore.transfer.paths import find, parts_of
from stowstore.versions.address import open_root_store
from stowstore.versions.options import SessionOptions
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from tests.transfer.trees import snapshot


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    store, base = open_root_store(f"file://{tmp_path}/root", create=ContainerPolicy.IF_MISSING)
    with store, Session.write(Root.create(store, base), "data") as session:
        yield session


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with one of everything that needs no privilege."""
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "er" / "file").write_bytes(b"content")
    (tree / "large").write_bytes(os.urandom(3_000_000))
    (tree / "nothing").touch()
    os.link(tree / "large", tree / "second name")
    os.symlink("../deep/er", tree / "deep" / "link")
    os.symlink("/etc/passwd", tree / "outwards")
    (Path(os.fsdecode(bytes(tree) + b"/latin-\xe9"))).write_bytes(b"a name that is no UTF-8")
    os.mkfifo(tree / "fifo")
    with (tree / "sparse").open("wb") as file:
        file.truncate(50_000_000)
        file.seek(20_000_000)
        file.write(b"island")
    (tree / "deep" / "er" / "file").chmod(0o4755)
    os.utime(tree / "deep", ns=(1, 1_234_567_890_123_456_789))
    return tree


def test_directory_survives_import_commit_and_export(session: Session, tree: Path, tmp_path: Path) -> None:
    """What is imported, committed and exported is the same tree, holes, hard links, odd names and times included."""
    imported = import_directory(session.files, tree)
    manifest = session.commit()
    with Session.read(session.root, manifest.name) as version:
        exported = export_directory(version.files, tmp_path / "out")

    assert snapshot(tree) == snapshot(tmp_path / "out")
    assert (9, 3, []) == (imported.files, imported.directories, imported.skipped)
    assert (9, 3, []) == (exported.files, exported.directories, exported.skipped)
    assert (tmp_path / "out" / "sparse").stat().st_blocks * 512 < 10_000_000


def test_second_import_moves_what_changed(session: Session, tree: Path) -> None:
    """Unchanged files are left as they are; changed, new and replaced ones are taken."""
    import_directory(session.files, tree)
    session.commit()
    (tree / "nothing").write_bytes(b"something")
    (tree / "new").write_bytes(b"new")

    again = import_directory(session.files, tree)

    assert 8 == again.unchanged
    assert b"something" == _read(session.files, "nothing")
    assert b"new" == _read(session.files, "new")


def test_an_import_of_what_is_there_changes_nothing(session: Session, tree: Path) -> None:
    """Directories, links, devices and fifos that are as they were are no reason for a version; another owner is."""
    import_directory(session.files, tree)
    session.commit()

    assert 0 == import_directory(session.files, tree).files
    assert 0 == session.files.changed_inodes

    os.chmod(tree / "fifo", 0o600)
    if os.geteuid() == 0:
        os.chown(tree / "nothing", 1001, 1001)
    assert (1 if os.geteuid() else 2) == import_directory(session.files, tree).files


def test_import_below_a_path_and_export_of_a_part(session: Session, tree: Path, tmp_path: Path) -> None:
    """A target is made with its parents; a part of a volume can be exported alone."""
    import_directory(session.files, tree, "some/where")
    export_directory(session.files, tmp_path / "part", "some/where/deep")

    assert snapshot(tree / "deep") == snapshot(tmp_path / "part")


def test_tar_made_by_tar_and_read_by_tar(session: Session, tree: Path, tmp_path: Path) -> None:
    """An archive of GNU tar is imported, and what is exported is an archive GNU tar extracts to the same tree."""
    archive = subprocess.run(["tar", "--format=pax", "-C", tree, "-czf", "-", "."], capture_output=True, check=True)
    report = import_tar(session.files, io.BytesIO(archive.stdout))
    out = io.BytesIO()
    export_tar(session.files, out)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "out", "-xpf", "-"], input=out.getvalue(), check=True)

    assert not report.skipped
    wanted, found = snapshot(tree), snapshot(tmp_path / "out")
    assert wanted.keys() == found.keys()
    for name, (mode, uid, gid, mtime, links, content) in wanted.items():
        # A tarfile's times are floating point numbers of seconds.
        assert abs(mtime - found[name][3]) < 1_000_000  # type: ignore[operator]
        assert (mode, uid, gid, links, content) == (*found[name][:3], *found[name][4:])


@pytest.mark.parametrize("name", ["../../evil", "/../evil", "a/../../evil", "ok/../../evil"])
def test_hostile_tar(session: Session, name: str) -> None:
    """Members whose names lead out of the target are skipped and told; the rest is taken."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for member in (name, "good"):
            info = tarfile.TarInfo(member)
            info.size = 4
            archive.addfile(info, io.BytesIO(b"data"))

    report = import_tar(session.files, io.BytesIO(out.getvalue()), "below")

    assert [name] == [skipped for skipped, _ in report.skipped]
    assert b"data" == _read(session.files, "below/good")
    with pytest.raises(FileNotFoundError):
        find(session.files, "evil")


def test_truncated_tar_is_an_error(session: Session, tree: Path) -> None:
    """A stream that is cut off is not taken for a smaller archive."""
    archive = subprocess.run(["tar", "-C", tree, "-cf", "-", "."], capture_output=True, check=True).stdout

    with pytest.raises(tarfile.TarError):
        import_tar(session.files, io.BytesIO(archive[: len(archive) // 2]))


def test_export_is_not_led_out_by_links(session: Session, tree: Path, tmp_path: Path) -> None:
    """A link in the destination is replaced, never written through."""
    outside = tmp_path / "outside"
    outside.write_text("precious", encoding="utf-8")
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / "nothing").symlink_to(outside)
    import_directory(session.files, tree)

    export_directory(session.files, out)

    assert "precious" == outside.read_text(encoding="utf-8")
    assert snapshot(tree) == snapshot(out)


def test_unreadable_sources_are_told(session: Session, tmp_path: Path) -> None:
    """A source that is no directory is an error; a path of a volume has no dots that climb."""
    with pytest.raises(NotADirectoryError):
        import_directory(session.files, __file__)
    with pytest.raises(FileNotFoundError):
        export_directory(session.files, tmp_path / "out", "missing")
    with pytest.raises(OSError, match="no '\\.\\.'"):
        parts_of("a/../b")


@pytest.mark.parametrize(("first", "second"), [("file", "directory"), ("directory", "file")])
def test_what_is_in_the_way_is_told(session: Session, tmp_path: Path, first: str, second: str) -> None:
    """A file does not silently become a directory by an import, nor a directory a file."""
    for kind in (first, second):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "name").mkdir() if kind == "directory" else (tmp_path / kind / "name").touch()
    import_directory(session.files, tmp_path / first)

    with pytest.raises((NotADirectoryError, IsADirectoryError), match="in the way"):
        import_directory(session.files, tmp_path / second)


def test_small_files_share_packs(session: Session, tmp_path: Path) -> None:
    """Two thousand small files are a few objects in the store."""
    source = tmp_path / "many"
    for number in range(2_000):
        path = source / f"{number % 20:02d}" / f"{number:04d}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(512))

    import_directory(session.files, source)
    session.commit()

    assert sum(1 for _ in session.root.store.walk(session.root.base)) < 12


def _read(files: FileSystem, path: str) -> bytes:
    from stowstore.namespace.permissions import ROOT

    handle = files.open(find(files, path).ino, os.O_RDONLY, ROOT)
    try:
        return files.read(handle, 0, 1 << 20)
    finally:
        files.release(handle)


def test_later_members_of_a_tar_replace_earlier_ones(session: Session) -> None:
    """The last member of a name counts, links lead to the file of their moment, a file may become a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, kind, text in (
            ("again", tarfile.REGTYPE, b"first"),
            ("linked", tarfile.LNKTYPE, b"again"),
            ("again", tarfile.REGTYPE, b"second"),
            ("again", tarfile.REGTYPE, b"third"),
            ("symbolic", tarfile.REGTYPE, b"no link yet"),
            ("symbolic", tarfile.SYMTYPE, b"again"),
            ("directory/file", tarfile.REGTYPE, b"below"),
            ("zeros", tarfile.REGTYPE, bytes(10_000)),
        ):
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(text)
                archive.addfile(info, io.BytesIO(text))
            else:
                info.linkname = text.decode()
                archive.addfile(info)

    import_tar(session.files, io.BytesIO(out.getvalue()))

    assert b"third" == _read(session.files, "again")
    assert b"first" == _read(session.files, "linked")
    assert b"again" == session.files.readlink(find(session.files, "symbolic").ino)
    assert b"below" == _read(session.files, "directory/file")
    assert (10_000, 0) == (find(session.files, "zeros").size, find(session.files, "zeros").blocks)
    assert (1, 1) == (find(session.files, "again").nlink, find(session.files, "linked").nlink)


def test_an_import_keeps_to_the_limit(session: Session, tmp_path: Path) -> None:
    """A volume that becomes full says so; what is in it is whole, and no byte beyond the limit."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(100):
        (source / f"{number:02d}").write_bytes(os.urandom(1000))
    session.files.set_limits(limit_bytes=50_500)

    with pytest.raises(OSError, match="50500"):
        import_directory(session.files, source)

    assert (50_000, 51) == session.files.usage()
    assert (source / "49").read_bytes() == _read(session.files, "49")
    session.files.set_limits(limit_bytes=100_000)
    import_directory(session.files, source)
    assert (100_000, 101) == session.files.usage()
    for path in source.iterdir():
        path.write_bytes(os.urandom(1000))
    assert 0 == import_directory(session.files, source).unchanged
    assert (100_000, 101) == session.files.usage()


_IMPORT_AND_DIE = """
import os, pathlib, signal, sys
from stowstore.transfer import import_directory
from stowstore.versions.address import open_root_store
from stowstore.versions.root import Root
from stowstore.versions.options import SessionOptions
from stowstore.versions.session import Session

place = pathlib.Path(sys.argv[1])
store, base = open_root_store(f"file://{place}/root")
options = SessionOptions(meta_dir=place / "meta", cache_dir=place / "cache")
session = Session.write(Root.open_or_create(store, base), "data", options)
import_directory(session.files, place / "source")
session.files.fsync()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_imported_files_survive_a_crash_before_the_commit(tmp_path: Path) -> None:
    """What was imported and synced is there again after the process has died: the journal names its blocks."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(300):
        (source / f"{number:03d}").write_bytes(b"%d" % number * 500)
    store, base = open_root_store(f"file://{tmp_path}/root", create=ContainerPolicy.IF_MISSING)
    options = SessionOptions(meta_dir=tmp_path / "meta", cache_dir=tmp_path / "cache")
    with store:
        root = Root.create(store, base)
        died = subprocess.run([sys.executable, "-c", _IMPORT_AND_DIE, tmp_path], check=False)
        assert -signal.SIGKILL == died.returncode
        root.store.delete(root.lease_reference("data"))

        with Session.write(root, "data", options) as session:
            for number in range(300):
                assert (source / f"{number:03d}").read_bytes() == _read(session.files, f"{number:03d}")
            manifest = session.commit()
            with Session.read(root, manifest.name) as version:
                export_directory(version.files, tmp_path / "out")
    assert snapshot(source) == snapshot(tmp_path / "out")
