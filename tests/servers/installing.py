"""Servers from Debian, PyPI and npm packages, into folders of their own; nothing here needs root.

Debian packages are downloaded with apt, without its locks, and unpacked with `dpkg -x`, not installed. apt fetches
only what the machine lacks, so an unpacked tree fits the system it was made on: `system_key` belongs into its key.
"""

import atexit
import functools
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.servers.model import ServerUnavailable

__all__ = [
    "cache_directory",
    "ensure_program",
    "install_debian",
    "missing_debian",
    "missing_node",
    "missing_venv",
    "npm_install",
    "put_on_path",
    "python_key",
    "runs",
    "system_key",
    "unpack_debian",
    "venv_install",
]

_LISTS = Path("/var/lib/apt/lists")
_LIMIT = 900.0


def cache_directory() -> Path:
    """Returns where servers are installed: `$STOWSTORE_SERVERS`, else `stowstore/servers` in the user's cache."""
    if given := os.environ.get("STOWSTORE_SERVERS"):
        return Path(given).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stowstore" / "servers"


@functools.cache
def system_key() -> str:
    """Returns the system's name, release and architecture, such as `debian-12-x86_64`."""
    release = platform.freedesktop_os_release()
    return f"{release.get('ID', 'linux')}-{release.get('VERSION_ID', 'rolling')}-{platform.machine()}"


def python_key() -> str:
    """Returns what a virtual environment depends on: this interpreter's version and the system's key."""
    return f"python-{sys.version_info.major}.{sys.version_info.minor}-{system_key()}"


def missing_debian() -> str | None:
    """Returns why Debian packages cannot be unpacked here, or None."""
    missing = [program for program in ("apt-get", "dpkg") if shutil.which(program) is None]
    if missing:
        return f"it comes from Debian or Ubuntu packages, and there is no {' or '.join(missing)} here"
    return None


def missing_venv() -> str | None:
    """Returns why virtual environments cannot be made here, or None."""
    if importlib.util.find_spec("ensurepip") is None:
        return f"{sys.executable} has no ensurepip; on Debian: apt-get install python3-venv"
    return None


def missing_node() -> str | None:
    """Returns why npm packages cannot be installed here, or None."""
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing and not _may_install_debian():
        return f"there is no {' or '.join(missing)} here; on Debian or Ubuntu: apt-get install nodejs npm"
    return None


def unpack_debian(packages: Sequence[str], into: Path) -> None:
    """Downloads Debian packages with all that the machine lacks for them, and unpacks them into a folder."""
    with tempfile.TemporaryDirectory(prefix="stow-apt-") as scratch:
        options = _apt_options(Path(scratch))
        archives = Path(scratch, "archives")
        download = ["install", "--yes", "--no-install-recommends", "--reinstall", "--download-only", *packages]
        try:
            if not any(_LISTS.glob("*_Packages*")):
                raise ServerUnavailable("apt has no package lists")
            _apt(options, download)
        except ServerUnavailable:  # no lists, or they name versions that the mirror has replaced: get our own
            lists = Path(scratch, "lists")
            (lists / "partial").mkdir(parents=True)
            options += ["-o", f"Dir::State::lists={lists}"]
            _apt(options, ["update"])
            _apt(options, download)
        found = sorted(archives.glob("*.deb"))
        for archive in found:
            _run(["dpkg", "-x", archive, into], f"unpacking {archive.name}")
    (into / "packages.txt").write_text("".join(f"{archive.name}\n" for archive in found))


def ensure_program(program: str) -> None:
    """Installs the Debian package of a program that only works where it is installed, unless it is there.

    Raises `ServerUnavailable` where it is not there and this user may not install it.
    """
    if shutil.which(program) is not None:
        return
    if not _may_install_debian():
        raise ServerUnavailable(f"there is no {program} here; on Debian or Ubuntu: apt-get install {program}")
    install_debian(program)


def install_debian(*packages: str) -> None:
    """Installs Debian packages for the whole machine, which takes root."""
    _run(["apt-get", "update", "--quiet"], "apt-get update")
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    _run(command, f"apt-get install {' '.join(packages)}")


def venv_install(requirements: Sequence[str], into: Path) -> None:
    """Makes a virtual environment with pinned packages.

    It will be renamed, so its scripts must be run by its interpreter rather than by their first lines.
    """
    _run([sys.executable, "-m", "venv", into], "making a virtual environment")
    pip: list[str | Path] = [
        into / "bin/python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
    ]
    _run([*pip, *requirements], f"pip install {' '.join(requirements)}")


def npm_install(package: str, into: Path) -> None:
    """Installs one npm package with its dependencies, of which no scripts are run."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        install_debian("nodejs", "npm")
    flags = ["--no-audit", "--no-fund", "--ignore-scripts", "--omit=dev", "--omit=optional"]
    _run(["npm", "install", f"--prefix={into}", *flags, package], f"npm install {package}")


def put_on_path(name: str, program: Path, environment: Mapping[str, str]) -> None:
    """Lets this process and its children find an unpacked program on their PATH, for as long as this process runs."""
    libraries = environment.get("LD_LIBRARY_PATH", "")
    script = Path(tempfile.mkdtemp(prefix=f"stow-{name}-"), name)
    script.write_text(
        f'#!/bin/sh\nLD_LIBRARY_PATH={shlex.quote(libraries)} exec {shlex.quote(str(program))} "$@"\n', encoding="utf-8"
    )
    script.chmod(0o755)
    script.parent.chmod(0o755)
    atexit.register(shutil.rmtree, script.parent, ignore_errors=True)
    os.environ["PATH"] = f"{script.parent}{os.pathsep}{os.environ['PATH']}"


def runs(command: Sequence[str | Path], environment: dict[str, str] | None = None) -> bool:
    """Whether a program starts and ends well, which shows that its libraries are all there."""
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _may_install_debian() -> bool:
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def _apt_options(scratch: Path) -> list[str]:
    (scratch / "archives/partial").mkdir(parents=True)
    settings = {
        "Debug::NoLocking": "true",
        "Dir::Cache": scratch,
        "Dir::Cache::archives": scratch / "archives",
        "Acquire::Retries": 3,
        # apt would download as its own user, which may not write into our directory
        "APT::Sandbox::User": "root",
    }
    return [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]


def _apt(options: Sequence[str], command: Sequence[str]) -> None:
    _run(["apt-get", "--quiet", *options, *command], f"apt-get {' '.join(command)}")


def _run(command: Sequence[str | Path], what: str) -> None:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_LIMIT,
            check=False,
        )
    except OSError as error:
        raise ServerUnavailable(f"{what}: {error}") from error
    except subprocess.TimeoutExpired as expired:
        raise ServerUnavailable(f"{what}: not done within {_LIMIT:g} s") from expired
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-12:])
        raise ServerUnavailable(f"{what} failed with {done.returncode}:\n{tail}")
