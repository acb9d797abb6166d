"""The first process of a job that runs in namespaces: it builds the job's root, starts the command and waits for it.

Run by unshare(1) as ``python -I -S inside.py DESCRIPTOR``, so it knows nothing but the standard library; what it needs
of that is imported before it leaves the host's root.  The descriptor gives it what `namespaces` has written.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from typing import Any, Final, NoReturn

_LEASH: Final = 9  # stowstore.jobs.gate.LEASH_OF_FIRST
_FAILED: Final = 125

_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_BIND, _MS_REC = 4096, 16384
_MNT_DETACH: Final = 2
_SYS_MOUNT_SETATTR: Final = 442  # the same on every architecture
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_READ_ONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4

_OLD, _NEW = "/oldroot", "/newroot"
_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")

_libc = ctypes.CDLL(None, use_errno=True)


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


def main() -> NoReturn:
    """Never returns: it ends with the command's status, or 128 and the number of the signal that ended it."""
    told = _told(int(sys.argv[1]))
    try:
        _build(told)
    except OSError as error:
        sys.exit(_failed(f"the job's root cannot be made: {error}"))
    command = os.fork()
    if command == 0:
        _become(told)
    # As the first process of its namespace it is spared the signals it has no handler for.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _close_all_but(0, 1, 2, _LEASH)
    while True:
        ended, status = os.wait()
        if ended == command:
            code = os.waitstatus_to_exitcode(status)
            # Whatever else still runs in the job ends with this process.
            os._exit(code if code >= 0 else 128 - code)


def _told(descriptor: int) -> dict[str, Any]:
    with open(descriptor, "rb") as source:
        told: dict[str, Any] = json.load(source)
    return told


def _build(told: dict[str, Any]) -> None:
    os.umask(0)
    # The host's own root stays reachable at /oldroot until everything is bound, /tmp included, which this covers.
    _mount("tmpfs", "/tmp", "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755")
    for name in (_OLD, _NEW):
        os.mkdir(f"/tmp{name}", 0o755)
    _call("pivot_root", b"/tmp", b"/tmp" + _OLD.encode())
    os.chdir("/")
    _mount("tmpfs", _NEW, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=16m")
    _devices(told["scratch"])
    for name, mode in (("tmp", "1777"), ("work", "0755")):
        _scratch(f"{_NEW}/{name}", mode, told["scratch"])
    for directory in told["directories"]:
        os.makedirs(_NEW + directory, 0o755, exist_ok=True)
    for path, leads_to in told["links"].items():
        os.makedirs(os.path.dirname(_NEW + path), 0o755, exist_ok=True)
        os.symlink(leads_to, _NEW + path)
    for source, target, read_only in told["binds"]:
        _bind(_OLD + source, _NEW + target, _ATTR_NOSUID | _ATTR_NODEV | (_ATTR_READ_ONLY if read_only else 0))
    for path, content in told["documents"].items():
        os.makedirs(os.path.dirname(_NEW + path), 0o755, exist_ok=True)
        with open(_NEW + path, "x", encoding="utf-8") as sink:
            sink.write(content)
        os.chmod(_NEW + path, 0o444)
    _proc(told["covered"])
    for path in ("/dev", ""):
        _restrict(_NEW + path, _ATTR_READ_ONLY)
    _call("umount2", _OLD.encode(), _MNT_DETACH)
    os.chdir(_NEW)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", _MNT_DETACH)
    os.chdir("/")


def _devices(scratch: int) -> None:
    dev = f"{_NEW}/dev"
    os.mkdir(dev, 0o755)
    _mount("tmpfs", dev, "tmpfs", _MS_NOSUID | _MS_NOEXEC, "mode=0755,size=1m")
    for name in _DEVICES:
        open(f"{dev}/{name}", "x", encoding="utf-8").close()
        _mount(f"{_OLD}/dev/{name}", f"{dev}/{name}", "", _MS_BIND)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        os.symlink(f"/proc/self/fd/{number}", f"{dev}/{name}")
    os.symlink("/proc/self/fd", f"{dev}/fd")
    os.mkdir(f"{dev}/pts", 0o755)
    _mount("devpts", f"{dev}/pts", "devpts", _MS_NOSUID | _MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    os.symlink("pts/ptmx", f"{dev}/ptmx")
    _scratch(f"{dev}/shm", "1777", scratch)


def _proc(covered: list[str]) -> None:
    os.mkdir(f"{_NEW}/proc", 0o555)
    _mount("proc", f"{_NEW}/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    for name in covered:
        path = f"{_NEW}/proc/{name}"
        if os.path.exists(path):
            _mount(path, path, "", _MS_BIND | _MS_REC)
            _restrict(path, _ATTR_READ_ONLY, _AT_RECURSIVE)


def _scratch(path: str, mode: str, size: int) -> None:
    os.makedirs(path, 0o755, exist_ok=True)
    _mount("tmpfs", path, "tmpfs", _MS_NOSUID | _MS_NODEV, f"mode={mode},size={size}")


def _bind(source: str, target: str, attributes: int) -> None:
    os.makedirs(os.path.dirname(target), 0o755, exist_ok=True)
    if os.path.isdir(source):
        os.makedirs(target, 0o755, exist_ok=True)
    elif not os.path.exists(target):
        open(target, "x", encoding="utf-8").close()
    # With all below: in a user namespace nothing may be shown that a mount covers.
    _mount(source, target, "", _MS_BIND | _MS_REC)
    _restrict(target, attributes, _AT_RECURSIVE)


def _become(told: dict[str, Any]) -> NoReturn:
    try:
        for number in range(64):
            if number not in told["capabilities"]:
                _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
        _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        # What Python ignores, the command would inherit as ignored.
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        os.umask(0o022)
        os.execve(told["command"][0], told["command"], told["environment"])
    except OSError as error:
        os._exit(_failed(f"{told['command'][0]}: {error.strerror}"))


def _failed(why: str) -> int:
    os.write(2, f"stowstore run: {why}\n".encode())
    return _FAILED


def _close_all_but(*kept: int) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                # The descriptor of the listing itself.
                pass


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    given = (os.fsencode(source), os.fsencode(target), kind.encode() or None, flags, data.encode() or None)
    if _libc.mount(*given):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target.removeprefix(_NEW))


def _restrict(path: str, attributes: int, how: int = 0) -> None:
    given = _Attributes(set=attributes)
    reference, size = ctypes.byref(given), ctypes.c_size_t(ctypes.sizeof(given))
    if _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), how, reference, size):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path.removeprefix(_NEW))


def _call(name: str, *arguments: bytes | int) -> None:
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(arguments[0]))


if __name__ == "__main__":
    main()
