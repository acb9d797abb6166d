"""Commands with ``--dask`` whose process is killed, and run again: nothing is half done, and little is done twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.cluster.conftest import Stow
from tests.cluster.waiting import wait_for_file
from tests.records.places import make, tree

_PROJECT = Path(__file__).resolve().parents[2]
_PATIENCE = 90.0
_FILES = 6000


def _killed(begun: Callable[[], bool], *args: str) -> None:
    """Runs ``stowstore`` in a process of its own and kills it once it has begun."""
    running = subprocess.Popen(
        [sys.executable, "-m", "stowstore", *args], cwd=_PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _until(lambda: begun() or running.poll() is not None)
    finally:
        running.kill()
    assert -signal.SIGKILL == running.wait(timeout=_PATIENCE)


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not happened():
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(0.005)


def test_a_collection_that_is_killed(stow: Stow, dask: str, tmp_path: Path) -> None:
    """While it deletes: what it has not come to goes the next time, and what is needed is whole."""
    url = f"file://{tmp_path}/root"
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        (source / f"{number}").write_bytes(os.urandom(20_000))
    assert 0 == stow("volume", "create", f"{url}#one").status
    assert 0 == stow("volume", "import", str(source), f"{url}#one").status
    packs = tmp_path / "root" / "packs"
    for number in range(_FILES):
        name = number.to_bytes(16, "big").hex()
        pack = packs / name[-2:] / name
        pack.parent.mkdir(exist_ok=True)
        pack.write_bytes(b"what nobody needs")
        os.utime(pack, (1, 1))
    before = _files_below(packs)
    collect = ("volume", "gc", url, "--grace", "0s", "--settle", "0s", "--yes", "--force", "--dask", dask)

    _killed(lambda: _files_below(packs) < before, *collect)
    left = _files_below(packs)
    assert before - _FILES < left < before
    again = stow(*collect, "--json")
    assert (0, left - (before - _FILES)) == (again.status, again.json["deleted"]), again.err
    assert before - _FILES == _files_below(packs)
    assert stow("volume", "check", url, "--depth", "data", "--json", "--dask", dask).json["whole"]


def test_a_check_that_is_killed(stow: Stow, client: Any, dask: str, tmp_path: Path) -> None:
    """Its pieces are dropped by the cluster, and the next check finds what one without a cluster finds."""
    url = f"file://{tmp_path}/root"
    source = tmp_path / "source"
    source.mkdir()
    for number in range(40):
        (source / f"{number}").write_bytes(os.urandom(100_000))
    assert 0 == stow("volume", "create", f"{url}#one").status
    assert 0 == stow("volume", "import", str(source), f"{url}#one").status
    check = ("volume", "check", url, "--depth", "data", "--json")

    # Workers that are busy keep the check from ending before it is killed.
    go = tmp_path / "go"
    busy = [client.submit(partial(wait_for_file, str(go)), number, pure=False) for number in range(6)]
    known = {future.key for future in busy}
    _killed(lambda: bool(_tasks(client) - known), *check, "--dask", dask)
    go.touch()
    client.gather(busy)
    del busy
    _until(lambda: not _tasks(client))
    here, spread = stow(*check), stow(*check, "--dask", dask)
    assert (0, 0, here.json) == (here.status, spread.status, spread.json)


def test_a_push_that_is_killed(stow: Stow, dask: str, tmp_path: Path) -> None:
    """While its workers send files: there is no record until the next push, which sends those that are missing."""
    record = make(tmp_path / "record", {f"{number}": b"%d " % number * 20 for number in range(1, _FILES)})
    url = f"file://{tmp_path}/root"
    push = ("record", "push", url, str(record.path), "--dask", dask)
    sent = tmp_path / "root" / "records" / record.uuid / "f"

    _killed(lambda: _files_below(sent) > 0, *push)
    assert 3 == stow("record", "pull", url, record.uuid, "--to", str(tmp_path / "half")).status
    again = stow(*push, "--json")
    assert 0 == again.status, again.err
    assert 0 < again.json[0]["sent_files"] < again.json[0]["files"]
    pulled = stow("record", "pull", url, record.uuid, "--to", str(tmp_path / "pulled"), "--json")
    assert tree(record.path) == tree(Path(pulled.json["directories"][0]))


def _files_below(directory: Path) -> int:
    """How many files there are, of which some go meanwhile."""
    return sum(len(names) for _, _, names in os.walk(directory))


def _tasks(client: Any) -> set[str]:
    """What the scheduler knows of that is to be done or was."""
    found: list[str] = client.run_on_scheduler(_known_tasks)
    return set(found)


def _known_tasks(dask_scheduler: Any) -> list[str]:
    return list(dask_scheduler.tasks)
