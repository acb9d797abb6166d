"""A mount behaves as the local disk does: the same calls, the same answers."""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.mounts.behaviours import BEHAVIOURS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the table acts as several users, which takes root")


def _run(name: str, directory: Path, answers: Connection) -> None:
    os.chdir(directory)
    os.umask(0o022)
    try:
        answers.send(BEHAVIOURS[name]())
    except BaseException:  # noqa: BLE001 - it belongs into the report
        answers.send(traceback.format_exc())


def _answer(name: str, directory: Path) -> Any:
    """What a behaviour sees in a process of its own, which a hung mount cannot keep."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(name, directory, sending))
    process.start()
    sending.close()
    try:
        assert receiving.poll(60), f"{name} did not end below {directory}"
        return receiving.recv()
    finally:
        process.kill()
        process.join(10)


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_the_mount_answers_as_the_local_disk_does(name: str, pair: Callable[[str], tuple[Path, Path]]) -> None:
    """Every call of a behaviour has the same result, error or value, on a mount and on the local disk."""
    local, mounted = pair(name)

    assert _answer(name, mounted) == _answer(name, local)
