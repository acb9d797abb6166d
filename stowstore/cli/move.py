"""Commands that move and remove objects: get, put, cp, rm."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from datastore.errors import AlreadyExists, InvalidReference, NotFound
from datastore.model import Cursor, WriteOptions
from datastore.reference import DataReference
from stowstore.cli.opening import Opener
from stowstore.cli.output import json_option
from stowstore.cli.transfers import Job, Outcome, parallel_option, run_jobs
from stowstore.store import StowStore
from stowstore.whole_files import Existing, whole_file

__all__ = ["cp", "get", "put", "rm"]

_PIECE = 1 << 20

_recursive = click.option("-r", "--recursive", is_flag=True, help="Take everything below.")
_no_clobber = click.option("-n", "--no-clobber", is_flag=True, help="Fail where something is there already.")


@click.command()
@click.argument("reference")
@click.argument("destination", type=click.Path(path_type=Path), default=".")
@_recursive
@_no_clobber
@parallel_option
@json_option
@click.pass_obj
def get(
    opener: Opener,
    reference: str,
    destination: Path,
    recursive: bool,
    no_clobber: bool,
    parallel: int,
    as_json: bool,
) -> None:
    """Copy objects to files: one object to DESTINATION, or with -r everything below REFERENCE into that directory.

    A file appears whole or not at all.

    \b
    Examples:
      stowstore get s3://bucket/reports/2026.pdf
      stowstore get -r s3://bucket/reports ./reports
    """
    ref = opener.reference(reference)
    store = opener.store(ref)
    with opener.limits():
        if not recursive:
            target = destination / ref.name if destination.is_dir() else destination
            outcome = Outcome(done=1, moved=_download(store, ref, target, no_clobber=no_clobber))
        else:
            if destination.exists() and not destination.is_dir():
                raise click.UsageError(f"{destination} is a file; -r needs a directory")
            outcome = run_jobs(_downloads(store, ref, destination, no_clobber=no_clobber), parallel, "copied")
            _require_some(outcome, ref)
    outcome.finish("copied", as_json=as_json)


@click.command()
@click.argument(
    "sources", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, exists=True, allow_dash=True)
)
@click.argument("reference")
@_recursive
@_no_clobber
@click.option(
    "-m", "--metadata", "metadata", metavar="NAME=VALUE", multiple=True, help="User metadata (may be repeated)."
)
@click.option("--content-type", help="Content type of what is written.")
@parallel_option
@json_option
@click.pass_obj
def put(
    opener: Opener,
    sources: tuple[Path, ...],
    reference: str,
    recursive: bool,
    no_clobber: bool,
    metadata: tuple[str, ...],
    content_type: str | None,
    parallel: int,
    as_json: bool,
) -> None:
    """Copy files to objects; "-" reads standard input; -r takes directories.

    With several FILEs, or a REFERENCE that ends in a slash or names a container, files keep their
    names below REFERENCE.

    \b
    Examples:
      stowstore put report.pdf s3://bucket/reports/2026.pdf
      tar c src | stowstore put - s3://bucket/src.tar
      stowstore put -r ./reports s3://bucket/reports
    """
    ref = opener.reference(reference)
    store = opener.store(ref)
    options = WriteOptions(metadata=_pairs(metadata), content_type=content_type, if_absent=no_clobber)
    into = len(sources) > 1 or reference.endswith("/") or not ref.key
    with opener.limits():
        jobs = _uploads(store, sources, ref, options, into=into, recursive=recursive)
        outcome = run_jobs(jobs, parallel, "copied")
    outcome.finish("copied", as_json=as_json)


@click.command()
@click.argument("source")
@click.argument("destination")
@_recursive
@_no_clobber
@parallel_option
@json_option
@click.pass_obj
def cp(
    opener: Opener,
    source: str,
    destination: str,
    recursive: bool,
    no_clobber: bool,
    parallel: int,
    as_json: bool,
) -> None:
    """Copy objects, inside one store or between two, with their metadata.

    Inside one store the bytes do not pass through here. With -r everything below SOURCE is copied below DESTINATION.

    \b
    Examples:
      stowstore cp s3://bucket/a s3://bucket/b
      stowstore cp -r s3://bucket/reports gs://archive/reports
    """
    src, dst = opener.reference(source), opener.reference(destination)
    store = opener.store(src)
    options = WriteOptions(if_absent=True) if no_clobber else None
    with opener.limits():
        if recursive:
            outcome = run_jobs(_copies(store, src, dst, options), parallel, "copied")
            _require_some(outcome, src)
        else:
            target = dst.join(src.name) if destination.endswith("/") or not dst.key else dst
            outcome = Outcome(done=1, moved=store.copy_raw(src, target, options).size)
    outcome.finish("copied", as_json=as_json)


@click.command()
@click.argument("references", nargs=-1, required=True, metavar="REFERENCE...")
@_recursive
@click.option("-y", "--yes", is_flag=True, help="Do not ask before removing recursively.")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@json_option
@click.pass_obj
def rm(opener: Opener, references: tuple[str, ...], recursive: bool, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Remove objects; with -r everything below each REFERENCE. Without -r a missing object is an error (status 3)."""
    refs = [opener.reference(text) for text in references]
    store = opener.store(refs[0])
    outcome = Outcome()
    with opener.limits():
        for ref in refs:
            if not recursive:
                if dry_run:
                    click.echo(ref)
                    continue
                store.delete(ref, missing_ok=False)
                outcome.done += 1
                continue
            if dry_run:
                for entry in store.walk(ref, directory=True):
                    click.echo(entry.reference)
                continue
            if not yes:
                click.confirm(f"remove everything below {ref}?", abort=True, err=True)
            _remove_below(store, ref, outcome)
    if not dry_run:
        outcome.finish("removed", as_json=as_json)


