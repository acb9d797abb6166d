"""A task system in a hundred lines: each call is a process of its own, values go as JSON, results are cached by inputs.

It knows nothing of volumes but the four names it imports.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import sys
import traceback
import typing
from asyncio import create_subprocess_exec, subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stowstore.interop.tasks import Role, from_wire, running, to_data, to_wire


class TaskFailed(Exception):
    """A task has raised; the text is its traceback."""


class Runner:
    """Runs functions of importable modules; what they return is kept in a directory, and found there the next time."""

    def __init__(self, name: str, cache: Path) -> None:
        self.name = name
        self.cache = cache
        self.ran: list[str] = []

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a task, of this run or of an earlier one with the same arguments."""
        request = {"module": function.__module__, "task": function.__qualname__, "arguments": to_data(arguments)}
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
        kept = self.cache / f"{function.__qualname__}-{key}.json"
        if not kept.exists():
            self.ran.append(function.__qualname__)
            producer = {"run": self.name, "task": f"{function.__qualname__}-{key}"}
            answer = await self._in_process({**request, "producer": producer})
            self.cache.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(answer))
        return from_wire(json.loads(kept.read_text()), typing.get_type_hints(function)["return"], Role.RESULT)

    async def _in_process(self, request: dict[str, Any]) -> Any:
        process = await create_subprocess_exec(
            sys.executable, "-W", "error", __file__, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        answer = json.loads((await process.communicate(json.dumps(request).encode()))[0] or "{}")
        if "result" not in answer:
            raise TaskFailed(answer.get("error", f"the process ended with {process.returncode}"))
        return answer["result"]


def serve() -> None:
    """What a worker does: read a request, run the task, answer."""
    request = json.loads(sys.stdin.buffer.read())
    answer = sys.stdout
    try:
        # What tasks print is no answer.
        with contextlib.redirect_stdout(sys.stderr), running(request["producer"]):
            function = getattr(importlib.import_module(request["module"]), request["task"])
            types = typing.get_type_hints(function)
            types.pop("return")
            expected = tuple[tuple(types.values())]  # type: ignore[misc]
            result = to_wire(function(*from_wire(request["arguments"], expected)), message=request["task"])
    except Exception:  # noqa: BLE001 - whatever it is, the caller is told
        json.dump({"error": traceback.format_exc()}, answer)
    else:
        json.dump({"result": result}, answer)


if __name__ == "__main__":
    sys.path.insert(0, "")
    serve()
