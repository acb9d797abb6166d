"""Commands that look into versions, and read of them no more than they show: list, ls, tree, cat."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import click

from stowstore.cli.output import echo_json, echo_table, json_option, size_text, time_text
from stowstore.cli.volume_access import Access, VolumePath, printable, volume_command
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.inodes import Attributes
from stowstore.namespace.permissions import ROOT
from stowstore.transfer.paths import entries, find

__all__ = ["cat", "file_pieces", "list_", "ls", "tree"]

_PIECE = 4 << 20


@click.command("list")
@click.argument("root")
@json_option
@volume_command
def list_(access: Access, root: str, as_json: bool) -> None:
    """List the volumes of a ROOT with their newest versions.

    \b
    Example:
      stowstore volume list file:///data/root
    """
    if "#" in root:
        raise click.UsageError(f"{root} is a volume: give the root, {root.partition('#')[0]}")
    opened = access.root(root)
    rows: list[dict[str, Any]] = []
    for name in opened.volumes():
        newest = opened.load(opened.head(name))
        rows.append(
            {
                "volume": name,
                "version": newest.id,
                "created": newest.created,
                "inodes": newest.statistics.inode_count,
                "used_bytes": newest.statistics.used_bytes,
                "tags": sorted(opened.tags(name)),
                "message": newest.message,
            }
        )
    if as_json:
        echo_json(rows)
        return
    cells = (
        (
            row["volume"],
            row["version"],
            time_text(row["created"]),
            row["inodes"],
            size_text(row["used_bytes"]),
            ", ".join(row["tags"]),
            printable(row["message"] or ""),
        )
        for row in rows
    )
    echo_table(("volume", "version", "created", "inodes", "size", "tags", "message"), cells, right=frozenset({3, 4}))


@click.command()
@click.argument("volume")
@click.option("-l", "--long", "is_long", is_flag=True, help="Show modes, owners, sizes and times.")
@click.option("-r", "--recursive", is_flag=True, help="List everything below, not one level.")
@click.option("-n", "--limit", type=click.IntRange(min=1), help="Stop after so many entries.")
@json_option
@volume_command
def ls(access: Access, volume: str, is_long: bool, recursive: bool, limit: int | None, as_json: bool) -> None:
    """List a directory of a version, VOLUME[:/path]. Reads the index only, never a file.

    \b
    Examples:
      stowstore volume ls file:///data/root#training@v1 -l
      stowstore volume ls -r --json file:///data/root#training:/images
    """
    place = VolumePath.parse(volume)
    with access.reading(place.address) as session:
        found = islice(_listed(session.files, place.path, recursive=recursive), limit)
        if as_json:
            echo_json([_row(session.files, path, attributes) for path, attributes in found])
        elif is_long:
            cells = (
                (
                    row["mode"],
                    row["nlink"],
                    row["uid"],
                    row["gid"],
                    row["size"],
                    time_text(row["modified"]),
                    f"{row['path']} -> {row['target']}" if row["target"] is not None else row["path"],
                )
                for row in (_row(session.files, path, attributes) for path, attributes in found)
            )
            echo_table(("mode", "links", "uid", "gid", "size", "modified", "path"), cells, right=frozenset({1, 4}))
        else:
            for path, attributes in found:
                click.echo(printable(path) + ("/" if stat.S_ISDIR(attributes.mode) else ""))


@click.command()
@click.argument("volume")
@click.option("-L", "--depth", type=click.IntRange(min=1), help="Go down so many levels.")
@click.option("-d", "--directories", "only_directories", is_flag=True, help="Show directories only.")
@volume_command
def tree(access: Access, volume: str, depth: int | None, only_directories: bool) -> None:
    """Draw a directory of a version, VOLUME[:/path], as a tree. Reads the index only.

    \b
    Example:
      stowstore volume tree -L 2 file:///data/root#training@v1
    """
    place = VolumePath.parse(volume)
    with access.reading(place.address) as session:
        top = find(session.files, place.path)
        click.echo(printable(place.path))
        counts = [0, 0]
        if stat.S_ISDIR(top.mode):
            _draw(session.files, top.ino, depth, only_directories, counts)
    files = "" if only_directories else f", {counts[1]} files"
    click.echo(f"\n{counts[0]} directories{files}")


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="VOLUME:/PATH...")
@click.option("--start", type=click.IntRange(min=0), default=0, help="First byte.")
@click.option("--length", type=click.IntRange(min=0), help="How many bytes.")
@volume_command
def cat(access: Access, paths: tuple[str, ...], start: int, length: int | None) -> None:
    """Write files of versions to standard output, or a range of each.

    \b
    Example:
      stowstore volume cat file:///data/root#training@v1:/labels.csv
    """
    out = sys.stdout.buffer
    for text in paths:
        place = VolumePath.parse(text)
        with access.reading(place.address) as session:
            for piece in file_pieces(session.files, place.path, start, length):
                out.write(piece)
    out.flush()


def file_pieces(files: FileSystem, path: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """The content of a regular file, or a range of it, in pieces.

    Raises:
        OSError: there is none, or something else lies there.
    """
    found = find(files, path)
    if stat.S_ISLNK(found.mode):
        target = printable(files.readlink(found.ino))
        raise click.UsageError(f"{path} is a symbolic link to {target}: name that file")
    if not stat.S_ISREG(found.mode):
        raise click.UsageError(f"{path} is no regular file")
    handle = files.open(found.ino, os.O_RDONLY, ROOT)
    try:
        offset = start
        end = found.size if length is None else min(found.size, start + length)
        while offset < end and (piece := files.read(handle, offset, min(_PIECE, end - offset))):
            yield piece
            offset += len(piece)
    finally:
        files.release(handle)


def _listed(files: FileSystem, path: str, *, recursive: bool) -> Iterator[tuple[bytes, Attributes]]:
    top = find(files, path)
    if not stat.S_ISDIR(top.mode):
        yield os.fsencode(path.rstrip("/").rpartition("/")[2]), top
        return
    waiting = [(b"", _sorted_entries(files, top.ino))]
    while waiting:
        below, listing = waiting[-1]
        entry = next(listing, None)
        if entry is None:
            waiting.pop()
            continue
        name, attributes = entry
        child = below + b"/" + name if below else name
        yield child, attributes
        if recursive and stat.S_ISDIR(attributes.mode):
            waiting.append((child, _sorted_entries(files, attributes.ino)))


def _sorted_entries(files: FileSystem, ino: int) -> Iterator[tuple[bytes, Attributes]]:
    # The index keeps the names of a directory in order already.
    return ((entry.name, entry.attributes) for entry in entries(files, ino) if entry.attributes is not None)


def _row(files: FileSystem, path: bytes, attributes: Attributes) -> dict[str, Any]:
    is_link = stat.S_ISLNK(attributes.mode)
    return {
        "path": printable(path),
        "mode": stat.filemode(attributes.mode),
        "nlink": attributes.nlink,
        "uid": attributes.uid,
        "gid": attributes.gid,
        "size": attributes.size,
        "modified": datetime.fromtimestamp(attributes.mtime_ns / 1e9, UTC),
        "inode": attributes.ino,
        "target": printable(files.readlink(attributes.ino)) if is_link else None,
    }


def _draw(files: FileSystem, top: int, depth: int | None, only_directories: bool, counts: list[int]) -> None:
    def children(ino: int) -> Iterator[tuple[bytes, Attributes, bool]]:
        """The entries to draw, each with whether it is the last: known one entry later."""
        waiting: tuple[bytes, Attributes] | None = None
        for name, attributes in _sorted_entries(files, ino):
            if only_directories and not stat.S_ISDIR(attributes.mode):
                continue
            if waiting is not None:
                yield *waiting, False
            waiting = name, attributes
        if waiting is not None:
            yield *waiting, True

    stack = [("", children(top))]
    while stack:
        indent, listing = stack[-1]
        entry = next(listing, None)
        if entry is None:
            stack.pop()
            continue
        name, attributes, is_last = entry
        is_directory = stat.S_ISDIR(attributes.mode)
        counts[0 if is_directory else 1] += 1
        shown = printable(name)
        if stat.S_ISLNK(attributes.mode):
            shown += f" -> {printable(files.readlink(attributes.ino))}"
        click.echo(f"{indent}{'└── ' if is_last else '├── '}{shown}{'/' if is_directory else ''}")
        if is_directory and (depth is None or len(stack) < depth):
            stack.append((indent + ("    " if is_last else "│   "), children(attributes.ino)))
