"""The processes of a job: started with exactly the descriptors they may have, signalled, waited for, and ended."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from attrs import frozen

from stowstore.jobs.gate import FIRST_INPUT, LEASH, LEASH_OF_FIRST, STARTED, UPLOADS
from stowstore.jobs.leash import Leash

__all__ = ["JobInterrupted", "JobProcess", "Output", "SignalsPassedOn"]

#: Passed on to the job's command.  Those that a keyboard sends go to its process group, as a terminal would do it.
_PASSED_ON: Final = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
_OF_KEYBOARDS: Final = frozenset((signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH))

#: Descriptors from here on are not in the way of those that are given by number.
_OUT_OF_THE_WAY: Final = 64
_STANDARD_ERROR: Final = 2
#: The number of a command in its own process namespace, whose first process is the sandbox's.
_COMMAND: Final = 2
#: How long until a job that does not end is looked at again, seconds.
_LOOK_AGAIN: Final = 0.02


class Output(StrEnum):
    """Where the standard output of a job goes."""

    STDOUT = "stdout"
    STDERR = "stderr"


class JobInterrupted(BaseException):
    """A signal came before there was a job to pass it on to."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number


class JobProcess:
    """A job that was started.

    ``status`` is None until it has ended.  Meant for the thread that started it: the kernel ends a job that is not to
    survive us with that.
    """

    def __init__(self, pid: int, leash: Leash, started: int) -> None:
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._leash = leash
        self._started = started
        self.has_started = False
        self.status: int | None = None

    @classmethod
    def start(
        cls, command: Sequence[str], *, leash: Leash, inputs: Sequence[bytes], uploads: int | None, output: Output
    ) -> JobProcess:
        """Starts a sandbox in a session of its own.

        It gets standard input, output and error, the leash, the archive of uploads, the inputs, and nothing else that
        happens to be open here.

        Raises:
            OSError: the program cannot be run.
        """
        reading, writing = os.pipe2(os.O_CLOEXEC)
        opened = [writing]
        try:
            wanted = {LEASH: leash.theirs, LEASH_OF_FIRST: leash.theirs, STARTED: writing}
            if uploads is not None:
                wanted[UPLOADS] = uploads
            for number, content in enumerate(inputs, FIRST_INPUT):
                wanted[number] = _as_descriptor(content)
                opened.append(wanted[number])
            if output is Output.STDERR:
                wanted[1] = 2
            # Copies out of the way of the numbers that are given, so that none replaces another's source.
            high = {
                number: fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
                for number, descriptor in wanted.items()
            }
            opened += high.values()
            stray = [number for number in _inherited() if number not in wanted]
            actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, source, number) for number, source in high.items()]
            actions += [(os.POSIX_SPAWN_CLOSE, number) for number in stray]
            pid = os.posix_spawnp(
                command[0],
                list(command),
                os.environ,
                file_actions=actions,
                setsid=True,
                setsigmask=(),
                # What Python ignores, the job would inherit as ignored.
                setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            for descriptor in opened:
                os.close(descriptor)
        leash.hand_over()
        return cls(pid, leash, reading)

    def wait(self, wake: int | None = None) -> int | None:
        """Waits until the job has ended, or something can be read from ``wake``: then it returns None."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if wake is not None:
            poll.register(wake, select.POLLIN)
        if not self.has_started:
            poll.register(self._started, select.POLLIN)
        while self.status is None:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self._started in ready:
                poll.unregister(self._started)
                self._look_whether_started()
            if self._pidfd in ready:
                self._finish()
            elif wake in ready:
                break
        return self.status

    def send(self, number: signal.Signals) -> None:
        """Sends a signal to the job's command; what keyboards send, to its process group."""
        first = self._first_process()
        command = None if first is None else _child(first, _COMMAND)
        if command is None:
            # It is not there yet, and is not wanted any more.
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            return
        group = [command]
        if number in _OF_KEYBOARDS:
            shared = _Status.of(command)
            group = [pid for pid in _processes(group=shared.group if shared else -1) if pid not in (self._pid, first)]
        for pid in group:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Ends every process of the job at once, and returns when they are gone."""
        if self.status is None:
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
            self._finish()

    def close(self) -> None:
        """Ends the job if it has not ended."""
        self.kill()
        os.close(self._pidfd)
        os.close(self._started)

    def _finish(self) -> None:
        """Ends what the command has left running, and returns when the last process is gone.

        The sandbox has ended, or is ending.  Its number is that of the job's session, and is nobody else's until it has
        been waited for, so that comes last.
        """
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT)
        while not self._leash.wait(0):
            first = self._first_process()
            if first is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(first, signal.SIGKILL)
            self._leash.wait(_LOOK_AGAIN)
        self._look_whether_started()
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self.status = code if code >= 0 else 128 - code

    def _look_whether_started(self) -> None:
        if self.has_started:
            return
        # Not select(2), which knows no descriptor beyond 1023.
        poller = select.poll()
        poller.register(self._started, select.POLLIN)
        if poller.poll(0):
            self.has_started = bool(os.read(self._started, 64))

    def _first_process(self) -> int | None:
        """The first process of the job's namespace; it is in the sandbox's session, even when that has ended."""
        return next((pid for pid in _processes(session=self._pid) if _is_numbered(pid, 1)), None)


class SignalsPassedOn:
    """Takes the signals of this process that are the job's, in the main thread and within a ``with`` block.

    Before there is a job, a signal raises `JobInterrupted`; then `descriptor` can be read from, and `received` says
    which ones came.  What this process was told to ignore, it goes on to ignore, and so does the job.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._reading = self._writing = self._wakeup = -1
        self._job_is_there = False

    @property
    def descriptor(self) -> int:
        """Readable when there is something in `received`."""
        return self._reading

    def hold_back(self) -> None:
        """From now on they are kept for the job."""
        self._job_is_there = True

    def received(self) -> list[signal.Signals]:
        """What came since the last time, in that order."""
        try:
            return [signal.Signals(number) for number in os.read(self._reading, 4096)]
        except BlockingIOError:
            return []

    def __enter__(self) -> Self:
        self._reading, self._writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        for number in _PASSED_ON:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._came)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._reading)
        os.close(self._writing)

    def _came(self, number: int, frame: object) -> None:
        if not self._job_is_there and number != signal.SIGWINCH:
            raise JobInterrupted(signal.Signals(number))


@frozen
class _Status:
    """Of /proc/PID/stat what is looked at here (proc(5))."""

    parent: int
    group: int
    session: int

    @classmethod
    def of(cls, pid: int) -> Self | None:
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return cls(int(fields[1]), int(fields[2]), int(fields[3]))


def _processes(**wanted: int) -> Iterator[int]:
    """The processes of which the status says what is wanted."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            status = _Status.of(int(name))
            if status is not None and all(getattr(status, key) == value for key, value in wanted.items()):
                yield int(name)


def _child(parent: int, number: int) -> int | None:
    return next((pid for pid in _processes(parent=parent) if _is_numbered(pid, number)), None)


def _is_numbered(pid: int, number: int) -> bool:
    """Whether a process has this number in a process namespace one below ours."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                numbers = line.split()[1:]
                return len(numbers) == 2 and int(numbers[1]) == number
    return False


def _as_descriptor(content: bytes) -> int:
    descriptor = os.memfd_create("stowstore-job")
    try:
        with open(descriptor, "wb", closefd=False) as sink:
            sink.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _inherited() -> list[int]:
    """Descriptors that a new process would get without having been given them."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if int(name) > _STANDARD_ERROR and os.get_inheritable(int(name)):
                found.append(int(name))
    return found
