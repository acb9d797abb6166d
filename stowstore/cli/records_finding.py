"""Commands that look at records and name them: ls, show, search, graph, label, touch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from stowstore.cli.output import echo_json, echo_table, json_option, size_text, time_text
from stowstore.cli.records_access import Moment, Records, Uuid, record_command
from stowstore.cli.volume_access import printable
from stowstore.records import Comparison, Filter, Manifest, RecordDirectory, Related
from stowstore.records.closures import closure
from stowstore.records.errors import NoSuchRecord
from stowstore.records.model import FileKind

__all__ = ["graph", "label", "ls", "search", "show", "touch"]

_TERM = re.compile(r"(?P<path>[^<>=!]+)(?P<sign><=|>=|!=|<|>|=)(?P<value>.*)", re.DOTALL)
_COLUMNS = ("module", "kind", "label", "parent", "created_by", "identity_key", "predicate_key")
_HEAD = ("UUID", "CREATED", "MODULE", "LABEL", "FILES", "SIZE")


@click.command()
@click.argument("root")
@click.option("--label", help="Those of this label.")
@click.option("--parent", metavar="UUID", type=Uuid(), help="Runs of this record, or records of this project.")
@click.option("--since", type=Moment(), help="Those made then or later: a time, or 7d for the last week.")
@click.option("--until", type=Moment(), help="Those made before.")
@click.option("-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many.")
@json_option
@record_command
def ls(
    records: Records,
    root: str,
    label: str | None,
    parent: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the records in ROOT, the newest first, as the store has them now."""
    with records.open(root, indexed=False) as store:
        uuids = store.search(label=label, parent=parent, since=since, until=until, limit=limit)
        found = [stored.manifest for uuid in uuids if (stored := store.manifests.read(uuid)) is not None]
    if as_json:
        echo_json([_data(manifest) for manifest in found])
    else:
        echo_table(_HEAD, (_row(manifest) for manifest in found), right=frozenset({4, 5}))


@click.command()
@click.argument("root")
@click.argument("uuid", type=Uuid())
@click.option("--files", is_flag=True, help="List its files, too.")
@json_option
@record_command
def show(records: Records, root: str, uuid: str, files: bool, as_json: bool) -> None:
    """Show what the record UUID is: its code, configuration, label, relations, and with --files its files."""
    with records.open(root, indexed=False) as store:
        manifest = store.manifest(uuid)
        uri = store.home_uri(uuid)
    data = {
        **_data(manifest),
        "uri": uri,
        "config": manifest.model.get("config") or {},
        "predicate": manifest.model.get("predicate") or {},
        "place": manifest.place,
        "related": [edge._asdict() for edge in manifest.edges],
    }
    listing = [
        {"path": printable(file.path), "kind": file.kind.value, "size": file.size, "sha256": file.sha256}
        for file in manifest.files
    ]
    if as_json:
        echo_json({**data, "files": listing} if files else data)
        return
    for name, value in data.items():
        if value not in (None, {}, []):
            text = value if isinstance(value, (str, int)) else json.dumps(value, ensure_ascii=False)
            click.echo(f"{name + ':':15}{printable(str(text))}")
    if files:
        rows = [
            (item["path"], size_text(file.size) if file.kind is FileKind.FILE else item["kind"], file.sha256[:12])
            for item, file in zip(listing, manifest.files, strict=True)
        ]
        echo_table(("PATH", "SIZE", "SHA256"), rows, right=frozenset({1}))


@click.command()
@click.argument("root")
@click.argument("terms", metavar="[NAME=VALUE | NAME>=VALUE]...", nargs=-1)
@click.option("--predicate", "predicates", metavar="NAME=VALUE", multiple=True, help="A value of the predicate.")
@click.option("--like", type=click.Path(path_type=Path, exists=True), help="The same code and configuration as these.")
@click.option("--since", type=Moment(), help="Those made then or later.")
@click.option("--until", type=Moment(), help="Those made before.")
@click.option("-n", "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many.")
@click.option("--no-reindex", is_flag=True, help="Ask the index as it is, without looking at the store.")
@json_option
@record_command
def search(
    records: Records,
    root: str,
    terms: tuple[str, ...],
    predicates: tuple[str, ...],
    like: Path | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    no_reindex: bool,
    as_json: bool,
) -> None:
    """Find records by values of their configuration: lr=0.1, "lr>=0.1", opt.name=adam, module=study, label=best.

    A value is JSON where it can be (0.1, true, null), else text. --like asks the store with one listing; everything
    else asks the local index, brought up to date first unless --no-reindex is given.
    """
    if like is not None:
        with records.open(root, indexed=False) as store:
            uuids = store.search_for(like)
        if as_json:
            echo_json(uuids)
        else:
            click.echo("".join(f"{uuid}\n" for uuid in uuids), nl=False)
        return
    exact: dict[str, Any] = {}
    filters: list[Filter] = []
    for path, comparison, value in map(_term, terms):
        if path in _COLUMNS and comparison is Comparison.EQ:
            exact[path] = value if value is None else str(value)
        else:
            filters.append(Filter(path, comparison, value))
    wanted = {path: value for path, _, value in map(_term, predicates)}
    with records.open(root) as store:
        assert store.index is not None
        if not no_reindex:
            store.index.rebuild(store)
        entries, total = store.index.find(
            **exact, config=filters, predicate=wanted, since=since, until=until, limit=limit
        )
    if as_json:
        echo_json(
            [
                {"uuid": entry.uuid, "module": entry.module, "label": entry.label, "config": dict(entry.config)}
                for entry in entries
            ]
        )
        return
    rows = [
        (
            entry.uuid,
            _created_text(entry.created_at_ns),
            entry.module,
            printable(entry.label or ""),
            entry.files,
            size_text(entry.bytes),
        )
        for entry in entries
    ]
    echo_table(_HEAD, rows, right=frozenset({4, 5}))
    if total > len(entries):
        click.echo(f"{len(entries)} of {total} shown", err=True)


