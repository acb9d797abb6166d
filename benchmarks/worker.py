"""One client in a process of its own: reads one JSON order a line, answers with one JSON line.

The figures are of this process alone: wall and CPU seconds around the work, and the peak of its resident memory.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from benchmarks.clients import CLIENTS, LOCAL_CLIENTS, Client, Service
from benchmarks.memory import back_free_memory, forget_peak, peak_bytes

__all__ = ["main"]


class Worker:
    """Carries out orders with one client."""

    def __init__(self, client: Client, directory: Path | None) -> None:
        self._client = client
        self._directory = directory
        self._threads: dict[int, ThreadPoolExecutor] = {}

    def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        verb, key, size = order["verb"], order["key"], order["size"]
        act = {
            "put": self._put,
            "get": self._get,
            "put_stream": self._put_stream,
            "get_stream": self._get_stream,
            "list": self._list,
        }[verb](key, size)
        if verb == "put_stream" and self._directory is not None:
            back_free_memory(2 * size, self._directory)
        forget_peak()
        wall, cpu = self._measure(act, order["count"], order["threads"])
        return {"wall": wall, "cpu": cpu, "peak": peak_bytes()}

    def _put(self, key: str, size: int) -> Callable[[int], None]:
        data = b"\x5a" * size
        return lambda number: self._client.put(f"{key}{number:06}", data)

    def _get(self, key: str, size: int) -> Callable[[int], None]:
        def get(number: int) -> None:
            _expect(size, len(self._client.get(f"{key}{number:06}")))

        return get

    def _put_stream(self, key: str, size: int) -> Callable[[int], None]:
        return lambda number: self._client.put_stream(f"{key}{number:06}", size)

    def _get_stream(self, key: str, size: int) -> Callable[[int], None]:
        return lambda number: _expect(size, self._client.get_stream(f"{key}{number:06}"))

    def _list(self, key: str, size: int) -> Callable[[int], None]:
        return lambda number: _expect(size, self._client.list(key))

    def _measure(self, act: Callable[[int], None], count: int, threads: int) -> tuple[float, float]:
        if threads == 1:
            began, used = perf_counter(), process_time()
            for number in range(count):
                act(number)
            return perf_counter() - began, process_time() - used
        pool = self._threads.setdefault(threads, ThreadPoolExecutor(threads))
        began = used = 0.0

        def start() -> None:
            nonlocal began, used
            began, used = perf_counter(), process_time()

        # Everybody waits for everybody, so that each task gets a thread, and none starts early.
        ready = threading.Barrier(threads, action=start)

        def share(first: int) -> None:
            ready.wait()
            for number in range(first, count, threads):
                act(number)

        for each in [pool.submit(share, first) for first in range(threads)]:
            each.result()
        return perf_counter() - began, process_time() - used


def _expect(wanted: int, found: int) -> None:
    if wanted != found:
        raise AssertionError(f"{wanted} were wanted, {found} found")


def main(name: str, service: str) -> None:
    """Makes the client and obeys until standard input ends; says first whether the client could be made."""
    answers, sys.stdout = sys.stdout, sys.stderr

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    where = Service(**json.loads(service))
    try:
        client = (LOCAL_CLIENTS if where.directory else CLIENTS)[name](where)
        worker = Worker(client, Path(where.directory) if where.directory else None)
    except ImportError as error:
        say({"missing": f"{type(error).__name__}: {error}"})
        return
    say({})
    for line in sys.stdin:
        try:
            say(worker.obey(json.loads(line)))
        except Exception as error:  # noqa: BLE001 - whatever a client raises becomes a row of the report
            say({"error": " ".join(f"{type(error).__name__}: {error}".split())[:120]})


if __name__ == "__main__":
    main(*sys.argv[1:])
