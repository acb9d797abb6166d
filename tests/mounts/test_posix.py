"""A mount behaves as the local disk does: the same calls, the same answers."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mounts.behaviours import FAMILIES, mounts
from tests.mounts.conftest import Mounting
from tests.mounts.pairs import Pair, differences

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the table acts as several users, which takes root")

#: What a mount does otherwise with the kernel cache `writeback`, by behaviour and place; `docs/posix.md` tells why.
_KNOWN = {
    "data_and_holes_alternate": ("/1: ",),
    "each_call_changes_its_times": ("/truncate to the same/",),
}
#: Names, permissions and what are no files are the same whoever gathers the writes.
_INDEPENDENT = ("kinds", "links", "names", "permissions", "renames")


#: Families about bytes, of which the kernel would show what it has cached of them, right or wrong.
_OF_BYTES = ("files", "sharing", "space")


@pytest.mark.parametrize(
    ("mode", "family"),
    [
        (mode, family)
        for mode in ("writethrough", "writeback")
        for family in FAMILIES
        if mode == "writethrough" or family not in _INDEPENDENT
    ],
)
def test_the_mount_answers_as_the_local_disk_does(mode: str, family: str, pair: Callable[[str], Pair]) -> None:
    """Every call of every behaviour has the same result, error or value, on a mount and on the local disk."""
    known = _KNOWN if mode == "writeback" else {}
    both = pair(mode)

    told = {
        name: [line for line in lines if not line.startswith(known.get(name, ()))]
        for name, lines in both.unlike(family).items()
    }

    unknown = [f"{name}{line}" for name, lines in told.items() for line in lines]
    assert not unknown, "\n".join(unknown)
    if family in _OF_BYTES:
        assert not both.unlike_anew(family)


def test_a_read_only_mount_refuses_what_a_read_only_disk_does(mounting: Mounting) -> None:
    """Every call on a version that is mounted says what it says on a directory that is mounted read-only."""
    volume = mounting.volume()
    mounts.furnish(os.fspath(mounting.mount(volume)))
    version = mounting.mount(volume.blocking.finalize(), "version")
    real, view = mounting.directory / "real", mounting.directory / "view"
    real.mkdir()
    view.mkdir()
    mounts.furnish(os.fspath(real))

    wanted, found = _called("refusals_when_bound", real, view), _called("refusals", version)

    assert not differences(wanted, found)
    assert sum(said == "EROFS" for said in found.values()) > 100


def _called(function: str, *paths: Path) -> Any:
    """What a function of `mounts` gives in a process of its own."""
    program = (
        "import pickle, sys; from tests.mounts.behaviours import mounts; "
        f"sys.stdout.buffer.write(pickle.dumps(mounts.{function}(*sys.argv[1:])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *paths],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    return pickle.loads(done.stdout)
