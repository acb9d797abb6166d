"""Unpacking the archives of roots that are kept."""

import tarfile
from pathlib import Path

__all__ = ["unpack"]


def unpack(archive: Path, directory: Path) -> None:
    """Unpacks one of our own archives; Python before 3.11.4, which Debian 12 has, knows no filters."""
    with tarfile.open(archive) as opened:
        if hasattr(tarfile, "data_filter"):
            opened.extractall(directory, filter="data")
        else:
            opened.extractall(directory)
