"""`vol.files` does what `os`, `open`, `shutil` and `glob` do on the local disk."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stowstore import Volume
from stowstore.namespace.renames import RenameFlags
from stowstore.volumes import Files
from tests.volumes.disk import Disk, tree


@pytest.fixture
def files() -> Iterator[Files]:
    """The files of a new volume in memory."""
    volume = Volume.new(bucket="mem://files/root")
    with volume.blocking as files:
        yield files


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    (tmp_path / "disk").mkdir()
    return Disk(tmp_path / "disk")


def populate(files: Any) -> None:
    """A small tree with links to files, directories, nowhere, themselves and upwards."""
    files.makedirs("d/e/f")
    files.mkdir("empty")
    files.write_bytes("top", b"0123456789")
    files.write_bytes("d/one.txt", b"one")
    files.write_bytes("d/e/two.txt", b"two")
    files.write_bytes("d/.hidden", b"")
    files.symlink("d/one.txt", "to-file")
    files.symlink("d/e", "to-directory")
    files.symlink("nowhere", "dangling")
    files.symlink("loop", "loop")
    files.symlink("../../top", "d/e/up")
    files.symlink("to-file", "to-link")
    files.symlink("empty/", "slashed")


def outcome(act: Callable[[], object]) -> object:
    """What an operation gives, or the number and class of the error it raises."""
    try:
        return act()
    except OSError as error:
        return type(error).__name__, error.errno


PATHS = [
    ".",
    "top",
    "top/",
    "top/x",
    "d",
    "d/",
    "d/../top",
    "d//e/./f",
    "d/e/f/..",
    "empty",
    "missing",
    "missing/x",
    "missing/../top",
    "to-file",
    "to-directory",
    "to-directory/",
    "to-directory/two.txt",
    "to-directory/../one.txt",
    "to-link",
    "dangling",
    "dangling/",
    "loop",
    "loop/x",
    "d/e/up",
    "slashed",
    "slashed/x",
    "x" * 256,
    "d/" + "x" * 255,
]

OPERATIONS: dict[str, Callable[[Any, str], object]] = {
    "listdir": lambda on, path: on.listdir(path),
    "read": lambda on, path: on.read_bytes(path),
    "readlink": lambda on, path: on.readlink(path),
    "stat": lambda on, path: stat.S_IFMT(on.stat(path).st_mode),
    "lstat": lambda on, path: stat.S_IFMT(on.stat(path, follow_symlinks=False).st_mode),
    "tests": lambda on, path: (on.exists(path), on.isdir(path), on.isfile(path), on.islink(path)),
    "write": lambda on, path: on.write_bytes(path, b"new"),
    "append": lambda on, path: on.open(path, "ab").close(),
    "exclusive": lambda on, path: on.open(path, "xb").close(),
    "update": lambda on, path: on.open(path, "r+b").close(),
    "mkdir": lambda on, path: on.mkdir(path),
    "makedirs": lambda on, path: on.makedirs(path, exist_ok=True),
    "rmdir": lambda on, path: on.rmdir(path),
    "rmtree": lambda on, path: on.rmtree(path),
    "remove": lambda on, path: on.remove(path),
    "truncate": lambda on, path: on.truncate(path, 5),
    "chmod": lambda on, path: on.chmod(path, 0o700),
    "symlink": lambda on, path: on.symlink("target", path),
    "link": lambda on, path: on.link(path, "linked"),
    "link-to": lambda on, path: on.link("top", path),
    "rename": lambda on, path: on.rename(path, "renamed"),
    "rename-file-to": lambda on, path: on.rename("top", path),
    "rename-directory-to": lambda on, path: on.rename("d", path),
}


#: Where Linux and the namespace part, each with its reason.
_APART = {
    ("rmdir", "."),  # the disk's root has a name, a volume's has none
    ("rmtree", "."),
    ("rename", "."),
    ("rename-file-to", "."),
    ("rename-directory-to", "."),
    ("mkdir", "."),
    ("symlink", "."),
    ("link-to", "."),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_path_means_what_it_means_on_disk(operation: str, tmp_path: Path) -> None:
    """Each operation on each kind of path gives the result or the error of the local disk, and leaves the same tree."""
    act = OPERATIONS[operation]
    differences = []
    for number, path in enumerate(PATHS):
        if (operation, path) in _APART:
            continue
        (tmp_path / str(number)).mkdir()
        disk = Disk(tmp_path / str(number))
        volume = Volume.new(bucket="mem://files/root")
        with volume.blocking as files:
            populate(disk)
            populate(files)
            ours, theirs = outcome(lambda: act(files, path)), outcome(lambda: act(disk, path))  # noqa: B023
            if ours != theirs or tree(files) != tree(disk):
                differences.append((path, ours, theirs, tree(files).items() ^ tree(disk).items()))
    assert [] == differences


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "*.txt",
        "**",
        "**/*.txt",
        "d/*",
        "d/**",
        "d/.*",
        "[dt]*",
        "*/",
        "d/?/*",
        "**/e/**",
        "no*",
        "d/one.txt",
        "to-*",
    ],
)
def test_patterns_find_what_they_find_on_disk(pattern: str, files: Files, disk: Disk) -> None:
    """`glob` finds the same paths, hidden ones when asked."""
    populate(disk)
    populate(files)
    for hidden in (False, True):
        # Other than glob's, ours is the same with a slash or without, and does not go through links.
        found = (path if pattern.endswith("/") else path.rstrip("/") for path in disk.glob(pattern, hidden))
        wanted = [path for path in found if path and not ("**" in pattern and path.startswith("to-directory/"))]
        assert wanted == files.glob(pattern, include_hidden=hidden)


@pytest.mark.parametrize("topdown", [True, False])
def test_walks_visit_what_they_visit_on_disk(topdown: bool, files: Files, disk: Disk) -> None:
    """`walk` visits the same directories with the same names."""
    populate(disk)
    populate(files)
    for top in (".", "d"):
        assert sorted(disk.walk(top, topdown)) == sorted(
            (str(here), directories, others) for here, directories, others in files.walk(top, topdown)
        )


def test_walks_can_be_pruned_and_tell_of_errors(files: Files) -> None:
    """Names taken out of `dirs` are not visited; what cannot be listed is told to `onerror`."""
    populate(files)
    visited = []
    for here, directories, _ in files.walk("/"):
        visited.append(here)
        directories[:] = [name for name in directories if name != "d"]
    assert "/d" not in visited
    assert "/empty" in visited
    told: list[OSError] = []
    assert [] == list(files.walk("missing", onerror=told.append))
    assert ["missing"] == [error.filename for error in told]


class TestOpen:
    """Open files are Python's own."""

    @pytest.mark.parametrize("mode", ["rb", "r+b", "wb", "w+b", "ab", "a+b", "xb", "x+b", "r", "w+", "a"])
    @pytest.mark.parametrize("there", [True, False])
    def test_modes(self, mode: str, there: bool, files: Files, disk: Disk) -> None:
        """Each mode reads, writes, creates, truncates and refuses as on the disk."""
        data: Any = b"abc" if "b" in mode else "abc"

        def use(on: Any) -> object:
            seen: list[object] = []
            with on.open("f", mode) as file:
                seen += [file.readable(), file.writable(), file.seekable(), file.tell()]
                for act in (lambda: file.write(data), file.flush, lambda: file.seek(1), lambda: file.read(4)):
                    try:
                        seen.append(act())
                    except io.UnsupportedOperation:
                        seen.append("refused")
            return seen

        for on in (files, disk):
            if there:
                on.write_bytes("f", b"0123456789")
        assert outcome(lambda: use(disk)) == outcome(lambda: use(files))
        assert tree(disk) == tree(files)

    @pytest.mark.parametrize("mode", ["", "q", "rw", "rbt", "rr", "+", "b"])
    def test_bad_modes(self, mode: str, files: Files) -> None:
        """What is no mode is a ValueError that shows it."""
        with pytest.raises(ValueError, match="invalid mode"):
            files.open("f", mode)

    def test_arguments_that_do_not_go_together(self, files: Files) -> None:
        """Text cannot be unbuffered, and bytes have no encoding; nothing stays open."""
        with pytest.raises(ValueError, match="unbuffered"):
            files.open("f", "w", 0)
        with pytest.raises(ValueError, match="binary"):
            files.open("f", "wb", encoding="utf-8")
        assert 0 == files._source().open_handles

    def test_text(self, files: Files) -> None:
        """Text has encodings and line ends."""
        with files.open("f", "w", encoding="latin-1", newline="\r\n") as file:
            file.write("äöü\nzwei\n")
        assert "äöü\r\nzwei\r\n".encode("latin-1") == files.read_bytes("f")
        with files.open("f", encoding="latin-1") as file:
            assert ["äöü\n", "zwei\n"] == file.readlines()

    def test_large_files_and_holes(self, files: Files) -> None:
        """Reading and writing far apart needs no memory for what lies between."""
        with files.open("f", "w+b") as file:
            file.seek(1 << 40)
            file.write(b"end")
            file.flush()
            file.seek((1 << 40) - 5)
            assert b"\0" * 5 + b"end" == file.read()
            assert (1 << 40) + 3 == file.raw.seek(0, os.SEEK_END)  # type: ignore[attr-defined]
            assert file.raw.seek(0, os.SEEK_DATA) > 0  # type: ignore[attr-defined]
        assert files.stat("f").st_blocks < 100
        assert b"end" == files.read_range("f", 1 << 40, 100)
        assert b"" == files.read_range("f", 1 << 41, 100)

    def test_a_removed_file_lives_on_while_it_is_open(self, files: Files) -> None:
        """Removing a name leaves the file to those who have it open."""
        with files.open("f", "w+b") as file:
            file.write(b"alive")
            file.flush()
            files.remove("f")
            file.seek(0)
            assert b"alive" == file.read()
        assert [] == files.listdir()

    def test_closed_files_refuse(self, files: Files) -> None:
        """A closed file is a ValueError, as everywhere."""
        file = files.open("f", "wb", 0)
        file.close()
        file.close()
        for act in (lambda: file.write(b"1"), lambda: file.read(1), file.tell, lambda: file.seek(0)):
            with pytest.raises(ValueError, match="closed"):
                act()


