"""What leaves a volume for a disk that is nearly full arrives whole, or there is an error."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowstore.config import ContainerPolicy
from stowstore.named.copying import copy_in, copy_out
from stowstore.transfer import export_directory, import_directory
from stowstore.versions.address import open_root_store
from stowstore.versions.root import Root
from stowstore.versions.session import Session

_ROOM = 1536 << 10


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1.5 MiB."""
    if os.geteuid() != 0:
        pytest.skip("a tmpfs of a given size is mounted as root")
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_ROOM}", "tmpfs", directory], check=True, timeout=20)
    yield directory
    subprocess.run(["umount", "-l", directory], check=True, timeout=20)


def test_an_export_that_does_not_fit_fails(small: Path, tmp_path: Path) -> None:
    """Its last piece is taken in part: it is no success because the size can be set all the same."""
    store, base = open_root_store(f"file://{tmp_path}/root", create=ContainerPolicy.IF_MISSING)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "f").write_bytes(os.urandom(2 << 20))
    with store, Session.write(Root.create(store, base), "data") as session:
        import_directory(session.files, tmp_path / "source")
        with pytest.raises(OSError, match="No space"):
            export_directory(session.files, small)


@pytest.mark.parametrize("copies_in", [True, False])
def test_a_copy_that_does_not_fit_fails(small: Path, tmp_path: Path, copies_in: bool) -> None:
    """The same of copies into and out of named volumes."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_bytes(os.urandom(2 << 20))

    def copy() -> None:
        if copies_in:
            copy_in(source / "f", small, "/f", recursive=False)
        else:
            copy_out(source, "/f", small / "f", recursive=False)

    with pytest.raises(OSError, match="No space"):
        copy()
