"""The report: a table for people, JSON for programs, and the document that keeps what was written into it by hand."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from attrs import asdict, field, frozen

from benchmarks.model import Measure, Row

__all__ = ["Conditions", "as_json", "as_markdown", "as_table", "write_document"]

_COLUMNS = ("what", "client", "figure", "wall ms", "CPU µs/op", "ratio", "peak MiB", "target", "met")
#: Of these, a group shows those it has anything in.
_NUMBERS = frozenset({"figure", "wall ms", "CPU µs/op", "ratio", "peak MiB"})
_TITLES = {
    "stub": "S3 against a stub: what the clients themselves cost",
    "radosgw": "S3 against Ceph's gateway",
    "disk": "Local disk",
    "import": "Import",
    "layers": "Layers over a store in memory",
    "volumes": "Volumes",
    "mount": "Mounts",
    "named": "Named volumes and jobs",
    "records": "Records",
    "interop": "Reading through fsspec",
}
_DISTRIBUTIONS = ("obstore", "minio", "boto3", "s3fs", "apache-libcloud")

#: What comes after this line is written by hand, and kept.
_BY_HAND = "<!-- Below this line is written by hand; the command keeps it. -->"


@frozen(kw_only=True)
class Conditions:
    """Where and when a run was made."""

    command: str
    date: str
    seconds: float
    python: str
    system: str
    processors: int
    load_before: float
    load_after: float
    versions: dict[str, str] = field(factory=dict)

    @classmethod
    def of(cls, began: float, seconds: float, load_before: float) -> Conditions:
        return cls(
            command=" ".join(["python -m benchmarks", *sys.argv[1:]]),
            date=datetime.fromtimestamp(began, UTC).strftime("%Y-%m-%d %H:%M UTC"),
            seconds=round(seconds, 1),
            python=platform.python_version(),
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            processors=os.cpu_count() or 0,
            load_before=round(load_before, 2),
            load_after=round(os.getloadavg()[0], 2),
            versions={name: _version(name) for name in _DISTRIBUTIONS},
        )

    def lines(self) -> list[str]:
        busy = max(self.load_before, 0.0) > self.processors / 2
        return [
            f"Command: `{self.command}`, {self.date}, took {self.seconds:g} s.",
            (
                f"Python {self.python} on {self.system}, {self.processors} processors; load average "
                f"{self.load_before:g} before and {self.load_after:g} after"
                f"{' (**the machine was busy: trust ratios only, and those with doubt**)' if busy else ''}."
            ),
            "Clients: " + ", ".join(f"{name} {text}" for name, text in self.versions.items()) + ".",
        ]


def as_json(rows: Sequence[Row], conditions: Conditions) -> str:
    """One document with everything, every round included."""
    return json.dumps({"conditions": asdict(conditions), "rows": [asdict(row) for row in rows]}, indent=1)


def as_table(rows: Sequence[Row], conditions: Conditions) -> str:
    """Aligned text, a block a group."""
    lines = list(conditions.lines())
    for group in dict.fromkeys(row.group for row in rows):
        columns, cells = _table(row for row in rows if row.group == group)
        widths = [max(map(len, texts)) for texts in zip(columns, *cells, strict=True)]
        lines += ["", _TITLES.get(group, group)]
        lines += [_aligned(line, columns, widths) for line in (columns, *cells)]
    return "\n".join([*lines, "", _summary(rows)])


def as_markdown(rows: Sequence[Row], conditions: Conditions) -> str:
    """The part of the document that is made."""
    lines = ["# Benchmarks", "", "Made by the command below; do not edit above the line that says so.", ""]
    lines += [f"- {line}" for line in conditions.lines()]
    lines += ["", _READING, "", _summary(rows)]
    for group in dict.fromkeys(row.group for row in rows):
        columns, cells = _table(row for row in rows if row.group == group)
        rules = "|".join("---:" if name in _NUMBERS else "---" for name in columns)
        lines += ["", f"## {_TITLES.get(group, group)}", "", f"| {' | '.join(columns)} |", f"|{rules}|"]
        lines += [f"| {' | '.join(line)} |" for line in cells]
    return "\n".join(lines) + "\n"


def write_document(path: Path, rows: Sequence[Row], conditions: Conditions) -> None:
    """Writes the document anew and keeps what follows the line above which everything is made."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    _, found, by_hand = old.partition(_BY_HAND)
    text = as_markdown(rows, conditions)
    path.write_text(f"{text}\n{_BY_HAND}{by_hand if found else chr(10)}", encoding="utf-8")


_READING = (
    "All clients of a table ran in one run, each in a process of its own, taking turns round by round. Figures are the "
    "best of a client's rounds. *CPU* is user and system time of the client's process alone; *wall* is the time of a "
    "whole round; the ratio is to obstore (to plain files on local disk, to the first row elsewhere) and is one of CPU "
    "where the target says so or is silent, of wall time for listings and on disk."
)


def _summary(rows: Sequence[Row]) -> str:
    judged = [row for row in rows if row.met is not None]
    missed = [row for row in judged if not row.met]
    lines = [f"{len(judged) - len(missed)} of {len(judged)} figures are met."]
    lines += [f"- Not met: {row.group}, {row.what}, {row.client}: {row.target}" for row in missed]
    return "\n".join(lines)


def _table(rows: Iterable[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns of a group and the cells of its rows."""
    lines = [_cells(row) for row in rows]
    shown = [
        index
        for index, name in enumerate(_COLUMNS)
        if name not in _NUMBERS or any(line[index] != "-" for line in lines)
    ]
    return tuple(_COLUMNS[index] for index in shown), [tuple(line[index] for index in shown) for line in lines]


def _cells(row: Row) -> tuple[str, ...]:
    if row.wall is None and not row.figure:
        return (row.what, row.client, "-", "-", "-", "-", "-", row.note, "")
    return (
        row.what,
        row.client,
        row.figure or "-",
        "-" if row.wall is None else f"{row.wall * 1000:,.1f}",
        "-" if row.cpu_us is None else f"{row.cpu_us:,.1f}",
        "-" if row.ratio is None else f"{row.ratio:.2f}{' wall' if row.measure is Measure.WALL else ''}",
        f"{row.peak / (1 << 20):,.0f}" if row.peak else "-",
        row.target or row.note,
        "" if row.met is None else "yes" if row.met else "**no**",
    )


def _aligned(cells: Sequence[str], columns: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        text.rjust(width) if name in _NUMBERS else text.ljust(width)
        for text, name, width in zip(cells, columns, widths, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"
