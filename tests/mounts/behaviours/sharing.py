"""Mappings and locks: what processes see of each other."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import struct
from collections.abc import Callable
from typing import Any

from tests.mounts.behaviours.calling import behaviour, content, in_child, make, opened, said

__all__: list[str] = []


@behaviour
def mappings_and_files_agree() -> Any:
    descriptor = os.open("m", os.O_CREAT | os.O_RDWR)
    os.ftruncate(descriptor, 16384)
    shared = mmap.mmap(descriptor, 16384)
    private = mmap.mmap(descriptor, 16384, flags=mmap.MAP_PRIVATE)
    shared[0:5] = b"hello"
    found = [os.pread(descriptor, 5, 0), private[0:5]]
    os.pwrite(descriptor, b"WORLD", 100)
    found += [shared[100:105]]
    private[200:203] = b"own"
    found += [os.pread(descriptor, 3, 200), shared[200:203]]
    child = os.fork()
    if not child:
        shared[300:305] = b"child"
        os._exit(0)
    os.waitpid(child, 0)
    found += [shared[300:305], os.pread(descriptor, 5, 300)]
    shared.flush()
    os.unlink("m")
    shared[400:404] = b"last"
    return [*found, os.pread(descriptor, 4, 400)]


@behaviour
def locks_hold_between_processes() -> Any:
    make("f", b"0123456789")
    held = os.open("f", os.O_RDWR)

    def attempt(act: Callable[[int], Any]) -> Any:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            other = os.open("f", os.O_RDWR)
            os.write(writing, str(said(act, other)).encode())
            os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        answer = os.read(reading, 100)
        os.close(reading)
        return answer

    def flock(kind: int) -> Callable[[int], Any]:
        return lambda other: fcntl.flock(other, kind | fcntl.LOCK_NB)

    def lock(kind: int, start: int, length: int) -> Callable[[int], Any]:
        return lambda other: fcntl.lockf(other, kind | fcntl.LOCK_NB, length, start)

    fcntl.flock(held, fcntl.LOCK_SH)
    found = [attempt(flock(fcntl.LOCK_SH)), attempt(flock(fcntl.LOCK_EX))]
    fcntl.flock(held, fcntl.LOCK_UN)
    fcntl.lockf(held, fcntl.LOCK_EX, 5, 0)
    found += [
        attempt(lock(fcntl.LOCK_EX, 0, 5)),
        attempt(lock(fcntl.LOCK_EX, 5, 5)),
        attempt(lock(fcntl.LOCK_SH, 4, 1)),
    ]
    open_file_lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 6, 2, 0)
    found.append(said(fcntl.fcntl, held, 37, open_file_lock) == open_file_lock)
    found += [attempt(lock(fcntl.LOCK_EX, 6, 1)), attempt(lock(fcntl.LOCK_EX, 8, 1))]
    return found


@behaviour
def mappings_see_every_change() -> Any:
    """Writes, cuts, growth, holes and copies of other processes show in a mapping, and the other way round."""
    make("m", b"m" * 20_000)
    make("other", b"o" * 5_000)
    with opened("m", os.O_RDWR) as descriptor, mmap.mmap(descriptor, 20_000) as shared:
        found: list[Any] = [shared[:2]]

        def elsewhere() -> Any:
            with opened("m", os.O_RDWR) as theirs:
                os.pwrite(theirs, b"THEIRS", 5000)
                os.ftruncate(theirs, 12_000)
                os.ftruncate(theirs, 20_000)
            return True

        in_child(elsewhere)
        found += [shared[4998:5008], shared[11_998:12_002]]
        shared[15_000:15_003] = b"our"
        found.append(in_child(lambda: content("m")[14_999:15_004]))
        with opened("other") as source:
            os.copy_file_range(source, descriptor, 3, 0, 100)
        found.append(shared[99:104])
        os.rename("m", "n")
        shared[0:3] = b"new"
        found.append(content("n")[:4])
        with opened("n", os.O_RDWR | os.O_DIRECT) as direct:
            page = mmap.mmap(-1, 4096)
            page[:] = b"D" * 4096
            os.pwrite(direct, page, 4096)
        found.append(shared[4095:4098])
        page.close()
    return found


@behaviour
def mappings_end_with_their_file() -> Any:
    """Touching what was cut off is a bus error, and not before."""

    def touch() -> Any:
        make("m", b"m" * 8192)
        with opened("m", os.O_RDWR) as descriptor:
            memory = mmap.mmap(descriptor, 8192)
            os.ftruncate(descriptor, 4096)
            child = os.fork()
            if not child:
                signal.signal(signal.SIGBUS, signal.SIG_DFL)
                _ = memory[5000]
                os._exit(0)
            return [memory[4095], os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]

    return in_child(touch)


@behaviour
def private_mappings_keep_to_themselves() -> Any:
    make("m", b"m" * 10_000)
    with opened("m") as descriptor:
        with mmap.mmap(descriptor, 10_000, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as private:
            private[0:4] = b"mine"
            found: list[Any] = [private[:5], content("m")[:5]]
        try:
            mmap.mmap(descriptor, 10_000, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        except PermissionError:
            found.append("a file opened to read is not mapped to write")
        with mmap.mmap(descriptor, 10_000, prot=mmap.PROT_READ | mmap.PROT_EXEC) as executable:
            found.append(executable[9_999])
    return found


#: The number of fcntl(2), as /proc tells what a process waits in.
_FCNTL = "72" if os.uname().machine == "x86_64" else "25"
_UNLOCK, _READ, _WRITE = fcntl.F_UNLCK, fcntl.F_RDLCK, fcntl.F_WRLCK
_OFD_GET, _OFD_SET, _OFD_WAIT = 36, 37, 38


def _record(kind: int, start: int, length: int, whence: int = os.SEEK_SET) -> bytes:
    return struct.pack("hhqqi4x", kind, whence, start, length, 0)


@behaviour
def locks_split_and_join() -> Any:
    """Ranges of record locks in every arrangement, as another process is told of them."""

    def holders() -> Any:
        with opened("f", os.O_RDWR) as other:
            told = []
            for start in range(20):
                kind, whence, first, length, owner = struct.unpack(
                    "hhqqi4x", fcntl.fcntl(other, fcntl.F_GETLK, _record(_WRITE, start, 1))
                )
                told.append(None if kind == _UNLOCK else (kind, whence, first, length, owner == os.getppid()))
            return told

    make("f", b"0" * 20)
    found = []
    with opened("f", os.O_RDWR) as held:
        for kind, start, length in (
            (_WRITE, 0, 10),
            (_UNLOCK, 3, 4),
            (_READ, 5, 10),
            (_WRITE, 6, 2),
            (_UNLOCK, 0, 5),
            (_READ, 0, 0),
            (_UNLOCK, 19, 1),
        ):
            fcntl.fcntl(held, fcntl.F_SETLK, _record(kind, start, length))
            found.append(in_child(holders))
        # Closing any descriptor of the file gives up all of a process's record locks.
        with opened("f"):
            pass
        found.append(in_child(holders))
    return found


@behaviour
def locks_of_open_files_belong_to_them() -> Any:
    """Open file description locks: between descriptors of one process, inherited, and gone with the last close."""
    make("f", b"0" * 20)
    first, second = (os.open("f", os.O_RDWR) for _ in range(2))
    found: list[Any] = [
        said(fcntl.fcntl, first, _OFD_SET, _record(_WRITE, 0, 5)) == _record(_WRITE, 0, 5),
        said(fcntl.fcntl, second, _OFD_SET, _record(_WRITE, 0, 5)),
        said(fcntl.fcntl, second, _OFD_SET, _record(_READ, 4, 1)),
        in_child(lambda: said(fcntl.lockf, second, fcntl.LOCK_EX | fcntl.LOCK_NB, 5, 0)),
    ]
    twin = os.dup(first)
    os.close(first)
    found.append(said(fcntl.fcntl, second, _OFD_SET, _record(_WRITE, 0, 5)))
    os.close(twin)
    found.append(said(fcntl.fcntl, second, _OFD_SET, _record(_WRITE, 0, 5)) == _record(_WRITE, 0, 5))
    os.close(second)
    return found


@behaviour
def locks_are_waited_for() -> Any:
    """A second process gets a lock when the first gives it up, or ends."""
    make("f", b"0" * 20)
    found = []
    for take in (
        lambda descriptor: fcntl.flock(descriptor, fcntl.LOCK_EX),
        lambda descriptor: fcntl.lockf(descriptor, fcntl.LOCK_EX, 5, 0),
        lambda descriptor: fcntl.fcntl(descriptor, _OFD_WAIT, _record(_WRITE, 0, 5)),
    ):
        ready, told = os.pipe()
        child = os.fork()
        if not child:
            mine = os.open("f", os.O_RDWR)
            take(mine)
            os.write(told, b"x")
            signal.pause()
        os.read(ready, 1)
        waiter = os.fork()
        if not waiter:
            mine = os.open("f", os.O_RDWR)
            os.write(told, b"w")
            take(mine)
            os.write(told, b"g")
            os._exit(0)
        order = os.read(ready, 1)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        order += os.read(ready, 1)
        os.waitpid(waiter, 0)
        os.close(ready)
        os.close(told)
        found.append(order)
    return found


@behaviour
def circles_of_locks_are_refused() -> Any:
    """Two processes that wait for each other's record locks: one is told EDEADLK."""
    make("f", b"0" * 20)
    with opened("f", os.O_RDWR) as held:
        fcntl.lockf(held, fcntl.LOCK_EX, 1, 0)
        ready, told = os.pipe()
        child = os.fork()
        if not child:
            signal.alarm(20)
            mine = os.open("f", os.O_RDWR)
            fcntl.lockf(mine, fcntl.LOCK_EX, 1, 1)
            os.write(told, b"x")
            fcntl.lockf(mine, fcntl.LOCK_EX, 1, 0)
            os._exit(7)
        os.read(ready, 1)
        _until_waiting(child)
        outcome = said(fcntl.lockf, held, fcntl.LOCK_EX, 1, 1)
        fcntl.lockf(held, fcntl.LOCK_UN, 1, 0)
        return [outcome, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


def _until_waiting(process: int) -> None:
    """Until a process sleeps in a call that waits for a lock."""
    while True:
        with open(f"/proc/{process}/stat") as file:
            state = file.read().rsplit(")", 1)[1].split()[0]
        with open(f"/proc/{process}/syscall") as file:
            waits = file.read().split()[0] == _FCNTL
        if state == "S" and waits:
            return


@behaviour
def locks_need_the_right_descriptor() -> Any:
    make("f", b"0" * 20)
    act: dict[str, Callable[[int], Any]] = {
        "record to read": lambda descriptor: fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB),
        "record to write": lambda descriptor: fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB),
        "shared": lambda descriptor: fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB),
        "exclusive": lambda descriptor: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB),
        "negative": lambda descriptor: fcntl.fcntl(descriptor, fcntl.F_SETLK, _record(_READ, -1, 1)),
        "backwards": lambda descriptor: fcntl.fcntl(descriptor, fcntl.F_SETLK, _record(_READ, 10, -5)) and None,
    }
    found = {}
    for name, flags in {
        "reading": os.O_RDONLY,
        "writing": os.O_WRONLY,
        "path": os.O_PATH,
        "directory": os.O_DIRECTORY,
    }.items():
        with opened("." if name == "directory" else "f", flags) as descriptor:
            found[name] = {call: said(lock, descriptor) for call, lock in act.items()}
    return found
