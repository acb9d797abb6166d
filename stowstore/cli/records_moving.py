"""Commands that bring records into a store and out of it: push, pull, export."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

import click

from stowstore.cli.dask import cluster_at, dask_option
from stowstore.cli.output import echo_json, json_option, size_text
from stowstore.cli.records_access import (
    Records,
    Uuid,
    record_command,
    related_option,
    skip_missing_option,
    tell,
    uuids,
)
from stowstore.records import Receipt, RecordDirectory
from stowstore.records.errors import NoSuchRecord

__all__ = ["export", "pull", "push"]


@click.command()
@click.argument("root")
@click.argument(
    "directories", metavar="DIRECTORY...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True)
)
@related_option
@skip_missing_option
@dask_option
@json_option
@record_command
def push(
    records: Records,
    root: str,
    directories: tuple[Path, ...],
    related: str,
    skip_missing: bool,
    dask: str | None,
    as_json: bool,
) -> None:
    """Bring the records in DIRECTORY... into ROOT; only what has changed is sent. An interrupted push goes on.

    Related records are looked for among the records below the given directories, then in the index. With --dask workers
    send the files: they have to see each DIRECTORY under the same path.

    \b
    Examples:
      stowstore record push file:///backup/runs storage/study/*
      stowstore record push s3://bucket/runs ./run --related all --skip-missing
    """
    receipts: list[Receipt] = []
    with cluster_at(dask) as cluster, records.open(root, create=True, cluster=cluster) as store:
        assert store.index is not None
        known: dict[str, Path] = {}
        for directory in directories:
            known.setdefault(RecordDirectory.open(directory).uuid, directory)
        for uuid, directory in known.items():
            if any(uuid == receipt.uuid for receipt in receipts):
                continue
            receipts += store.upload(
                directory,
                related,
                locate=lambda wanted: known.get(wanted) or store.index.locate(wanted),  # type: ignore[union-attr]
                skip_missing=skip_missing,
            )
        uris = {receipt.uuid: store.home_uri(receipt.uuid) for receipt in receipts}
    if as_json:
        echo_json([_receipt_data(receipt, uris[receipt.uuid]) for receipt in receipts])
        return
    for receipt in receipts:
        click.echo(uris[receipt.uuid])
        tell(f"{receipt.uuid}: {receipt.moved_files} of {receipt.files} files sent, {size_text(receipt.moved_bytes)}")


@click.command()
@click.argument("root")
@uuids
@click.option("--to", "destination", type=click.Path(path_type=Path, file_okay=False), default=Path(), metavar="DIR")
@related_option
@skip_missing_option
@json_option
@record_command
def pull(
    records: Records,
    root: str,
    uuids: tuple[str, ...],
    destination: Path,
    related: str,
    skip_missing: bool,
    as_json: bool,
) -> None:
    """Put the records UUID... below a directory, each in one of its own; every byte is verified before that.

    What a directory has already is not fetched. An interrupted pull goes on. Nothing is in place before it is whole.
    """
    found: dict[Path, None] = {}
    missing: list[str] = []
    with records.open(root) as store:
        for uuid in dict.fromkeys(uuids):
            try:
                found.update(dict.fromkeys(store.download(uuid, destination, related, skip_missing=skip_missing)))
            except NoSuchRecord:
                if not skip_missing:
                    raise
                missing.append(uuid)
    if as_json:
        echo_json({"directories": [str(path) for path in found], "missing": missing})
        return
    for path in found:
        click.echo(path)
    for uuid in missing:
        tell(f"stowstore: there is no record {uuid}")


@click.command()
@click.argument("root")
@click.argument("uuid", type=Uuid())
@click.argument("archive", type=click.Path(path_type=Path, dir_okay=False))
@record_command
def export(records: Records, root: str, uuid: str, archive: Path) -> None:
    """Write the record UUID, with its runs, into a tar archive; .gz, .bz2 and .xz are compressed."""
    kinds = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz"}
    with (
        records.open(root, indexed=False) as store,
        tempfile.TemporaryDirectory(dir=archive.parent, prefix=".stow-export-") as above,
    ):
        (directory,) = store.download(uuid, above, "none")
        written = Path(above) / "archive"
        with tarfile.open(written, kinds.get(archive.suffix, "w")) as tar:  # type: ignore[call-overload]
            tar.add(directory, uuid)
        written.replace(archive)


def _receipt_data(receipt: Receipt, uri: str) -> dict[str, object]:
    return {
        "uuid": receipt.uuid,
        "uri": uri,
        "generation": receipt.generation,
        "changed": receipt.changed,
        "files": receipt.files,
        "bytes": receipt.bytes,
        "sent_files": receipt.moved_files,
        "sent_bytes": receipt.moved_bytes,
        "runs": [inner.uuid for inner in receipt.nested],
    }
