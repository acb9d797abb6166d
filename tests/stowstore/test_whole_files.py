"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from stowstore.whole_files import Existing, whole_file

NAMES = ("a", "n" * 255, "é" * 127, ".hidden", "with space")


def _fail(target: Path) -> None:
    with whole_file(target) as file:
        file.write(b"half")
        raise KeyboardInterrupt


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:12])
def test_nothing_is_seen_before_the_end(tmp_path: Path, name: str) -> None:
    """Whatever the name, the file is there after the block and not before, and no draft stays."""
    with whole_file(tmp_path / name) as file:
        file.write(b"first ")
        file.flush()
        assert not (tmp_path / name).exists()
        file.write(b"second")
    assert (tmp_path / name).read_bytes() == b"first second"
    assert os.listdir(tmp_path) == [name]


def test_an_exception_leaves_what_was_there(tmp_path: Path) -> None:
    """Leaving the block by any exception keeps the old file and no draft."""
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        _fail(target)
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_what_appeared_meanwhile_is_kept(tmp_path: Path) -> None:
    """A file to be kept wins even when it appears while the draft is written."""
    target = tmp_path / "file"
    with pytest.raises(FileExistsError), whole_file(target, existing=Existing.KEEP) as file:  # noqa: PT012 - the race
        file.write(b"late")
        target.write_bytes(b"first")
    assert target.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["file"]


def test_of_many_writers_one_wins_whole(tmp_path: Path) -> None:
    """Writers of one name at the same moment leave the bytes of one of them."""
    target = tmp_path / "file"

    def write(letter: bytes) -> None:
        with whole_file(target, durable=True) as file:
            file.write(letter * 100_000)

    writers = [threading.Thread(target=write, args=(bytes([65 + i]),)) for i in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    content = target.read_bytes()
    assert len(content) == 100_000
    assert len(set(content)) == 1
    assert os.listdir(tmp_path) == ["file"]


def test_permissions_are_those_of_a_new_file(tmp_path: Path) -> None:
    """The umask decides, as for any file a program makes; a block that sets a mode has its way."""
    with open(tmp_path / "plain", "wb"), whole_file(tmp_path / "whole"), whole_file(tmp_path / "secret") as secret:
        os.fchmod(secret.fileno(), 0o600)
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_symbolic_link_is_replaced(tmp_path: Path) -> None:
    """A link with the name leads nobody to another file."""
    (tmp_path / "elsewhere").write_bytes(b"untouched")
    (tmp_path / "link").symlink_to("elsewhere")
    with whole_file(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "elsewhere").read_bytes() == b"untouched"
    assert not (tmp_path / "link").is_symlink()
