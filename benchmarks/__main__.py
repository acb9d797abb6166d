"""The command: measures what it is asked for and reports it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import click

from benchmarks import comparing, inside
from benchmarks.interop import interop
from benchmarks.model import Row
from benchmarks.mount import mount
from benchmarks.named import named
from benchmarks.records import records
from benchmarks.report import Conditions, as_json, as_table, write_document
from benchmarks.scale import FULL, QUICK, Scale
from benchmarks.volumes import volumes

__all__ = ["main"]

_GROUPS: Mapping[str, Callable[[Scale, Callable[[str], None]], Iterator[Row]]] = {
    "stub": comparing.stub,
    "radosgw": comparing.radosgw,
    "disk": comparing.disk,
    "import": inside.imports,
    "layers": inside.layers,
    "volumes": volumes,
    "mount": mount,
    "named": named,
    "records": records,
    "interop": interop,
}


@click.command()
@click.option("--json", "json_output", is_flag=True, help="Print JSON for programs instead of a table.")
@click.option("--only", multiple=True, type=click.Choice(list(_GROUPS)), help="Measure this group only; repeatable.")
@click.option("--quick", is_flag=True, help="Try everything in under a minute; the figures say little.")
@click.option("--output", type=click.Path(path_type=Path), help="Also write a Markdown document, keeping its end.")
def main(json_output: bool, only: tuple[str, ...], quick: bool, output: Path | None) -> None:
    """Measure stowstore beside the clients it could be replaced by, in one run, against 127.0.0.1 alone."""
    began, load = time.time(), os.getloadavg()[0]
    rows: list[Row] = []
    for name in only or _GROUPS:
        rows += _GROUPS[name](QUICK if quick else FULL, _progress)
        conditions = Conditions.of(began, time.time() - began, load)
        if output is not None:
            # After each group: a run that is stopped leaves what it has.
            write_document(output, rows, conditions)
    _progress("")
    print(as_json(rows, conditions) if json_output else as_table(rows, conditions))


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
