"""A directory of the local disk and one of a mount, where the same is done by processes that a hang cannot keep."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stowstore.fuse import device

__all__ = ["Pair", "differences", "paired"]

_REPOSITORY = Path(__file__).parents[2]
#: How long a family may take on one side, seconds: two of them are less than the time limit of a test.
_LIMIT = 50.0

#: Mounts, anew for each line that it is given; and unmounts when whoever started it is no more.
_KEEPER = """
import sys
from pathlib import Path
from stowstore import Volume
from stowstore.mounts.options import MountOptions

directory, mode = Path(sys.argv[1]), sys.argv[2]
volume = Volume.new("data", f"file://{directory}/root")

def mount():
    print(volume.blocking.mount(directory / "mnt", timeout=60, options=MountOptions(kernel_cache=mode)), flush=True)

mount()
for _ in sys.stdin:
    volume.blocking.unmount()
    mount()
volume.blocking.unmount()
"""


class Pair:
    """The two sides."""

    def __init__(self, local: Path, mount: Path, keeper: subprocess.Popen[str]) -> None:
        self._local = local
        self._mount = mount
        self._keeper = keeper

    def unlike(self, family: str) -> dict[str, list[str]]:
        """What the behaviours of a family see otherwise on the mount, by their names."""
        wanted, found = self._answers(family, self._local), self._answers(family, self._mount)
        told = {name: differences(wanted.get(name), found.get(name)) for name in wanted | found}
        return {name: lines for name, lines in told.items() if lines}

    def unlike_anew(self, family: str) -> str:
        """What is left of a family that is not the same once everything has been unmounted and mounted again."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write("again\n")
        self._keeper.stdin.flush()
        assert self._keeper.stdout.readline().strip() == os.fspath(self._mount), "it could not be mounted again"
        done = subprocess.run(
            [sys.executable, "-m", "tests.mounts.trees", self._local / family, self._mount / family],
            cwd=_REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
            timeout=_LIMIT,
            check=False,
        )
        assert done.returncode == 0 or done.stderr
        return done.stderr

    def _answers(self, family: str, side: Path) -> dict[str, Any]:
        with subprocess.Popen(
            [sys.executable, "-m", "tests.mounts.behaviours", family, side / family],
            cwd=_REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                out, complaint = process.communicate(timeout=_LIMIT)
            except subprocess.TimeoutExpired as expired:
                _end(process, self._mount)
                told = list(_unpickled(expired.stdout or b""))
                raise AssertionError(f"{family} did not end on {side}, after {told[-1:]}") from None
        assert process.returncode == 0, complaint.decode()
        told = list(_unpickled(out))
        failed = [f"{name} on {side}: {complaint[-1500:]}" for name, _, complaint in told if complaint]
        assert not failed, "\n".join(failed)
        return {name: answer for name, answer, _ in told}


@contextmanager
def paired(mode: str) -> Iterator[Pair]:
    """A pair with one mode of the kernel's cache; the mount is another process's, and ends with this one at the latest.

    It lies in a directory that all users get into: pytest closes its own to them whenever a run begins.
    """
    directory = Path(tempfile.mkdtemp(prefix="stow-pair-"))
    directory.chmod(0o711)
    local = directory / "local"
    local.mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
        "XDG_CACHE_HOME": str(directory / "cache"),
        "STOWSTORE_RUNTIME_DIR": str(directory / "run"),
    }
    with subprocess.Popen(
        [sys.executable, "-c", _KEEPER, directory, mode],
        cwd=_REPOSITORY,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        mount = Path(keeper.stdout.readline().strip())
        try:
            assert mount == directory / "mnt", "it could not be mounted"
            yield Pair(local, mount, keeper)
        finally:
            keeper.stdin.close()
            try:
                keeper.wait(_LIMIT)
            except subprocess.TimeoutExpired:
                _end(keeper, mount)
            if device.find_mount(mount) is not None:
                device.unmount(mount, patience=0.1)
            shutil.rmtree(directory, ignore_errors=True)


def differences(wanted: Any, found: Any, where: str = "") -> list[str]:
    """What differs, by where it is: tables are long, and what differs is little."""
    if isinstance(wanted, dict) and isinstance(found, dict) and wanted.keys() == found.keys():
        pairs = [(f"{where}/{key}", wanted[key], found[key]) for key in wanted]
    elif isinstance(wanted, (list, tuple)) and isinstance(found, (list, tuple)) and len(wanted) == len(found):
        pairs = [(f"{where}/{place}", *both) for place, both in enumerate(zip(wanted, found, strict=True))]
    else:
        return [] if wanted == found else [f"{where}: {found!r} on the mount, {wanted!r} on the local disk"]
    return [line for place, left, right in pairs for line in differences(left, right, place)]


def _end(process: subprocess.Popen[Any], mount: Path) -> None:
    """Kills a process, which takes cutting off the mount where it hangs in it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL) if os.getpgid(process.pid) == process.pid else process.kill()
    with contextlib.suppress(OSError):
        device.cut_off(mount)
    process.kill()


def _unpickled(data: bytes) -> Iterator[tuple[str, Any, str]]:
    stream = io.BytesIO(data)
    while stream.tell() < len(data):
        try:
            yield pickle.load(stream)
        except (EOFError, pickle.UnpicklingError):
            return
