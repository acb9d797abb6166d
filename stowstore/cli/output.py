"""How results look: tables for people, JSON for programs, sizes and times in the usual words."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from time import perf_counter
from typing import Any

import click

from stowstore.wording import size_text, time_text

__all__ = ["echo_json", "echo_table", "is_full", "json_option", "size_text", "time_text", "timed"]

_Command = Callable[..., Any]


def json_option(command: _Command) -> _Command:
    """Adds ``--json`` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")(command)


def echo_json(value: Any) -> None:
    """One JSON document on standard output; times in ISO 8601, references as text."""
    click.echo(json.dumps(value, indent=2, default=_plain, ensure_ascii=False))


def echo_table(head: Sequence[str], rows: Iterable[Sequence[object]], *, right: frozenset[int] = frozenset()) -> None:
    """A table sized to its terminal; plain text columns when standard output is no terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, title in enumerate(head):
        table.add_column(title, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    console = Console(highlight=False, markup=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = 1000
    console.print(table)


def timed(act: Callable[[], Any]) -> tuple[Any, str]:
    """What a call returns, and how long it took."""
    began = perf_counter()
    result = act()
    spent = perf_counter() - began
    return result, f"{spent * 1000:.1f} ms" if spent < 1 else f"{spent:.2f} s"


def is_full(error: BaseException | None) -> bool:
    """Whether a full disk or quota is behind an error, however many words were put around it."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if hasattr(value, "items"):
        return dict(value)
    return str(value)
