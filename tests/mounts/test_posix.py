"""A mount behaves as the local disk does: the same calls, the same answers."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

from tests.mounts.behaviours import BEHAVIOURS
from tests.mounts.conftest import Pair

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the table acts as several users, which takes root")


#: What a mount does otherwise with the kernel cache `writeback`, by behaviour and place; `docs/posix.md` tells why.
_KNOWN = {
    "data_and_holes_alternate": ("/1: ",),
    "each_call_changes_its_times": ("/truncate to the same/",),
}


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    """Makes processes quickly, none of which has threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.mounts.behaviours"])
    return context


@pytest.mark.parametrize(
    ("pair", "name"),
    [
        (mode, name)
        for mode in ("writethrough", "writeback")
        for name, behaviour in BEHAVIOURS.items()
        # Names and permissions are the same whoever gathers the writes.
        if mode == "writethrough" or not behaviour.__module__.endswith(("names", "links", "renames", "permissions"))
    ],
    indirect=["pair"],
)
def test_the_mount_answers_as_the_local_disk_does(name: str, pair: Pair, server: ForkServerContext) -> None:
    """Every call of a behaviour has the same result, error or value, on a mount and on the local disk."""
    local, mounted = pair.fresh(name)

    wanted, found = _answer(server, name, local), _answer(server, name, mounted)

    known = _KNOWN.get(name, ()) if pair.mode == "writeback" else ()
    unknown = [line for line in _differences(wanted, found) if not line.startswith(known)]
    assert not unknown, "\n".join(unknown)


def _run(name: str, directory: Path, answers: Connection) -> None:
    os.chdir(directory)
    os.umask(0o022)
    try:
        answers.send(BEHAVIOURS[name]())
    except BaseException:  # noqa: BLE001 - it belongs into the report
        answers.send(traceback.format_exc())


def _answer(server: ForkServerContext, name: str, directory: Path) -> Any:
    """What a behaviour sees in a process of its own, which a hung mount cannot keep."""
    receiving, sending = server.Pipe(duplex=False)
    process = server.Process(target=_run, args=(name, directory, sending))
    process.start()
    sending.close()
    try:
        assert receiving.poll(60), f"{name} did not end below {directory}"
        return receiving.recv()
    finally:
        process.kill()
        process.join(10)


def _differences(wanted: Any, found: Any, where: str = "") -> list[str]:
    """What differs, by where it is: tables are long, and what differs is little."""
    if isinstance(wanted, dict) and isinstance(found, dict) and wanted.keys() == found.keys():
        pairs = [(f"{where}/{key}", wanted[key], found[key]) for key in wanted]
    elif isinstance(wanted, (list, tuple)) and isinstance(found, (list, tuple)) and len(wanted) == len(found):
        pairs = [(f"{where}/{place}", *both) for place, both in enumerate(zip(wanted, found, strict=True))]
    else:
        return [] if wanted == found else [f"{where}: {found!r} on the mount, {wanted!r} on the local disk"]
    return [line for place, left, right in pairs for line in _differences(left, right, place)]
