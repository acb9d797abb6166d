"""What is done to a directory while it is measured, in a process of its own: ``mount_worker.py TASK DIRECTORY FILES``.

Standard library only: it starts fast, and knows nothing of what it measures.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

__all__ = ["TASKS"]

_DIRECTORIES: Final = 50
_MIB: Final = 1 << 20
_PAGE: Final = 4096
_READS: Final = 50_000


def small_files(directory: Path, files: int) -> dict[str, float]:
    """Operations a second on files of 4 KiB in fifty directories."""
    data = os.urandom(_PAGE)
    directories = [directory / f"d{number}" for number in range(_DIRECTORIES)]
    for one in directories:
        one.mkdir()
    paths = [str(directories[number % _DIRECTORIES] / f"f{number}") for number in range(files)]

    def create() -> None:
        for path in paths:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            os.write(descriptor, data)
            os.close(descriptor)

    def read() -> None:
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY)
            os.read(descriptor, _PAGE)
            os.close(descriptor)

    def listed() -> None:
        for one in directories:
            for entry in os.scandir(one):
                entry.stat()

    steps: Mapping[str, Callable[[], object]] = {
        "create": create,
        "stat": lambda: [os.stat(path) for path in paths],
        "open and read": read,
        "list and stat": listed,
        "rename": lambda: [os.rename(path, f"{path}x") for path in paths],
        "unlink": lambda: [os.unlink(f"{path}x") for path in paths],
    }
    found = {}
    for name, step in steps.items():
        began = time.perf_counter()
        step()
        found[name] = files / (time.perf_counter() - began)
    return found


def stream(directory: Path, mebibytes: int) -> dict[str, float]:
    """MiB a second of one large file, written in calls of 1 MiB, and read when the kernel has forgotten it."""
    data = os.urandom(_MIB)
    descriptor = os.open(directory / "large", os.O_CREAT | os.O_WRONLY)
    began = time.perf_counter()
    for _ in range(mebibytes):
        os.write(descriptor, data)
    written = mebibytes / (time.perf_counter() - began)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    descriptor = os.open(directory / "large", os.O_RDONLY)
    began = time.perf_counter()
    while os.read(descriptor, _MIB):
        pass
    cold = mebibytes / (time.perf_counter() - began)
    random_reads = _random_reads(descriptor, mebibytes << 20)
    os.close(descriptor)
    return {"write": written, "read, cold kernel": cold, "random read of 4 KiB, warm kernel": random_reads}


def reads(directory: Path, mebibytes: int) -> dict[str, float]:
    """MiB a second, and random reads of 4 KiB a second, of a large file that the kernel has not in memory."""
    found = {}
    for name in ("read a version, cold kernel", "random read of 4 KiB of a version, cold kernel"):
        descriptor = os.open(directory / "large", os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if name.startswith("random"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
            found[name] = _random_reads(descriptor, mebibytes << 20)
        else:
            began = time.perf_counter()
            while os.read(descriptor, _MIB):
                pass
            found[name] = mebibytes / (time.perf_counter() - began)
        os.close(descriptor)
    return found


def beside(directory: Path, _: int) -> dict[str, float]:
    """Small files made a second, and how long that and a stat took, while something else goes on.

    It ends when its standard input does.
    """
    directory.mkdir()
    data = os.urandom(_PAGE)
    making: list[float] = []
    asking: list[float] = []
    began = time.perf_counter()
    while not select.select([sys.stdin], [], [], 0)[0]:
        path = f"{directory}/f{len(making)}"
        start = time.perf_counter()
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        os.write(descriptor, data)
        os.close(descriptor)
        made = time.perf_counter()
        os.stat(path)
        making.append(made - start)
        asking.append(time.perf_counter() - made)
    took = time.perf_counter() - began
    asking.sort()
    return {
        "files a second": len(making) / took,
        "stat, 99th percentile": asking[len(asking) * 99 // 100],
        "longest": max(*making, *asking),
    }


def walk(directory: Path, _: int) -> dict[str, float]:
    """Seconds that ``ls -lR`` takes."""
    began = time.perf_counter()
    subprocess.run(["ls", "-lR"], cwd=directory, check=True, stdout=subprocess.DEVNULL)
    return {"ls -lR": time.perf_counter() - began}


def _random_reads(descriptor: int, size: int) -> float:
    """Reads of a page a second, at places without order."""
    places = [random.randrange(size // _PAGE) * _PAGE for _ in range(_READS)]
    began = time.perf_counter()
    for place in places:
        os.pread(descriptor, _PAGE, place)
    return _READS / (time.perf_counter() - began)


def programs(directory: Path, _: int) -> dict[str, float]:
    """Seconds that clones and an archive take."""
    found = {}
    project = Path(__file__).resolve().parents[1]
    archive = Path(os.environ["STOWSTORE_BENCH_ARCHIVE"])
    if not archive.exists():
        with tarfile.open(archive, "w") as tar:
            tar.add(project / "stowstore", "stowstore")
            tar.add(project / "tests", "tests", filter=lambda one: None if "__pycache__" in one.name else one)
    steps = {
        "untar": ["tar", "-xf", str(archive)],
        "ls -lR": ["ls", "-lR"],
        "rm -rf": ["rm", "-rf", "stowstore", "tests"],
    }
    if (project / ".git").exists():
        packed, loose = _repositories(project, archive.parent)
        # As from a server, in one pack; and file by file, as a clone of a directory copies what is not packed.
        steps["git clone"] = ["git", "clone", "-q", f"file://{packed}", "clone"]
        steps["git clone of loose objects"] = ["git", "clone", "-q", "--no-hardlinks", str(loose), "copy"]
    for name, command in steps.items():
        began = time.perf_counter()
        subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL)
        found[name] = time.perf_counter() - began
    return found


def _repositories(project: Path, beside: Path) -> tuple[Path, Path]:
    """The history of this project, in one pack and in a file an object."""
    packed, loose = beside / "packed.git", beside / "loose.git"
    if not loose.exists():
        subprocess.run(["git", "clone", "-q", "--bare", f"file://{project}", str(packed)], check=True)
        subprocess.run(["git", "init", "-q", "--bare", str(loose)], check=True)
        (pack,) = (packed / "objects" / "pack").glob("*.pack")
        with pack.open("rb") as content:
            subprocess.run(["git", "unpack-objects", "-q"], cwd=loose, stdin=content, check=True)
        for name in ("HEAD", "packed-refs"):
            shutil.copy(packed / name, loose)
    return packed, loose


TASKS = {task.__name__: task for task in (small_files, stream, programs, reads, beside, walk)}

#: Tasks for a directory of their own, which is made for them.
_OWN: Final = frozenset({"small_files", "stream", "programs"})


def main() -> None:
    """Does one task and prints what it found."""
    name, directory, count = sys.argv[1:]
    target = Path(directory)
    if name in _OWN:
        target.mkdir()
    print(json.dumps(TASKS[name](target, int(count))))


if __name__ == "__main__":
    main()
