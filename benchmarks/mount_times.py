"""How long it takes until a mount answers, of few files and of many, and what walking them takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.model import Measure, Row
from benchmarks.mount_places import WORKER, Progress, Sizes
from stowstore import Volume

__all__ = ["mount_times"]

_SECONDS: Final = 1800
_DIRECTORY: Final = 1000


def mount_times(local: Path, sizes: Sizes, progress: Progress) -> Iterator[Row]:
    """Mounts versions of several sizes, each by a process of its own, and walks through them."""
    root = f"file://{local}/times"
    for files in sizes.namespaces:
        progress(f"mount: {files:,} files are made")
        volume = Volume.new(f"files-{files}", root)
        with volume.blocking as made:
            for number in range(files):
                if number % _DIRECTORY == 0:
                    made.mkdir(f"/d{number // _DIRECTORY}")
                made.write_bytes(f"/d{number // _DIRECTORY}/f{number}", b"")
            version = volume.blocking.commit()
        progress(f"mount: {files:,} files")
        found = [_mounted(version.locator or "", local, walks=False) for _ in range(max(sizes.rounds, 2) + 1)]
        best = min(one["mount"] for one in found)
        yield _row(f"mount {files:,} files until they are listed", best, "under 0.5 s, flat", best < 0.5)
        walked = _mounted(version.locator or "", local, walks=True)
        judged = files == 100_000
        yield _row(
            f"ls -lR of {files:,} files, cold",
            walked["walk"],
            "under 5 s" if judged else "",
            walked["walk"] < 5 if judged else None,
        )
        yield Row(
            group="mount",
            what=f"memory of the daemon after {files:,} files were walked",
            client="stowstore",
            figure=f"{walked['memory'] / (1 << 20):,.0f} MiB",
            target="under 300 MiB",
            met=walked["memory"] < 300 << 20,
        )


def _row(what: str, wall: float, target: str, met: bool | None) -> Row:
    return Row(group="mount", what=what, client="stowstore", wall=wall, measure=Measure.WALL, target=target, met=met)


def _mounted(locator: str, local: Path, *, walks: bool) -> dict[str, Any]:
    """As where it is installed: the daemon finds its modules compiled, whatever this process was told of that."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment.setdefault("PYTHONPYCACHEPREFIX", str(local / "compiled"))
    done = subprocess.run(
        [sys.executable, "-c", _MOUNTING, locator, f"{local}/times-mnt", str(WORKER) if walks else ""],
        env=environment,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


_MOUNTING: Final = """
import json, os, subprocess, sys, time
from stowstore import Volume
from stowstore.mounts import table
version = Volume.blocking.from_locator(sys.argv[1])
began = time.perf_counter()
path = version.blocking.mount(sys.argv[2])
os.listdir(path)
found = {"mount": time.perf_counter() - began}
if sys.argv[3]:
    done = subprocess.run(
        [sys.executable, "-S", sys.argv[3], "walk", path, "0"], capture_output=True, text=True, check=True
    )
    found["walk"] = json.loads(done.stdout)["ls -lR"]
    with open(f"/proc/{table.find(path).pid}/status") as status:
        found["memory"] = next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS:"))
version.blocking.unmount()
print(json.dumps(found))
"""
