"""Tar streams of volumes that are plain directories to this process."""

from __future__ import annotations

import contextlib
import errno
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

from stowstore.transfer.progress import TransferReport
from stowstore.transfer.tar_members import TAR_ENCODING, XattrMember, member_xattrs
from stowstore.transfer.xattrs import SourceXattrs, accepted_xattrs, give_xattrs
from stowstore.whole_files import whole_file

__all__ = ["TAR_SUFFIXES", "copy_directory", "export_directory_tar", "import_directory_tar", "tar_file"]

#: What the names of tar files end in.
TAR_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz")


def export_directory_tar(directory: Path, stream: IO[bytes]) -> TransferReport:
    """Writes what lies in a directory as a tar stream (PAX), in the order of names; links stay links.

    Extended attributes are in it, as in those of volumes with versions.
    """
    report = TransferReport()
    source = SourceXattrs(report)

    def counted(member: tarfile.TarInfo) -> tarfile.TarInfo:
        if member.isdir():
            report.directories += 1
        else:
            report.files += 1
            report.bytes += member.size
        if isinstance(member, XattrMember) and not member.islnk():
            path = os.path.join(directory, member.name)
            member.xattrs = source.read(path, os.lstat(path)) or {}
        return member

    with tarfile.open(
        fileobj=stream,
        mode="w|",
        format=tarfile.PAX_FORMAT,
        tarinfo=XattrMember,
        encoding=TAR_ENCODING,
        bufsize=1 << 20,
    ) as archive:
        for name in sorted(os.listdir(directory)):
            if name != "lost+found":
                archive.add(directory / name, arcname=name, filter=counted)
    return report


def import_directory_tar(directory: Path, stream: IO[bytes]) -> None:
    """Unpacks a tar stream, compressed or not; members that would leave the directory are refused.

    Of extended attributes the users' are set: the superuser's, such as capabilities, go the way of set-ids.

    Raises:
        tarfile.TarError: the stream is no archive, or would leave the directory.
        OSError: the directory has no room; EINVAL for attributes that cannot be any.
    """
    with _UserXattrs.open(fileobj=stream, mode="r|*", encoding=TAR_ENCODING) as archive:
        if hasattr(tarfile, "tar_filter"):
            archive.extractall(directory, numeric_owner=True, filter="tar")
        else:
            archive.extractall(directory, _kept_inside(archive, directory), numeric_owner=True)


def _kept_inside(archive: tarfile.TarFile, directory: Path) -> Iterator[tarfile.TarInfo]:
    """What the filter ``tar`` of PEP 706 lets pass, for Python before 3.11.4, which Debian 12 has."""
    top = os.path.realpath(directory)
    for member in archive:
        member.name = member.name.lstrip("/")
        if os.path.commonpath([os.path.realpath(os.path.join(top, member.name)), top]) != top:
            raise tarfile.TarError(f"{member.name!r} would be extracted outside the destination")
        member.mode &= 0o755
        yield member


def copy_directory(source: Path, target: Path) -> None:
    """Copies everything in a directory into another one, links, owners and times included.

    Raises:
        OSError: the target has no room.
        tarfile.TarError: something in the source cannot be copied.
    """
    reading, writing = os.pipe()
    failed: list[BaseException] = []

    def export() -> None:
        try:
            with open(writing, "wb") as stream:
                export_directory_tar(source, stream)
        except BrokenPipeError:
            # The other side has failed, and says why.
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised by the other thread
            failed.append(error)

    thread = threading.Thread(target=export, name="stow-copy")
    thread.start()
    try:
        with open(reading, "rb") as stream:
            import_directory_tar(target, stream)
    except tarfile.ReadError:
        if not failed:
            raise
    finally:
        thread.join()
    if failed:
        raise failed[0]


@contextlib.contextmanager
def tar_file(target: Path) -> Iterator[IO[bytes]]:
    """A file that appears whole or not at all, compressed as its name says."""
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "No such directory", str(target.parent))
    with whole_file(target, durable=True) as raw:
        if target.name.endswith((".gz", ".tgz")):
            import gzip

            with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=1) as packed:
                yield cast("IO[bytes]", packed)
        else:
            yield raw


class _UserXattrs(tarfile.TarFile):
    """An archive whose members are unpacked with the ``user.`` attributes they have."""

    def chown(self, tarinfo: tarfile.TarInfo, targetpath: Any, numeric_owner: bool) -> None:
        """Sets attributes with the owner, before the mode: setting them needs the right to write.

        Raises:
            OSError: what no attribute can be, or the file system has no room for.
        """
        super().chown(tarinfo, targetpath, numeric_owner)
        report = TransferReport()
        found = member_xattrs(tarinfo, report)
        path = os.fsencode(targetpath)
        if found and not tarinfo.islnk():
            users = {name: value for name, value in found.items() if name.startswith(b"user.")}
            give_xattrs(path, accepted_xattrs(tarinfo.name, os.lstat(path).st_mode, users, report), report)
        for name, reason in report.skipped:
            raise OSError(errno.EINVAL, reason, name)
