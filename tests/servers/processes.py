"""The processes of one server: started in groups of their own, never outliving the process that keeps them."""

import contextlib
import ctypes
import os
import platform
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import define, field, frozen

from tests.servers.model import ServerFailed

__all__ = ["Child", "Processes", "answers", "clean_environment", "reserve_ports", "unpacked_environment"]

HOST = "127.0.0.1"
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@frozen(kw_only=True)
class Child:
    """One long-running process of a server."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path


@define(kw_only=True)
class Processes:
    """Everything one server has running, with its directory, its ports and its logs.

    Meant for a process with one thread: the kernel ends a child when the *thread* that started it ends.
    """

    root: Path
    ports: tuple[int, ...] = ()
    #: Raises when nobody wants the server any more; asked while waiting.
    check_wanted: Callable[[], None] = lambda: None
    background: list[Child] = field(factory=list)
    serving: list[Child] = field(factory=list)

    @property
    def port(self) -> int:
        """The port clients use."""
        return self.ports[0]

    def spawn(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str]) -> Child:
        """Starts a process that logs to `<name>.log`; whoever calls puts it into a list."""
        log = self.root / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=self.root,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_dying_with(os.getpid()),  # noqa: PLW1509 (one thread: see the class)
            )
        return Child(name=name, process=process, log=log)

    def run(self, *commands: Sequence[str | Path], environment: Mapping[str, str], limit: float = 60) -> None:
        """Runs commands side by side to their end; raises `ServerFailed` with the output of one that fails."""
        running = [
            self.spawn(f"{Path(command[0]).name}-{number}", command, environment)
            for number, command in enumerate(commands)
        ]
        try:
            deadline = time.monotonic() + limit
            for child in running:
                code = child.process.wait(max(0.0, deadline - time.monotonic()))
                if code:
                    raise ServerFailed(f"{child.name} ended with {code}:\n{_tail(child.log)}")
        except subprocess.TimeoutExpired as expired:
            raise ServerFailed(f"{expired.cmd[0]} did not end within {limit:g} s\n{self.tails()}") from None
        finally:
            _end(running, patience=0)

    def output(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> bytes:
        """Returns what a short command prints, or nothing when it fails."""
        try:
            done = subprocess.run(
                [str(part) for part in command],
                cwd=self.root,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=10,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return b""
        return b"" if done.returncode else done.stdout

    def wait_until(self, ready: Callable[[], bool], what: str, limit: float = 60) -> None:
        """Waits for a condition; raises `ServerFailed` with the logs' tails when a process ends or time is up."""
        deadline = time.monotonic() + limit
        while not ready():
            self.check_wanted()
            for child in (*self.background, *self.serving):
                if child.process.poll() is not None:
                    raise ServerFailed(
                        f"{child.name} ended with {child.process.returncode} before {what}\n{self.tails()}"
                    )
            if time.monotonic() > deadline:
                raise ServerFailed(f"{what}: not within {limit:g} s\n{self.tails()}")
            time.sleep(0.02)

    @property
    def is_serving(self) -> bool:
        """Whether everything that answers clients is running."""
        return bool(self.serving) and all(child.process.poll() is None for child in self.serving)

    def end(self, child: Child) -> None:
        """Kills one process in the background."""
        _end([child], patience=0)
        self.background.remove(child)

    def end_serving(self, patience: float) -> None:
        """Ends what answers clients: asked, then after `patience` seconds killed."""
        _end(self.serving, patience)
        self.serving.clear()

    def end_all(self, patience: float) -> None:
        """Ends every process."""
        self.end_serving(patience)
        _end(self.background, patience)
        self.background.clear()

    def signal_serving(self, number: signal.Signals) -> None:
        """Sends a signal to what answers clients."""
        for child in self.serving:
            os.killpg(child.process.pid, number)

    def tails(self) -> str:
        """Returns the ends of all logs that say something."""
        logs = sorted(self.root.glob("*.log"), key=lambda log: log.stat().st_mtime)
        return "\n".join(f"--- {log}\n{_tail(log)}" for log in logs if log.stat().st_size)


def answers(port: int) -> bool:
    """Whether something accepts connections on a local port."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def reserve_ports(offsets: Sequence[int], first: int | None = None) -> Iterator[tuple[int, ...]]:
    """Finds free ports at the given offsets from the first one and keeps others of us away from them.

    They lie below the range that the kernel hands out for outgoing connections. The reservation is an abstract
    socket a port: atomic, and gone with its process.
    """
    if not offsets:
        if first:
            raise ServerFailed(f"it listens on a Unix socket only and has no use for port {first}")
        yield ()
        return
    candidates = [first] if first else random.sample(range(20_000, 32_000), 200)
    for candidate in candidates:
        ports = tuple(candidate + offset for offset in offsets)
        with contextlib.ExitStack() as held:
            if all(_reserve(port, held) for port in ports):
                yield ports
                return
    raise ServerFailed(f"no free ports: port {first} or one it needs beside it is taken" if first else "no free ports")


def clean_environment(**more: str) -> dict[str, str]:
    """Returns this process's environment without what would lead the servers astray."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON") and name != "VIRTUAL_ENV"
    }
    return {**kept, **more}


def unpacked_environment(tree: Path, *library_folders: str) -> dict[str, str]:
    """Returns an environment in which the programs of an unpacked Debian tree find each other and their libraries."""
    triplet = f"{platform.machine()}-linux-gnu"
    libraries = [tree / "usr/lib" / triplet, tree / "lib" / triplet]
    libraries += [tree / "usr/lib" / triplet / folder for folder in library_folders]
    return clean_environment(
        LD_LIBRARY_PATH=":".join(map(str, libraries)),
        PATH=f"{tree}/usr/bin:{os.environ.get('PATH', os.defpath)}",
        PYTHONPATH=f"{tree}/usr/lib/python3/dist-packages",
    )


def _reserve(port: int, held: contextlib.ExitStack) -> bool:
    claim = held.enter_context(socket.socket(socket.AF_UNIX))
    try:
        claim.bind(f"\0stowstore-test-server-{port}")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except OSError:
        return False
    return True


def _dying_with(parent: int) -> Callable[[], None]:
    def arrange() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the arrangement held
            os._exit(1)

    return arrange


def _end(children: Iterable[Child], patience: float) -> None:
    children = [child for child in children if child.process.poll() is None]
    for child in children:
        if patience:
            os.killpg(child.process.pid, signal.SIGTERM)
        os.killpg(child.process.pid, signal.SIGCONT)  # a stopped process cannot end
    deadline = time.monotonic() + patience
    for child in children:
        try:
            child.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(child.process.pid, signal.SIGKILL)
            child.process.wait()


def _tail(log: Path, lines: int = 10) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
