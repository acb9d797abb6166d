"""Tar streams of volumes that are plain directories to this process."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import IO

from stowstore.transfer.progress import TransferReport

__all__ = ["export_directory_tar", "import_directory_tar"]


def export_directory_tar(directory: Path, stream: IO[bytes]) -> TransferReport:
    """Writes what lies in a directory as a tar stream (PAX), in the order of names; links stay links."""
    report = TransferReport()

    def counted(member: tarfile.TarInfo) -> tarfile.TarInfo:
        if member.isdir():
            report.directories += 1
        else:
            report.files += 1
            report.bytes += member.size
        return member

    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as archive:
        for name in sorted(os.listdir(directory)):
            if name != "lost+found":
                archive.add(directory / name, arcname=name, filter=counted)
    return report


def import_directory_tar(directory: Path, stream: IO[bytes]) -> None:
    """Unpacks a tar stream, compressed or not; members that would leave the directory are refused.

    Raises:
        tarfile.TarError: the stream is no archive, or would leave the directory.
    """
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        archive.extractall(directory, numeric_owner=True, filter="tar")
