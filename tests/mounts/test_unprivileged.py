"""Mounts of users who are not root: by fusermount3, and as root of a user namespace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_NOBODY = "65534"
_PROGRAM = """
import os
from stowstore import Volume
volume = Volume.new("mine", "file://{home}/root")
path = volume.blocking.mount("{home}/mnt", "{home}/meta", "{home}/cache")
(path / "file").write_text("mine")
assert os.stat(path / "file").st_uid == os.getuid()
first = volume.blocking.commit("first")
assert first.files.read_text("/file") == "mine"
volume.blocking.unmount()
assert os.listdir("{home}/mnt") == []
print("done")
"""


@pytest.fixture
def home(fuse: None) -> Iterator[Path]:
    """A directory of nobody's."""
    if os.geteuid() != 0:
        pytest.skip("becoming somebody else takes root")
    readable = subprocess.run(
        [
            "setpriv",
            f"--reuid={_NOBODY}",
            f"--regid={_NOBODY}",
            "--clear-groups",
            sys.executable,
            "-c",
            "import stowstore",
        ],
        capture_output=True,
        check=False,
    )
    if readable.returncode != 0:
        pytest.skip("nobody cannot run this interpreter")
    with tempfile.TemporaryDirectory(prefix="stowstore-nobody-") as directory:
        path = Path(directory)
        path.chmod(0o755)
        (path / "home").mkdir()
        os.chown(path / "home", int(_NOBODY), int(_NOBODY))
        yield path / "home"


def _as_nobody(home: Path, *wrapped: str) -> str:
    """Runs the program as nobody, where the device is open to everybody; in a mount namespace of its own."""
    node = home.parent / "fuse"
    if not node.exists():
        os.mknod(node, 0o020666, os.makedev(10, 229))
        node.chmod(0o666)
    words = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", *wrapped]
    words += [sys.executable, "-W", "error", "-c", _PROGRAM.format(home=home)]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", 'mount --bind "$0" /dev/fuse && exec "$@"', str(node), *words],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "STOWSTORE_RUNTIME_DIR": str(home / "run"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_fusermount_mounts_for_everybody(home: Path) -> None:
    """Without any privilege a user mounts, commits and unmounts."""
    if shutil.which("fusermount3") is None:
        pytest.skip("fusermount3 is setuid, so it has to be installed: apt-get install fuse3")
    assert _as_nobody(home) == "done\n"


def test_the_root_of_a_user_namespace_mounts(home: Path) -> None:
    """In a namespace of one's own mount(2) works without fusermount3."""
    allowed = subprocess.run(
        ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", "unshare", "-Urm", "true"],
        capture_output=True,
        check=False,
    )
    if allowed.returncode != 0:
        pytest.skip("this kernel lets nobody make user namespaces")
    assert _as_nobody(home, "unshare", "-Urm") == "done\n"


def test_a_device_that_is_closed_says_so(home: Path) -> None:
    """Where /dev/fuse is not open to the user, the error says which command opens it."""
    if os.stat("/dev/fuse").st_mode & 0o006:
        pytest.skip("/dev/fuse is open to everybody here")
    program = f"from stowstore import Volume; Volume.new('v', 'file://{home}/root').blocking.mount('{home}/mnt')"
    done = subprocess.run(
        ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={
            "HOME": str(home),
            "STOWSTORE_RUNTIME_DIR": str(home / "run"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
    )
    assert "chmod 666 /dev/fuse" in done.stderr
