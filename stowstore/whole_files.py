"""Files of the local disk that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

__all__ = ["Existing", "sync_directory", "whole_file"]


class Existing(StrEnum):
    """What becomes of a file that has the name already."""

    REPLACE = "replace"
    KEEP = "keep"


@contextmanager
def whole_file(
    target: str | os.PathLike[str], *, existing: Existing = Existing.REPLACE, durable: bool = False
) -> Iterator[BinaryIO]:
    """Gives a draft beside ``target`` to write into, which takes the name when the block ends without an exception.

    It has the permissions of any new file, by the process's umask, unless the block changes them.  A symbolic link
    with the name is replaced, not followed.  ``durable``: when this returns the file outlives a loss of power.

    Raises:
        FileExistsError: there is one, and it is to be kept.
        OSError: the directory cannot be written.
    """
    target = Path(target).absolute()
    # A name may be as long as the file system takes them, so the draft's has only the beginning of it.
    draft = target.with_name(f".{target.name[:40]}.{os.urandom(8).hex()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if existing is Existing.KEEP:
            os.link(draft, target)
            os.unlink(draft)
        else:
            os.replace(draft, target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(target.parent)


def sync_directory(path: Path) -> None:
    """Makes what was created, renamed or removed in a directory survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
