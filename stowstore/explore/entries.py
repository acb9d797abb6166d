"""The entries of a version as the tree shows them."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from stowstore.explore.paged_tree import PAGE, Rows
from stowstore.explore.showing import entry_label
from stowstore.explore.version import Entry, ExploredVersion
from stowstore.namespace.largest import DirectorySum
from stowstore.wording import printable, size_text

__all__ = ["EntrySource"]


class EntrySource:
    """Directories of one version, a page at a time; ``sums`` are the sizes of directories once they were added up."""

    def __init__(self, version: ExploredVersion, title: str) -> None:
        self.sums: Mapping[int, DirectorySum] = {}
        self._version = version
        self._title = title

    def rows(self, item: Entry, start: bytes) -> Rows[Entry]:
        page = self._version.page(item, start, PAGE)
        return Rows(items=page.entries, following=page.following)

    def name(self, item: Entry) -> bytes:
        return item.name

    def is_branch(self, item: Entry) -> bool:
        return item.is_directory and item.record is not None

    def label(self, item: Entry) -> Text:
        return entry_label(item) if item.path else Text(printable(self._title), "bold")

    def figure(self, item: Entry) -> Text:
        if item.record is None:
            return Text()
        if not item.path:
            return Text(size_text(self._version.manifest.statistics.used_bytes), "bold")
        if item.is_directory:
            found = self.sums.get(item.ino)
            return Text(size_text(found.size)) if found is not None else Text()
        return Text(size_text(item.record.size), "dim") if item.is_regular else Text()

    def is_opened(self, item: Entry) -> bool:
        return False
