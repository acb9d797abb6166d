"""Files that a job is given: one tar archive in memory, made before the job starts and unpacked into its ``/work``."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from attrs import frozen

from stowstore.jobs.errors import InvalidJob
from stowstore.named.sizes import format_size

__all__ = ["pack"]

#: What a file takes of a memory file system, which gives out whole pages.
_PAGE = 4096


@frozen
class _Upload:
    source: Path
    name: str


def pack(files: Sequence[Path], directories: Sequence[Path], *, room: int) -> int | None:
    """Returns a descriptor of the archive, at its beginning; None when nothing is to be uploaded.

    A file gets its own name; of a directory the content is taken.  Symbolic links stay what they are.

    Raises:
        InvalidJob: two of one name, something that is neither file nor directory nor link, or no room for it.
        OSError: something cannot be read.
    """
    found = list(_found(files, directories))
    if not found:
        return None
    _check(found, room)
    descriptor = os.memfd_create("stowstore-uploads")
    try:
        with (
            os.fdopen(descriptor, "wb", closefd=False) as sink,
            tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for upload in found:
                archive.add(upload.source, upload.name, recursive=False, filter=_without_owner)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _found(files: Sequence[Path], directories: Sequence[Path]) -> Iterator[_Upload]:
    for path in files:
        if path.is_dir():
            raise InvalidJob(f"upload {str(path)!r} is a directory", hint="use --upload-dir")
        if not path.exists():
            raise InvalidJob(f"upload {str(path)!r} does not exist")
        yield _Upload(path.resolve(), path.name)
    for directory in directories:
        if not directory.is_dir():
            raise InvalidJob(f"upload {str(directory)!r} is no directory", hint="use --upload for a file")
        for at, below, names in os.walk(directory, onerror=_raise):
            for name in (*below, *names):
                path = Path(at, name)
                yield _Upload(path, str(path.relative_to(directory)))


def _check(found: Sequence[_Upload], room: int) -> None:
    seen: dict[str, Path] = {}
    needed = 0
    for upload in found:
        if upload.name in seen:
            raise InvalidJob(f"{seen[upload.name]} and {upload.source} would both be uploaded as {upload.name!r}")
        seen[upload.name] = upload.source
        about = upload.source.lstat()
        if not (stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode) or stat.S_ISLNK(about.st_mode)):
            raise InvalidJob(f"{upload.source} is neither a file nor a directory", hint="only those can be uploaded")
        needed += -(-about.st_size // _PAGE) * _PAGE if stat.S_ISREG(about.st_mode) else 0
    if needed > room:
        raise InvalidJob(
            f"the uploads need {format_size(needed)}, and the job's /work holds {format_size(room)}",
            hint=f"allow more: --scratch {-(-needed // (1 << 20)) + 1}MB",
        )


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """They belong to the job's user."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _raise(error: OSError) -> None:
    raise error
