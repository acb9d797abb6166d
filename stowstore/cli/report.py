"""``stowstore report``: a root as one page for a person."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from attrs import asdict

from stowstore.cli.output import json_option
from stowstore.cli.transfers import status_line
from stowstore.cli.volume_access import Access, volume_command
from stowstore.report.gathering import gather
from stowstore.report.model import RootFacts
from stowstore.whole_files import whole_file

__all__ = ["report"]


@click.command()
@click.argument("root")
@click.option("--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="Write into FILE.")
@click.option("--index", "with_index", is_flag=True, help="Also read the index of every version; see below.")
@json_option
@volume_command
def report(access: Access, root: str, output: Path | None, with_index: bool, as_json: bool) -> None:
    """Make one page of HTML about a ROOT: volumes, lineage, sizes, growth. It opens in any browser, without network.

    The NAME of a volume of this host is the root it lies in.

    Reads one small object a version and lists packs; no file, no index, no pack. With --index it also reads the index
    of every version, as a collection does, for what each version added, what compression saved, garbage, and the
    largest directories; the root's key is needed then if it is encrypted.

    \b
    Examples:
      stowstore report file:///data/root --output root.html
      stowstore report "s3://bucket/root?endpoint=http://127.0.0.1:9000" --index --output root.html
      stowstore report file:///data/root --json
    """
    if "#" in root:
        raise click.UsageError(f"a report is about a whole root: leave out #{root.partition('#')[2]}")
    if "://" not in root and "@" in root:
        raise click.UsageError(f"a report is about a whole root: leave out @{root.partition('@')[2]}")
    if not as_json:
        _require_templates()
    with status_line("looking at the root") as say:
        opened = access.root(root)
        facts = gather(opened, on_step=say)
        if with_index:
            from stowstore.report.indexing import read_index

            with access.chunks(opened) as chunks:
                facts = read_index(opened, chunks, facts, key=access.key, on_step=say)
        if as_json:
            text = json.dumps(_plain(facts), indent=2) + "\n"
        else:
            from stowstore.report.page import render

            say("drawing")
            text = render(facts)
    if output is None:
        click.echo(text.encode(), nl=False)
    else:
        with whole_file(output) as page:
            page.write(text.encode())
        click.echo(f"{output}: {len(facts.volumes)} volumes, {len(facts.versions)} versions", err=True)


def _require_templates() -> None:
    try:
        import jinja2  # noqa: F401 - asked for before anything is read
    except ModuleNotFoundError as error:
        raise click.ClickException(f"report needs the package {error.name}: pip install 'stowstore[report]'") from error


def _plain(facts: RootFacts) -> dict[str, Any]:
    sums = {"newest_bytes": facts.newest_bytes, "logical_bytes": facts.logical_bytes, "stored_bytes": facts.packs.bytes}
    return asdict(facts, value_serializer=_serialized) | sums


def _serialized(_: object, __: object, value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