class TestAttributes:
    """What is kept beside the content."""

    def test_stat_is_that_of_os(self, files: Files) -> None:
        """Times are exact, and the mode is what the umask leaves."""
        files.write_bytes("f", b"x" * 1000)
        files.utime("f", ns=(1, 1_600_000_000_123_456_789))
        files.chmod("f", 0o4751)
        found = files.stat("f")
        assert isinstance(found, os.stat_result)
        assert (1, 1_600_000_000_123_456_789, 0o104751) == (found.st_atime_ns, found.st_mtime_ns, found.st_mode)
        assert (1_600_000_000, 1000, 1, os.geteuid()) == (
            int(found.st_mtime),
            found.st_size,
            found.st_nlink,
            found.st_uid,
        )
        files.utime("f", (2.5, 3.5))
        assert (2.5, 3_500_000_000) == (files.stat("f").st_atime, files.stat("f").st_mtime_ns)
        files.chown("f", 7, -1)
        assert (7, os.getegid()) == (files.stat("f").st_uid, files.stat("f").st_gid)
        with pytest.raises(ValueError, match="both"):
            files.utime("f", (1, 1), ns=(1, 1))

    def test_extended_attributes(self, files: Files) -> None:
        """Attributes are set, listed, read and removed, of links' targets."""
        files.write_bytes("f", b"")
        files.symlink("f", "l")
        files.setxattr("l", "user.key", b"value")
        assert ["user.key"] == files.listxattr("f")
        assert b"value" == files.getxattr("f", b"user.key")
        with pytest.raises(FileExistsError):
            files.setxattr("f", "user.key", b"", os.XATTR_CREATE)
        files.removexattr("f", "user.key")
        with pytest.raises(OSError, match="l") as caught:
            files.getxattr("l", "user.key")
        assert errno.ENODATA == caught.value.errno

    def test_limits(self, files: Files) -> None:
        """A full volume says so."""
        files.set_limits(limit_bytes=10_000, limit_inodes=3)
        files.write_bytes("a", os.urandom(9000))
        with pytest.raises(OSError, match="No space") as caught:
            files.write_bytes("a", os.urandom(20_000))
        assert errno.ENOSPC == caught.value.errno
        files.mkdir("b")
        with pytest.raises(OSError, match="No space"):
            files.mkdir("c")
        assert 0 == files.statfs().files_free

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    @pytest.mark.parametrize(
        ("mode", "buffering"), [("wb", -1), ("wb", 100), ("r+b", -1), ("r+b", 30_000), ("ab", -1), ("whole", 0)]
    )
    def test_what_does_not_fit_is_an_error(self, files: Files, mode: str, buffering: int, kind: type) -> None:
        """Files that are written whole or through a buffer take what fits and raise, as on a full disk."""
        files.set_limits(limit_bytes=10_000)
        files.write_bytes("f", b"")
        data = os.urandom(25_000)

        def write() -> None:
            if mode == "whole":
                files.write_bytes("f", kind(data))
                return
            with files.open("f", mode, buffering) as file:
                file.write(kind(data))

        with pytest.raises(OSError, match="No space") as caught:
            write()
        assert errno.ENOSPC == caught.value.errno
        assert data[:10_000] == files.read_bytes("f")

    def test_an_unbuffered_write_says_what_fitted(self, files: Files) -> None:
        """The count is that of write(2), and so is the position afterwards; text raises."""
        files.set_limits(limit_bytes=10_000)
        with files.open("f", "wb", 0) as file:
            assert (10_000, 10_000) == (file.write(b"x" * 25_000), file.tell())
            with pytest.raises(OSError, match="No space"):
                file.write(b"y")
            assert 10_000 == file.tell()
        with files.open("f", "ab", 0) as file, pytest.raises(OSError, match="No space"):
            file.write(b"y")
        with pytest.raises(OSError, match="No space"):
            files.write_text("f", "x" * 25_000)
        assert 10_000 == files.stat("f").st_size


