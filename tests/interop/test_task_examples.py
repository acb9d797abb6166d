"""The examples of tasks run: a runner of our own, and the SDK of Flyte in an environment of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import servers
from tests.servers.requiring import are_required

ROOT = Path(__file__).parents[2]


def _run(python: Path | str, example: str, program: str, tmp_path: Path) -> list[str]:
    shutil.copytree(ROOT / "examples" / example, tmp_path / example)
    done = subprocess.run(
        [python, program, f"file://{tmp_path}/root"],
        cwd=tmp_path / example,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "",
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path),
            "DO_NOT_TRACK": "1",
        },
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout.splitlines()


def test_a_runner_of_our_own(tmp_path: Path) -> None:
    """Forks side by side and a merge, a failed task that leaves nothing, and a second run that finds it all."""
    said = _run(sys.executable, "tasks", "run.py", tmp_path)

    once = [
        "made: model-1.txt, model-2.txt, model-3.txt, raw",
        "by: collect in run first",
        "from the data: [True, True, True]",
        "failed: ValueError: the disk is full, say",
        "left as it was: True",
    ]
    first = "first run: collect, fail, prepare, train, train, train"
    assert [*once, first, *once, "second run: fail"] == said


def test_flyte(tmp_path: Path) -> None:
    """Tasks of Flyte pass volumes in arguments, dataclasses and models, each made by its own action."""
    try:
        servers.flyte.install()
    except servers.ServerUnavailable as error:
        if are_required():
            raise
        pytest.skip(str(error))
    said = _run(servers.flyte.python, "flyte", "workflow.py", tmp_path)

    expected = [
        "failed: the disk is full, say",
        "made: model-1, model-2, numbers of model-1, model-2",
        "left as it was: True",
        "by: ['action', 'run']",
        "an action each: True",
    ]
    assert expected == [line for line in said if line.partition(":")[0] in {one.partition(":")[0] for one in expected}]
