"""Starting a daemon: a process of its own, given everything through a pipe, that says when it is ready."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import evolve

from datastore.context import remaining
from datastore.errors import DeadlineExceeded
from stowstore.fuse.device import MountFailed, find_mount
from stowstore.mounts import control, nursery, table
from stowstore.mounts.leftovers import make_room, sweep
from stowstore.mounts.options import Lifetime, MountRequest
from stowstore.mounts.unmounting import clear_dead

__all__ = ["DEFAULT_TIMEOUT", "start"]

#: How long a mount may take when nothing is said, seconds.
DEFAULT_TIMEOUT: Final = 60.0

#: The part of the time that is left for a daemon to mount and to say what happened, once its volume should be open.
_TELLING: Final = 0.1

#: How long one wait for an answer may be, seconds: the system refuses endless ones.
_LONGEST_WAIT: Final = 86_400.0

#: How much of a log is shown when a daemon has died without a word.
_LAST_WORDS: Final = 2000


def start(request: MountRequest, *, timeout: float | None = None) -> Path:
    """Mounts, and returns the path when it answers, within the timeout and the context's deadline.

    Raises:
        MountFailed, StoreError, OSError: what kept the daemon from serving; nothing is left of it but its log.
        DeadlineExceeded: it was not ready in time; nothing is left of it but its log.
    """
    path = request.path
    seconds = DEFAULT_TIMEOUT if timeout is None else timeout
    if (left := remaining()) is not None:
        seconds = min(seconds, left)
    end = time.monotonic() + seconds
    request = evolve(request, opened_by=end - seconds * _TELLING)
    clear_dead(path)
    if find_mount(path) is not None:
        raise MountFailed(f"a volume is mounted at {path} already", hint="unmount it, or choose another path")
    with _directory(path):
        log = _log_of(request)
        with open(log, "ab", opener=_private) as out:
            # It is no old one from now on, whatever it holds.
            os.utime(out.fileno())
            pid, answers = _forked(request, log, out.fileno()) or _spawned(request, log, out.fileno())
        try:
            # The daemon has to be waited for anyway.
            sweep()
            _await_ready(answers, request, log, end, seconds)
        except BaseException:
            _end(pid)
            clear_dead(path)
            raise
        finally:
            os.close(answers)
    return path


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[None]:
    """Makes the directory to mount on where there is none, and takes it away again when the block fails."""
    made = [one for one in (path, *path.parents) if not os.path.lexists(one)]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise MountFailed(f"{path} is no directory", hint="mount on an empty directory") from None
    except OSError as error:
        raise MountFailed(
            f"there is no directory {path}, and it cannot be made: {error.strerror}", hint="choose another path"
        ) from error
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for one in made:
                one.rmdir()
        raise


def _forked(request: MountRequest, log: Path, out: int) -> tuple[int, int] | None:
    """A daemon from the nursery, where there is one, and the descriptor it answers on."""
    found = nursery.current()
    if found is None or request.options.lifetime is Lifetime.PARENT:
        return None
    named = evolve(request, options=evolve(request.options, log_file=str(log)))
    return found.fork(named, out)


def _spawned(request: MountRequest, log: Path, out: int) -> tuple[int, int]:
    """A daemon of its own, and the descriptor it answers on."""
    lifeline, alive = os.pipe() if request.options.lifetime is Lifetime.PARENT else (-1, -1)
    try:
        command = [sys.executable, "-m", "stowstore.daemon", "--log", str(log)]
        if lifeline >= 0:
            command += ["--lifeline", str(lifeline)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=out,
            pass_fds=[lifeline] if lifeline >= 0 else (),
            cwd="/",
            start_new_session=True,
            env=nursery.environment(),
        )
    except BaseException:
        if alive >= 0:
            os.close(alive)
        raise
    finally:
        if lifeline >= 0:
            os.close(lifeline)
    # The daemon may outlive this object, which would complain about that; its end is waited for elsewhere.
    process.returncode = 0
    threading.Thread(target=_reap, args=(process.pid, alive), name="mount-end", daemon=True).start()
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdout as answers:
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(json.dumps(request.to_data()).encode())
        return process.pid, os.dup(answers.fileno())


def _reap(pid: int, alive: int) -> None:
    """Keeps the pipe that a daemon watches open until the daemon has ended, and leaves no zombie of it."""
    with contextlib.suppress(ChildProcessError):
        # Somebody may wait for all children of this process.
        os.waitpid(pid, 0)
    if alive >= 0:
        os.close(alive)


def _end(pid: int) -> None:
    """Kills a daemon that has not become ready, and returns when it is gone."""
    started = table.started_at(pid)
    with contextlib.suppress(ProcessLookupError):
        if started is not None:
            os.kill(pid, signal.SIGKILL)
    while started is not None and table.started_at(pid) == started:
        time.sleep(0.005)


def _await_ready(answers: int, request: MountRequest, log: Path, end: float, timeout: float) -> None:
    said = b""
    # Not select(2), which knows no descriptor beyond 1023.
    poller = select.poll()
    poller.register(answers, select.POLLIN)
    while not said.endswith(b"\n"):
        left = end - time.monotonic()
        if left <= 0 or not poller.poll(min(left, _LONGEST_WAIT) * 1000):
            raise DeadlineExceeded(
                f"{request.path} was not mounted within {timeout:.3g} s", hint=f"its log is {log}; or allow more time"
            )
        part = os.read(answers, 1 << 16)
        if not part:
            raise MountFailed(
                f"the daemon for {request.path} ended before it was ready: {_last_words(log)}",
                hint=f"its log is {log}",
            )
        said += part
    answer = json.loads(said)
    if "failed" in answer:
        error = control.raised(answer["failed"])
        if isinstance(error, DeadlineExceeded):
            raise DeadlineExceeded(
                f"{request.path} was not mounted within {timeout:.3g} s: {error}",
                hint=error.hint or f"its log is {log}; or allow more time",
            ) from error
        raise error


def _log_of(request: MountRequest) -> Path:
    if request.options.log_file is not None:
        return Path(request.options.log_file).expanduser().absolute()
    log = table.names_of(request.path)[0].with_suffix(".log")
    make_room(log)
    return log


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _last_words(log: Path) -> str:
    try:
        found = log.read_bytes()[-_LAST_WORDS:].decode(errors="replace").strip()
    except OSError:
        found = ""
    return found.rpartition("\n")[2] or "it said nothing"
