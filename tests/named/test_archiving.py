"""Tar streams of plain directories, in both directions."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from stowstore.named.archiving import copy_directory, import_directory_tar
from tests.transfer.trees import attributes, require_attributes, snapshot


def test_a_copy_has_the_users_attributes(tmp_path: Path) -> None:
    """Whatever bytes they are, of files nobody may write and of directories; hard links and times stay as they were."""
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "below").mkdir(parents=True)
    target.mkdir()
    require_attributes(source)
    (source / "below" / "file").write_bytes(b"content")
    os.setxattr(source / "below" / "file", "user.binary", bytes(range(256)))
    os.setxattr(source / "below", "user.empty", b"")
    (source / "below" / "file").chmod(0o444)
    os.link(source / "below" / "file", source / "second name")
    for path in source.rglob("*"):
        # A tarfile's times are floating point numbers of seconds.
        os.utime(path, (1_700_000_000, 1_700_000_000))

    copy_directory(source, target)

    assert attributes(source) == attributes(target)
    assert snapshot(source) == snapshot(target)


def test_what_only_the_superuser_sets_is_not_unpacked(tmp_path: Path) -> None:
    """A stream can give no file capabilities, as it can give none a set-id; what no attribute can be is an error."""
    require_attributes(tmp_path)
    import_directory_tar(tmp_path, _archive({"SCHILY.xattr.security.capability": "x", "SCHILY.xattr.user.a": "1"}))
    assert ["user.a"] == [name for name in os.listxattr(tmp_path / "name") if name != "security.selinux"]

    with pytest.raises(OSError, match="1 to 255 bytes"):
        import_directory_tar(tmp_path, _archive({"SCHILY.xattr.user." + "n" * 300: "x"}))


def _archive(headers: dict[str, str]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("name")
        info.pax_headers = headers
        archive.addfile(info)
    out.seek(0)
    return out
