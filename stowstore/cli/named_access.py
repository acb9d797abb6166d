"""What the commands on named volumes share: the registry, tables, filters, labels."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import click

from stowstore.cli.opening import Opener
from stowstore.named import NamedVolumes
from stowstore.named.registry import BASE_VARIABLES

__all__ = ["echo_columns", "label_pairs", "named_command", "parsed_filters", "use_root"]

_Command = Callable[..., Any]


def named_command(command: _Command) -> _Command:
    """Adds ``--root`` to a command, which gets the registry as its `NamedVolumes`."""

    @click.option("--root", metavar="DIRECTORY", help="The registry of volumes; else $STOWSTORE_ROOT.")
    @click.pass_obj
    @functools.wraps(command)
    def run(opener: Opener, /, *args: Any, root: str | None, **more: Any) -> Any:
        use_root(root)
        with opener.limits():
            return command(NamedVolumes(), *args, **more)

    return run


def use_root(root: str | None) -> None:
    """Makes a directory the registry of this invocation, and of what it starts."""
    if root is not None:
        os.environ[BASE_VARIABLES[0]] = os.path.abspath(os.path.expanduser(root))


def echo_columns(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as what is in them, two blanks apart: the same on a terminal and in a pipe."""
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(head))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def label_pairs(texts: Iterable[str]) -> dict[str, str]:
    """The labels that ``--label KEY=VALUE`` gives; a key alone has the empty value."""
    pairs = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key:
            raise click.UsageError(f"--label takes KEY=VALUE, not {text!r}")
        pairs[key] = value
    return pairs


def parsed_filters(texts: Iterable[str]) -> dict[str, Any]:
    """What ``--filter`` gives, as the arguments of `NamedVolumes.list`."""
    found: dict[str, Any] = {}
    labels: dict[str, str | None] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if key == "label" and value:
            name, has_value, wanted = value.partition("=")
            labels[name] = wanted if has_value else None
        elif key == "type" and equals:
            found["volume_type"] = value
        elif key == "name" and equals:
            found["name"] = value
        elif key in ("in-use", "dangling") and value in ("true", "false"):
            found["in_use"] = (value == "true") is (key == "in-use")
        else:
            raise click.UsageError(
                f"--filter {text!r}: use name=TEXT, type=TYPE, label=KEY[=VALUE], in-use=true or dangling=true"
            )
    if labels:
        found["labels"] = labels
    return found