def _download(store: StowStore, ref: DataReference, target: Path, *, no_clobber: bool) -> int:
    if no_clobber and target.exists():
        raise AlreadyExists(f"{target} is there already", op="get", reference=str(ref))
    existing = Existing.KEEP if no_clobber else Existing.REPLACE
    with store.read_raw(ref, max_bytes=0) as stream:
        target.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(target, existing=existing) as out:
            while piece := stream.read(_PIECE):
                out.write(piece)
        return stream.size


def _downloads(store: StowStore, ref: DataReference, destination: Path, *, no_clobber: bool) -> Iterator[Job]:
    root = destination.resolve()
    skip = len(ref.key) + 1 if ref.key else 0
    for entry in store.walk(ref, directory=True):
        found = entry.reference
        relative = found.key[skip:]
        if "//" in relative:
            raise InvalidReference("the key has an empty segment, which no file can have", reference=str(found))
        yield Job(str(found), _Download(store, found, root / relative, root, no_clobber))


class _Download:
    """One download into a directory that symbolic links must not lead out of."""

    def __init__(self, store: StowStore, ref: DataReference, target: Path, root: Path, no_clobber: bool) -> None:
        self._store, self._ref, self._target, self._root, self._no_clobber = store, ref, target, root, no_clobber

    def __call__(self) -> int:
        if not self._target.parent.resolve().is_relative_to(self._root):
            raise InvalidReference(
                f"{self._target} leads out of {self._root} by a symbolic link", reference=str(self._ref)
            )
        return _download(self._store, self._ref, self._target, no_clobber=self._no_clobber)


def _uploads(
    store: StowStore,
    sources: tuple[Path, ...],
    ref: DataReference,
    options: WriteOptions,
    *,
    into: bool,
    recursive: bool,
) -> Iterator[Job]:
    for source in sources:
        if str(source) == "-":
            if into:
                raise click.UsageError("standard input has no name: give the whole reference")
            yield Job("-", lambda: store.write_raw(ref, None, options, sys.stdin.buffer).size)
        elif source.is_dir():
            if not recursive:
                raise click.UsageError(f"{source} is a directory: use -r")
            base = ref.join(source.resolve().name) if len(sources) > 1 else ref
            for path in _files(source):
                yield Job(str(path), _Upload(store, path, base.join(*path.relative_to(source).parts), options))
        else:
            yield Job(str(source), _Upload(store, source, ref.join(source.name) if into else ref, options))


class _Upload:
    def __init__(self, store: StowStore, path: Path, ref: DataReference, options: WriteOptions) -> None:
        self._store, self._path, self._ref, self._options = store, path, ref, options

    def __call__(self) -> int:
        with self._path.open("rb") as source:
            return self._store.write_raw(self._ref, os.fstat(source.fileno()).st_size, self._options, source).size


def _files(directory: Path) -> Iterator[Path]:
    """Regular files below a directory; links to directories are not followed, so no cycle can trap the walk."""
    for parent, directories, names in os.walk(directory):
        directories.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file():
                yield path
            else:
                click.echo(f"stowstore: {path} is no regular file: left out", err=True)


def _copies(store: StowStore, src: DataReference, dst: DataReference, options: WriteOptions | None) -> Iterator[Job]:
    skip = len(src.key) + 1 if src.key else 0
    for entry in store.walk(src, directory=True):
        target = dst.join(entry.reference.key[skip:])
        yield Job(str(entry.reference), _Copy(store, entry.reference, target, options))


class _Copy:
    def __init__(self, store: StowStore, src: DataReference, dst: DataReference, options: WriteOptions | None) -> None:
        self._store, self._src, self._dst, self._options = store, src, dst, options

    def __call__(self) -> int:
        return self._store.copy_raw(self._src, self._dst, self._options).size


def _remove_below(store: StowStore, ref: DataReference, outcome: Outcome) -> None:
    cursor = Cursor.at_start()
    while not cursor.is_at_end:
        page = store.list_page(ref, None, cursor, directory=True)
        failed = store.delete_many([entry.reference for entry in page.entries])
        outcome.failures.extend((str(reference), error) for reference, error in failed.items())
        outcome.done += len(page.entries) - len(failed)
        outcome.moved += sum(entry.size for entry in page.entries if entry.reference not in failed)
        cursor = page.cursor


def _require_some(outcome: Outcome, ref: DataReference) -> None:
    if not outcome.done and not outcome.failures:
        raise NotFound("nothing lies below it", op="list", reference=str(ref))


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise click.UsageError(f"--metadata takes NAME=VALUE, not {text!r}")
        pairs[name] = value
    return pairs
