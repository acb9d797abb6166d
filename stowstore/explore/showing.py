"""How versions and their entries look.  Everything is `Text`, whose content is never read as markup."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from stowstore.explore.version import Details, Entry
from stowstore.index.records import InodeRecord
from stowstore.namespace.largest import DirectorySum
from stowstore.versions.manifest import Manifest
from stowstore.wording import printable, size_text, time_text

__all__ = ["describe", "entry_label", "producer_text", "summary", "version_text"]

_STYLES: Final[Mapping[int, str]] = {
    stat.S_IFDIR: "bold #7aa2f7",
    stat.S_IFLNK: "#7dcfff",
    stat.S_IFREG: "",
}
_KINDS: Final[Mapping[int, str]] = {
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFREG: "file",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
_XATTR_BYTES: Final = 120
_NAME: Final = 400


def entry_label(entry: Entry) -> Text:
    """A name in the tree, by kind."""
    style = _STYLES.get(entry.kind, "#e0af68")
    if entry.record is None:
        return Text(f"{printable(entry.name)} (damaged)", "red")
    label = Text(printable(entry.name), style)
    if entry.is_directory:
        label.append("/")
    elif stat.S_ISLNK(entry.kind):
        label.append(f" → {printable(entry.record.target[:_NAME])}", "dim")
    elif entry.is_regular and entry.record.mode & 0o111:
        label.stylize("#9ece6a")
    return label


def version_text(manifest: Manifest, tags: Mapping[str, list[str]]) -> str:
    """The shortest that names a version: its tags, or the end of its id, where ids of one time differ."""
    found = tags.get(manifest.id)
    return printable(", ".join(found)) if found else f"…{manifest.id[-8:]}"


def producer_text(manifest: Manifest) -> str:
    """Who made a version, as the embedding framework says it."""
    made: Any = manifest.produced_by
    if made is None:
        return ""
    return printable(made if isinstance(made, str) else json.dumps(made, ensure_ascii=False, sort_keys=True))


def summary(manifest: Manifest) -> Text:
    """How much a version holds."""
    counts = manifest.statistics
    return Text(f"{size_text(counts.used_bytes)} in {counts.inode_count:,} inodes")


def describe(details: Details, total: DirectorySum | None, manifest: Manifest) -> RenderableType:
    """All that the index says of an entry, as the pane of details shows it."""
    entry = details.entry
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(entry, total, manifest):
        table.add_row(name, value)
    parts: list[RenderableType] = [_title(entry), Text(), table]
    if details.xattrs:
        parts += [Text(), Text("Extended attributes", "bold"), _xattrs(details)]
    if details.extents:
        parts += [Text(), Text("Extents", "bold"), _extents(details)]
    return Group(*parts)


def _title(entry: Entry) -> Text:
    return Text("/" + printable(entry.path), "bold", overflow="fold")


def _facts(entry: Entry, total: DirectorySum | None, manifest: Manifest) -> Iterator[tuple[str, Text]]:
    record = entry.record
    yield "kind", Text(_KINDS.get(entry.kind, "unknown"))
    if record is None:
        yield "damaged", Text("the index names an inode that does not lie there: see stowstore volume check", "red")
        return
    if entry.is_directory:
        yield from _directory(entry, total, manifest)
    else:
        yield "size", Text(f"{size_text(record.size)} ({record.size:,} bytes)")
        if entry.is_regular and record.allocated != record.size:
            yield "stored", Text(f"{size_text(record.allocated)}, the rest are holes")
    if stat.S_ISLNK(entry.kind):
        yield "target", Text(printable(record.target))
    if stat.S_ISCHR(entry.kind) or stat.S_ISBLK(entry.kind):
        yield "device", Text(str(record.rdev))
    yield "mode", Text(f"{stat.filemode(record.mode)}  {stat.S_IMODE(record.mode):04o}")
    yield "owner", Text(f"{record.uid}:{record.gid}")
    yield "links", Text(str(record.nlink))
    yield "inode", Text(str(entry.ino))
    yield from _times(record)


def _directory(entry: Entry, total: DirectorySum | None, manifest: Manifest) -> Iterator[tuple[str, Text]]:
    if not entry.path:
        yield "holds", summary(manifest)
    elif total is not None:
        yield "holds", Text(f"{size_text(total.size)} in {total.files:,} files")
    else:
        yield "holds", Text("press z to add up", "dim")


def _times(record: InodeRecord) -> Iterator[tuple[str, Text]]:
    for name, moment in (
        ("modified", record.mtime_ns),
        ("changed", record.ctime_ns),
        ("made", record.btime_ns),
        ("accessed", record.atime_ns),
    ):
        yield name, Text(_moment(moment))


def _moment(nanoseconds: int) -> str:
    try:
        return time_text(datetime.fromtimestamp(nanoseconds / 1e9, UTC))
    except (OverflowError, OSError, ValueError):
        return f"{nanoseconds} ns since 1970"


def _xattrs(details: Details) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="#7dcfff", overflow="fold")
    table.add_column(overflow="fold")
    for name, value in details.xattrs:
        shown = printable(value[:_XATTR_BYTES])
        if len(value) > _XATTR_BYTES:
            shown += f" … {len(value):,} bytes"
        table.add_row(Text(printable(name)), Text(shown))
    if details.has_more_xattrs:
        table.add_row(Text("… more", "dim"))
    return table


def _extents(details: Details) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for title in ("offset", "bytes", "in pack"):
        table.add_column(title, justify="left" if title == "in pack" else "right")
    rows: Iterable[tuple[str, str, str]] = (
        (f"{extent.offset:,}", f"{extent.length:,}", extent.block.pack.hex()[-12:]) for extent in details.extents
    )
    for row in rows:
        table.add_row(*map(Text, row))
    if details.has_more_extents:
        table.add_row(Text("… more", "dim"))
    return table
