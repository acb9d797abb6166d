"""Mounting without being root, inside a user namespace, and where there is no FUSE.

Every test runs a program in a mount namespace of its own, so that what it does to ``/dev/fuse`` is seen by nobody else
and gone with it.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mounting.places import python
from tests.servers import ServerUnavailable
from tests.servers.installing import cache_directory, missing_debian, system_key, unpack_debian
from tests.servers.requiring import are_required

_NOBODY = 65534

#: Mounts, writes, publishes and unmounts; says who it was, how it was mounted, and what it has published.
_MOUNTS = """
import os
from pathlib import Path
from stowstore import Volume
from stowstore.fuse import device
place = Path(sys.argv[1])
volume = Volume.new("data", bucket=f"file://{place}/root")
path = volume.blocking.mount(place / "mnt", place / "meta", place / "cache", timeout=30)
(path / "f").write_text("hello")
print(os.geteuid(), (path / "f").stat().st_uid, device.find_mount(path).kind)
print(volume.blocking.finalize().blocking.files.read_text("/f"))
print(device.find_mount(path))
"""

#: Says the error and its hint.
_FAILS = """
from pathlib import Path
from datastore.errors import StoreError
from stowstore import Volume
place = Path(sys.argv[1])
try:
    Volume.new("data", bucket=f"file://{place}/root").blocking.mount(place / "mnt", timeout=30)
except StoreError as error:
    print(type(error).__name__, error, error.hint)
"""

#: Gives everybody ``/dev/fuse`` as a system with udev does, and this namespace alone a setuid fusermount3.
_OPEN_DEVICE = """
mount -t tmpfs -o mode=755 none "$0"
mknod -m 666 "$0/fuse" c 10 229
mount --bind "$0/fuse" /dev/fuse
mkdir "$0/bin"
mkdir -m 777 "$0/place"
"""


@functools.cache
def _fusermount3() -> Path:
    """The helper of Debian's fuse3, installed or unpacked beside the test servers."""
    found = shutil.which("fusermount3")
    if found is not None:
        return Path(found)
    missing = missing_debian()
    if missing is not None:
        raise ServerUnavailable(missing)
    folder = cache_directory() / f"fuse3-{system_key()}"
    if not (folder / "packages.txt").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as draft:
            unpack_debian(["fuse3"], Path(draft, "fuse3"))
            shutil.rmtree(folder, ignore_errors=True)
            Path(draft, "fuse3").rename(folder)
    return next(path for path in folder.rglob("fusermount3") if path.is_file())


@pytest.fixture
def helper() -> Path:
    """fusermount3, without setuid."""
    try:
        return _fusermount3()
    except (ServerUnavailable, StopIteration) as error:
        reason = f"no fusermount3: {error}"
    if are_required():
        pytest.fail(f"{reason} (required, because CI or STOWSTORE_REQUIRE_SERVERS is set)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory that every user reaches, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="stow-mounting-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory)


def _isolated(script: str, scratch: Path, *command: str, isolation: tuple[str, ...] = ()) -> list[str]:
    """Runs a script, then a command, in a mount namespace; the lines they say."""
    for program in ("unshare", "setpriv"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    place = scratch / "place"
    environment = {
        **os.environ,
        "HOME": str(place),
        "XDG_CACHE_HOME": str(place / "cache-home"),
        "STOWSTORE_RUNTIME_DIR": str(place / "run"),
        "PATH": f"{scratch}/bin:{os.environ['PATH']}",
    }
    environment.pop("XDG_RUNTIME_DIR", None)
    done = subprocess.run(
        ["unshare", "--mount", *isolation, "sh", "-ec", f'{script}\nexec "$@"', scratch, *command],
        capture_output=True,
        text=True,
        timeout=90,
        env=environment,
        check=False,
    )
    if "unshare failed" in done.stderr and "permitted" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr.strip()}")
    assert 0 == done.returncode, done.stderr
    return done.stdout.splitlines()


def _as_nobody(code: str, *arguments: object) -> list[str]:
    """As a user without rights, who may yet read this interpreter wherever its files lie."""
    may_read = "+dac_read_search"
    ids = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
    return ["setpriv", *ids, f"--inh-caps={may_read}", f"--ambient-caps={may_read}", *python(code, *arguments)]


def test_others_than_root_mount_by_fusermount3(scratch: Path, helper: Path) -> None:
    """The whole life of a mount without a right of root's."""
    script = f'{_OPEN_DEVICE}\ninstall -m 4755 {helper} "$0/bin/fusermount3"'
    said = _isolated(script, scratch, *_as_nobody(_MOUNTS, scratch / "place"))
    assert [f"{_NOBODY} {_NOBODY} fuse.stowstore", "hello", "None"] == said


def test_without_fusermount3_the_error_says_what_to_install(scratch: Path) -> None:
    """To whoever is not root."""
    hidden = 'for found in $(which -a fusermount3); do mount --bind /dev/null "$found"; done'
    (said,) = _isolated(f"{_OPEN_DEVICE}\n{hidden}", scratch, *_as_nobody(_FAILS, scratch / "place"))
    assert said.startswith("NotSupported")
    assert "apt-get install fuse3" in said


def test_root_of_a_user_namespace_mounts_by_itself(scratch: Path) -> None:
    """With mount(2), and no rights outside the namespace."""
    said = _isolated(
        'mkdir "$0/place"', scratch, *python(_MOUNTS, scratch / "place"), isolation=("--user", "--map-root-user")
    )
    assert ["0 0 fuse.stowstore", "hello", "None"] == said


def test_a_device_that_is_closed_is_said_to_be(scratch: Path, helper: Path) -> None:
    """Where /dev/fuse is 0600 nobody but root mounts, whatever is installed; the error says what root can do."""
    script = f'{_OPEN_DEVICE}\nchmod 600 /dev/fuse\ninstall -m 4755 {helper} "$0/bin/fusermount3"'
    (said,) = _isolated(script, scratch, *_as_nobody(_FAILS, scratch / "place"))
    assert said.startswith("PermissionDenied")
    assert "chmod 666 /dev/fuse" in said


def test_without_the_device_the_error_says_what_to_grant(scratch: Path) -> None:
    """As in a container that was given no /dev/fuse."""
    script = 'mkdir "$0/place"\nmount -t tmpfs none /dev\nmknod -m 666 /dev/null c 1 3'
    (said,) = _isolated(script, scratch, *python(_FAILS, scratch / "place"))
    assert said.startswith("NotSupported")
    assert "/dev/fuse is missing" in said
    assert "--device /dev/fuse" in said


def test_without_the_capability_the_error_says_what_to_grant(scratch: Path) -> None:
    """As in a container that has the device and may not mount."""
    command = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", *python(_FAILS, scratch / "place")]
    (said,) = _isolated('mkdir "$0/place"', scratch, *command)
    assert said.startswith("PermissionDenied")
    assert "SYS_ADMIN" in said
