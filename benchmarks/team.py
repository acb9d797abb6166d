"""The processes of a run: one worker for each client, and the stub."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from attrs import asdict, frozen

from benchmarks.clients import Service

__all__ = ["Order", "Sample", "WorkerProcess", "running_stub", "running_team"]

_PROJECT = Path(__file__).resolve().parents[1]


@frozen(kw_only=True)
class Order:
    """What a worker is to do: ``count`` operations on ``threads`` threads, sizes in bytes (of a list: its length)."""

    verb: str
    key: str
    size: int
    count: int = 1
    threads: int = 1


@frozen(kw_only=True)
class Sample:
    """What it took: seconds, and the peak of resident memory in bytes."""

    wall: float
    cpu: float
    peak: int


class WorkerProcess:
    """One client in a fresh process; idle, and so out of the way, but for its own turn."""

    def __init__(self, name: str, service: Service) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.worker", name, json.dumps(asdict(service))],
            cwd=_PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        #: Why the client cannot take part, or None.
        self.missing: str | None = self._hear().get("missing")

    def obey(self, order: Order) -> Sample | str:
        """Has the order carried out; text is the error it met."""
        assert self._process.stdin is not None
        try:
            print(json.dumps(asdict(order)), file=self._process.stdin, flush=True)
            answer = self._hear()
        except (BrokenPipeError, EOFError):
            return f"the worker ended with status {self._process.wait()}"
        return answer["error"] if "error" in answer else Sample(**answer)

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(timeout=20)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        finally:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("the worker ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def running_team(names: Iterable[str], service: Service) -> Iterator[dict[str, WorkerProcess]]:
    """A worker for each client, all alive together so that rounds can be interleaved."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(WorkerProcess(name, service)) for name in names}


@contextmanager
def running_stub() -> Iterator[str]:
    """The endpoint of a stub in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.stub"],
        cwd=_PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.stdout.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
