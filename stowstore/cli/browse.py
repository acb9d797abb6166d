"""Commands that look at objects and containers: ls, head, cat, mb, rb, sign."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from datastore.errors import NotFound
from datastore.model import Cursor, SignedURLProperties, SignedURLScope
from datastore.reference import DataReference
from stowstore.cli.opening import Opener
from stowstore.cli.output import echo_json, echo_table, json_option, size_text, time_text
from stowstore.durations import parse_duration
from stowstore.store import StowStore

__all__ = ["cat", "head", "ls", "mb", "rb", "sign"]

_PIECE = 1 << 20


@click.command()
@click.argument("reference", default="")
@click.option("-l", "--long", "is_long", is_flag=True, help="Show sizes, times and etags.")
@click.option("-r", "--recursive", is_flag=True, help="List everything below, not one level.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Stop after so many entries.")
@json_option
@click.pass_obj
def ls(opener: Opener, reference: str, is_long: bool, recursive: bool, limit: int | None, as_json: bool) -> None:
    """List objects and prefixes below REFERENCE, one level by default.

    A REFERENCE that ends in a slash, or names a container, lists what lies in it; any other is a prefix as text:
    s3://b/rep finds s3://b/report.pdf. Without REFERENCE the configured store is listed.

    \b
    Examples:
      stowstore ls s3://bucket/reports/ -l
      stowstore ls -r --json gs://bucket
    """
    prefix = opener.reference(reference)
    store = opener.store(prefix)
    with opener.limits():
        _require_container(store, prefix)
        rows = _entries(store, prefix, directory=reference.endswith("/"), recursive=recursive)
        shown = [row for _, row in zip(range(limit or sys.maxsize), rows, strict=False)] if as_json or is_long else rows
        if as_json:
            echo_json(list(shown))
        elif is_long:
            cells = (
                (
                    size_text(row["size"]) if row["size"] is not None else "",
                    time_text(row["last_modified"]),
                    row["etag"],
                    row["reference"],
                )
                for row in shown
            )
            echo_table(("size", "modified", "etag", "reference"), cells, right=frozenset({0}))
        else:
            for _, row in zip(range(limit or sys.maxsize), shown, strict=False):
                click.echo(row["reference"])


@click.command()
@click.argument("reference")
@json_option
@click.pass_obj
def head(opener: Opener, reference: str, as_json: bool) -> None:
    """Show what is known of an object: size, etag, type, metadata. Exit status 3 when there is none."""
    ref = opener.reference(reference)
    with opener.limits():
        found = opener.store(ref).head(ref)
    if not found.exists:
        raise NotFound("there is no such object", op="head", reference=str(ref))
    values: dict[str, Any] = {
        "reference": str(ref),
        "size": found.size,
        "etag": found.etag,
        "content_type": found.content_type,
        "content_md5": found.content_md5 or None,
        "last_modified": found.last_modified,
        "cache_control": found.cache_control,
        "content_encoding": found.content_encoding,
        "content_disposition": found.content_disposition,
        "metadata": dict(found.user_metadata),
    }
    if as_json:
        echo_json(values)
        return
    values["last_modified"] = time_text(found.last_modified)
    values["metadata"] = ", ".join(f"{name}={value}" for name, value in found.user_metadata.items())
    echo_table(("property", "value"), [(name, value) for name, value in values.items() if value not in (None, "")])


@click.command()
@click.argument("reference")
@click.option("--start", type=int, default=0, help="First byte; negative counts from the end.")
@click.option("--length", type=click.IntRange(min=0), help="How many bytes.")
@click.pass_obj
def cat(opener: Opener, reference: str, start: int, length: int | None) -> None:
    """Write an object, or a range of it, to standard output."""
    ref = opener.reference(reference)
    with opener.limits(), opener.store(ref).read_raw(ref, start, length) as stream:
        out = sys.stdout.buffer
        while piece := stream.read(_PIECE):
            out.write(piece)
        out.flush()


@click.command()
@click.argument("reference")
@click.pass_obj
def mb(opener: Opener, reference: str) -> None:
    """Make a private container (bucket): stowstore mb s3://bucket."""
    ref = _container(opener, reference)
    with opener.limits():
        click.echo(opener.store(ref).create_container(ref.container))


@click.command()
@click.argument("reference")
@click.pass_obj
def rb(opener: Opener, reference: str) -> None:
    """Remove an empty container (bucket)."""
    ref = _container(opener, reference)
    with opener.limits():
        opener.store(ref).delete_container(ref.container)


@click.command()
@click.argument("reference")
@click.option(
    "--scope", type=click.Choice([scope.value for scope in SignedURLScope]), default="read", show_default=True
)
@click.option("--expires", default="15m", show_default=True, help='How long the URL works, such as "30s" or "12h".')
@click.option("--md5", "content_md5", help="MD5 of the body a write must have (base64 or hex).")
@click.option("--content-type", help="Content type a write must have.")
@click.option("--content-length", type=click.IntRange(min=0), help="Length in bytes a write must have.")
@click.option("--if-absent", is_flag=True, help="Let a write create only.")
@json_option
@click.pass_obj
def sign(
    opener: Opener,
    reference: str,
    scope: str,
    expires: str,
    content_md5: str | None,
    content_type: str | None,
    content_length: int | None,
    if_absent: bool,
    as_json: bool,
) -> None:
    """Sign a URL that lets whoever holds it do one thing with one object for a while.

    The URL goes to standard output, the headers its user must send to standard error; --json prints both.

    \b
    Examples:
      curl "$(stowstore sign s3://bucket/report.pdf)"
      stowstore sign s3://bucket/in.bin --scope write --md5 "$(openssl md5 -binary in.bin | base64)" --json
    """
    ref = opener.reference(reference)
    properties = SignedURLProperties(
        scope=SignedURLScope(scope),
        expires_in=parse_duration(expires) / 1e9,
        content_md5=content_md5,
        add_content_md5_metadata=content_md5 is not None,
        content_type=content_type,
        content_length=content_length,
        if_absent=if_absent,
    )
    with opener.limits():
        signed = opener.store(ref).create_signed_url(ref, properties)
    if as_json:
        echo_json({"url": signed.url, "method": signed.method, "headers": dict(signed.required_request_headers)})
        return
    click.echo(signed.url)
    for name, value in signed.required_request_headers.items():
        click.echo(f"{name}: {value}", err=True)


def _entries(store: StowStore, prefix: DataReference, *, directory: bool, recursive: bool) -> Iterator[dict[str, Any]]:
    cursor = Cursor.at_start()
    while not cursor.is_at_end:
        page = store.list_page(prefix, None, cursor, delimiter="" if recursive else "/", directory=directory)
        rows = [
            {
                "reference": str(entry.reference),
                "size": entry.size,
                "etag": entry.etag,
                "last_modified": entry.last_modified,
            }
            for entry in page.entries
        ] + [{"reference": f"{found}/", "size": None, "etag": None, "last_modified": None} for found in page.prefixes]
        yield from sorted(rows, key=lambda row: str(row["reference"]).encode())
        if page.omitted:
            click.echo(f"{page.omitted} objects with names no reference can express are left out", err=True)
        cursor = page.cursor


def _require_container(store: StowStore, prefix: DataReference) -> None:
    """An empty listing of a container that is not there would hide a mistyped name."""
    if store.is_primary(prefix):
        store.load_container(prefix.container)


def _container(opener: Opener, reference: str) -> DataReference:
    ref = opener.reference(reference)
    if ref.key:
        raise click.UsageError(f"{ref} names an object; a container is scheme://container")
    return ref
