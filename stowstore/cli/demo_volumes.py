"""The part of ``stowstore demo`` about volumes: a source tree, its history, two forks, a merge, and what it took."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path

import click

import stowstore
from datastore.reference import DataReference
from stowstore.chunks.block import PackKind
from stowstore.cli.output import size_text, timed
from stowstore.index.snapshot import Snapshot
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import ROOT
from stowstore.store import StowStore
from stowstore.transfer import import_directory
from stowstore.transfer.paths import find, make_directories
from stowstore.versions.changes import path_changes
from stowstore.versions.check import check
from stowstore.versions.findings import CheckDepth
from stowstore.versions.history import walk_history
from stowstore.versions.manifest import Manifest
from stowstore.versions.options import CommitOptions, SessionOptions
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from stowstore.versions.successors import merge_version

__all__ = ["demonstrate"]

_VOLUME = "source"
_FORKS = ("left", "right")


def demonstrate(store: StowStore, base: DataReference) -> None:
    """Makes a root of volumes at a prefix that holds nothing, and tells what it does there."""
    root = Root.create(store, base)
    tree = Path(stowstore.__file__).parent
    with tempfile.TemporaryDirectory(prefix="stowstore-demo-") as directory:
        versions = _commit_thrice(root, tree, Path(directory, _VOLUME))
        _fork_twice(root, versions[-1], Path(directory))
    with Session.read(root, root.head(_VOLUME)) as session:
        _merge(root, session)
    _compare(root, versions[0])
    _check(root)


def _commit_thrice(root: Root, tree: Path, directory: Path) -> list[Manifest]:
    made: list[Manifest] = []
    with Session.write(root, _VOLUME, SessionOptions(cache_dir=directory)) as session:
        files = session.files
        report, spent = timed(lambda: import_directory(files, tree, "/package"))
        click.echo(f"Volume     {root.base}#{_VOLUME}: imported {tree} in {spent}")
        click.echo(f"           {report.files} files, {report.directories} directories, {size_text(report.bytes)}")
        made.append(_commit(session, "import the package"))
        _write(files, "/package/__init__.py", b"# changed\n", append=True)
        _write(files, "/notes/first.txt", b"what was found\n")
        made.append(_commit(session, "change a module, begin the notes"))
        notes = find(files, "/notes").ino
        files.rename(notes, b"first.txt", notes, b"begun.txt", ROOT)
        made.append(_commit(session, "rename a note"))
    return made


def _commit(session: Session, message: str) -> Manifest:
    before = session.base
    manifest, spent = timed(lambda: session.commit(CommitOptions(message=message)))
    index = manifest.statistics.index_bytes - (0 if before is None else before.statistics.index_bytes)
    click.echo(
        f"Committed  {session.volume}@{manifest.id} in {spent}: {manifest.statistics.inode_count} inodes, "
        f"{size_text(manifest.statistics.used_bytes)}, {index} bytes of index ({message})"
    )
    assert isinstance(manifest, Manifest)
    return manifest


def _fork_twice(root: Root, manifest: Manifest, directory: Path) -> None:
    for name in _FORKS:
        with Session.read(root, manifest.name) as session:
            _, spent = timed(partial(session.branch, name))
        click.echo(f"Forked     {name} of {_VOLUME}@{manifest.id} in {spent}")
    for name in _FORKS:
        with Session.write(root, name, SessionOptions(cache_dir=directory / name)) as session:
            _write(session.files, f"/notes/{name}.txt", f"said by {name}\n".encode())
            if name == "left":
                session.files.unlink(find(session.files, "/package").ino, b"py.typed", ROOT)
            _commit(session, f"work of {name}")


def _merge(root: Root, session: Session) -> None:
    for name in _FORKS:
        merged, spent = timed(partial(merge_version, root, session.chunks, _VOLUME, root.head(name)))
        click.echo(
            f"Merged     {name} into {_VOLUME}@{merged.version.id} in {spent}, {len(merged.conflicts)} conflicts"
        )


def _compare(root: Root, first: Manifest) -> None:
    newest = root.head(_VOLUME)
    with Session.read(root, newest) as session:
        old = Snapshot(first.snapshot, session.files.snapshot.cache)
        changes, spent = timed(lambda: list(path_changes(old, session.files.snapshot)))
        counts = ", ".join(f"{count} {kind.value}" for kind, count in Counter(c.kind for c in changes).items())
        click.echo(f"Compared   the first version with the newest in {spent}: {counts}")
        for change in changes:
            click.echo(f"           {change.kind.value:<10} {change.path}{'/' if change.is_directory else ''}")
        packs = [entry.size for kind in PackKind for entry in session.chunks.list_packs(kind)]
    history = list(walk_history(root, newest))
    logical = sum(manifest.statistics.used_bytes for manifest in history)
    click.echo(
        f"Stored     {len(history)} versions that hold {size_text(logical)} take {len(packs)} packs, "
        f"{size_text(sum(packs))}"
    )


def _check(root: Root) -> None:
    with Session.read(root, root.head(_VOLUME)) as session:
        report, spent = timed(lambda: check(root, session.chunks, depth=CheckDepth.DATA))
    verdict = "everything is whole" if report.is_whole else f"{len(report.findings)} findings"
    click.echo(
        f"Checked    {report.versions} versions, {report.nodes} index nodes, {report.blocks} blocks in {spent}: "
        f"{verdict}"
    )
    for finding in report.findings:
        click.echo(f"           {finding}")
    if not report.is_whole:
        raise SystemExit(1)


def _write(files: FileSystem, path: str, content: bytes, *, append: bool = False) -> None:
    directory, _, name = path.rpartition("/")
    flags = os.O_WRONLY | (os.O_APPEND if append else os.O_TRUNC)
    created, handle = files.create(make_directories(files, directory), os.fsencode(name), 0o644, flags, ROOT)
    try:
        files.write(handle, created.size, content, ROOT)
    finally:
        files.release(handle)
