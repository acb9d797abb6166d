"""A mount behaves as the local disk does: the same calls, the same answers."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.mounts.behaviours import FAMILIES
from tests.mounts.pairs import Pair

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the table acts as several users, which takes root")

#: What a mount does otherwise with the kernel cache `writeback`, by behaviour and place; `docs/posix.md` tells why.
_KNOWN = {
    "data_and_holes_alternate": ("/1: ",),
    "each_call_changes_its_times": ("/truncate to the same/",),
}
#: Names, permissions and what are no files are the same whoever gathers the writes.
_INDEPENDENT = ("kinds", "links", "names", "permissions", "renames")


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

    told = {
        name: [line for line in lines if not line.startswith(known.get(name, ()))]
        for name, lines in pair(mode).unlike(family).items()
    }

    unknown = [f"{name}{line}" for name, lines in told.items() for line in lines]
    assert not unknown, "\n".join(unknown)