class TestNames:
    """Bytes, errors, renames and copies."""

    def test_names_are_of_the_kind_of_the_path(self, files: Files) -> None:
        """Names that are no UTF-8 are kept; bytes go in and come out as bytes."""
        files.write_bytes(b"\xff\xfe", b"1")
        assert [b"\xff\xfe"] == files.listdir(b"/")
        assert ["\udcff\udcfe"] == files.listdir()
        assert b"1" == files.read_bytes("\udcff\udcfe")
        files.symlink(b"\xff", Path("link"))
        assert b"\xff" == files.readlink(b"link")

    def test_errors_name_the_paths(self, files: Files) -> None:
        """An error has the path that was asked for, and both where there are two."""
        files.mkdir("d")
        for act in (lambda: files.open("no"), lambda: files.listdir("no"), lambda: files.stat("no")):
            with pytest.raises(FileNotFoundError, match="no") as caught:
                act()
            assert "no" == caught.value.filename
        with pytest.raises(FileNotFoundError) as caught:
            files.rename("no", "d/x")
        assert ("no", "d/x") == (caught.value.filename, caught.value.filename2)
        with pytest.raises(FileNotFoundError, match="root of a volume"):
            files.stat("")
        with pytest.raises(ValueError, match="null"):
            files.stat("a\0b")

    def test_renames_refuse_or_exchange(self, files: Files) -> None:
        """A rename may refuse to replace, or exchange two names."""
        files.write_bytes("a", b"A")
        files.write_bytes("b", b"B")
        with pytest.raises(FileExistsError):
            files.rename("a", "b", flags=RenameFlags.NOREPLACE)
        files.rename("a", "b", flags=RenameFlags.EXCHANGE)
        assert (b"B", b"A") == (files.read_bytes("a"), files.read_bytes("b"))
        files.replace("a", "b")
        assert ["b"] == files.listdir()

    def test_copies_share_what_is_stored(self) -> None:
        """A copy costs no upload, keeps the permissions, and goes its own way."""
        volume = Volume.new(bucket="mem://files/root")
        with volume.blocking as files:
            files.write_bytes("a", os.urandom(1_000_000))
            files.chmod("a", 0o750)
            volume.blocking.commit()
            before = volume.blocking.usage().root_data_bytes
            files.copy("a", "b")
            assert 0o100750 == files.stat("b").st_mode
            volume.blocking.commit()
            assert before == volume.blocking.usage().root_data_bytes
            files.write_bytes("a", b"other")
            assert 1_000_000 == len(files.read_bytes("b"))
            with pytest.raises(OSError, match="same file"):
                files.copy("a", "a")

    def test_a_listing_stays_while_the_directory_changes(self, files: Files) -> None:
        """A scan sees each entry that was there once, whatever happens meanwhile."""
        for number in range(5000):
            files.write_bytes(f"f{number:04}", b"")
        seen = []
        with files.scandir() as entries:
            for entry in entries:
                seen.append(entry.name)
                files.remove(entry.path)
        assert [f"f{number:04}" for number in range(5000)] == seen
        assert [] == files.listdir()
        assert 0 == files._source().open_handles


def test_a_version_is_read_without_writing(root: str) -> None:
    """A version has the same files, and every change is refused with the path."""
    volume = Volume.new(bucket=root)
    with volume.blocking as files:
        populate(files)
        wanted = tree(files)
        version = volume.blocking.commit()
    assert wanted == tree(version.files)
    changes: list[Callable[[Files], object]] = [
        lambda on: on.write_bytes("top", b"1"),
        lambda on: on.write_bytes("fresh", b"1"),
        lambda on: on.remove("top"),
        lambda on: on.mkdir("fresh"),
        lambda on: on.rename("top", "other"),
        lambda on: on.chmod("top", 0o600),
        lambda on: on.truncate("top", 0),
        lambda on: on.symlink("a", "fresh"),
        lambda on: on.setxattr("top", "user.a", b""),
    ]
    for change in changes:
        with pytest.raises(OSError, match="Read-only") as caught:
            change(version.files)
        assert errno.EROFS == caught.value.errno
    assert wanted == tree(version.files)