@click.command()
@click.argument("root")
@click.argument("uuid", type=Uuid())
@click.option("--dot", is_flag=True, help="Print a graph for Graphviz.")
@json_option
@record_command
def graph(records: Records, root: str, uuid: str, dot: bool, as_json: bool) -> None:
    """Show everything the record UUID is related to, and how; cycles end."""
    found: dict[str, Manifest | None] = {}
    with records.open(root, indexed=False) as store:

        def visit(wanted: str) -> Iterable[str]:
            stored = store.manifests.read(wanted)
            found[wanted] = None if stored is None else stored.manifest
            return () if stored is None else stored.manifest.related()

        closure(uuid, visit, Related.ALL)
    if found[uuid] is None:
        raise NoSuchRecord(f"there is no record {uuid} in {root}")
    edges = sorted(
        {
            (edge.uuid, edge.related_uuid, edge.name.rpartition(".")[2])
            for manifest in found.values()
            if manifest is not None
            for edge in manifest.edges
        }
        | {
            (manifest.header.parent, manifest.uuid, "runs")
            for manifest in found.values()
            if manifest is not None and manifest.place is not None and manifest.header.parent is not None
        }
    )
    if as_json:
        nodes = [
            {"uuid": node, "missing": True} if manifest is None else _data(manifest) for node, manifest in found.items()
        ]
        echo_json({"records": nodes, "edges": [{"from": a, "to": b, "name": name} for a, b, name in edges]})
    elif dot:
        lines = [f"  {json.dumps(a)} -> {json.dumps(b)} [label={json.dumps(name)}];" for a, b, name in edges]
        nodes_ = [f"  {json.dumps(node)} [label={json.dumps(_name(node, found[node]))}];" for node in found]
        click.echo("\n".join(["digraph records {", *nodes_, *lines, "}"]))
    else:
        echo_table(
            ("FROM", "", "TO"),
            ((_name(a, found.get(a)), name, _name(b, found.get(b))) for a, b, name in edges),
        )


@click.command()
@click.argument("root")
@click.argument("uuid", type=Uuid())
@click.argument("text", required=False)
@click.option("--clear", is_flag=True, help="Take the label away.")
@record_command
def label(records: Records, root: str, uuid: str, text: str | None, clear: bool) -> None:
    """Call the record UUID by a name, in the store; without a text, say what it is called."""
    with records.open(root) as store:
        if text is None and not clear:
            click.echo(printable(store.manifest(uuid).label or ""))
        else:
            store.set_label(uuid, None if clear else text)


@click.command()
@click.argument(
    "directories", metavar="DIRECTORY...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)
)
def touch(directories: tuple[Path, ...]) -> None:
    """Say that the records in DIRECTORY... have changed, after files were written without machinable."""
    for directory in directories:
        RecordDirectory.open(directory).touch()


def _term(text: str) -> tuple[str, Comparison, Any]:
    match = _TERM.fullmatch(text)
    if match is None:
        raise click.UsageError(f"{text!r} is no condition: write NAME=VALUE, or NAME>=VALUE in quotes")
    try:
        value = json.loads(match["value"])
    except ValueError:
        value = match["value"]
    if isinstance(value, (list, dict)):
        raise click.UsageError(f"{text!r} compares with a list or mapping: name a value in it, such as opt.name=adam")
    return match["path"].strip(), Comparison(match["sign"]), value


def _data(manifest: Manifest) -> dict[str, Any]:
    return {
        "uuid": manifest.uuid,
        "kind": manifest.header.kind,
        "module": manifest.module,
        "label": manifest.label,
        "created_at": datetime.fromtimestamp(manifest.created_at_ns / 1e9, UTC).isoformat(),
        "updated_at": manifest.updated_at,
        "generation": manifest.generation,
        "file_count": manifest.file_count,
        "bytes": manifest.total_bytes,
        "identity_key": manifest.header.identity_key,
        "predicate_key": manifest.header.predicate_key,
        "parent": manifest.header.parent,
    }


def _row(manifest: Manifest) -> tuple[object, ...]:
    return (
        manifest.uuid,
        _created_text(manifest.created_at_ns),
        printable(manifest.module or manifest.header.kind),
        printable(manifest.label or ""),
        manifest.file_count,
        size_text(manifest.total_bytes),
    )


def _created_text(at_ns: int) -> str:
    return time_text(datetime.fromtimestamp(at_ns / 1e9, UTC))


def _name(uuid: str, manifest: Manifest | None) -> str:
    if manifest is None:
        return f"{uuid} (not here)"
    return printable(" ".join(part for part in (uuid, manifest.module, manifest.label) if part))
