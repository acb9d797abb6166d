"""Directories with one of everything."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["make_tree"]


def make_tree(tree: Path) -> Path:
    """One of everything that needs no privilege, enough of it for many pieces, and a file of several parts."""
    (tree / "empty").mkdir(parents=True)
    (tree / "many").mkdir()
    for number in range(450):
        (tree / "many" / f"{number:04}").write_bytes(b"%d " % number * (number % 500))
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "er" / "file").write_bytes(b"content")
    (tree / "large").write_bytes(os.urandom(3 << 20) * 6)
    (tree / "nothing").touch()
    os.link(tree / "large", tree / "second name")
    os.symlink("../deep/er", tree / "deep" / "link")
    Path(os.fsdecode(bytes(tree) + b"/latin-\xe9")).write_bytes(b"a name that is no UTF-8")
    os.mkfifo(tree / "fifo")
    with (tree / "sparse").open("wb") as file:
        file.truncate(20_000_000)
        file.seek(18_000_000)
        file.write(b"island")
    (tree / "deep" / "er" / "file").chmod(0o4755)
    os.utime(tree / "deep", ns=(1, 1_234_567_890_123_456_789))
    return tree
