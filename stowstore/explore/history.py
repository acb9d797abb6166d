"""The table of versions."""

from __future__ import annotations

from typing import ClassVar, Final

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import DataTable

from stowstore.explore.background import Background, Job
from stowstore.explore.root import ExploredRoot, Past
from stowstore.explore.showing import producer_text, version_text
from stowstore.versions.manifest import Manifest
from stowstore.wording import printable, size_text, time_text

__all__ = ["HistoryTable"]

#: How many versions are read at first; every further time twice as many.
_FIRST: Final = 50
_MORE: Final = "more"
_HERE: Final = Text("●", "bold #e0af68")


class HistoryTable(DataTable[Text]):
    """The versions a volume came from, newest first; Enter shows one."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "Show version")]

    class Chosen(Message):
        """A version is to be shown."""

        def __init__(self, manifest: Manifest) -> None:
            super().__init__()
            self.manifest = manifest

    def __init__(self, root: ExploredRoot, background: Background, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id, cursor_type="row", zebra_stripes=True)
        self._root = root
        self._background = background
        self._limit = _FIRST
        self._manifests: dict[str, Manifest] = {}
        self._shown = ""
        self._volume = ""

    def on_mount(self) -> None:
        self.border_title = "History"
        self.add_column(Text(""), key="mark", width=1)
        for title in ("version", "volume", "when", "size", "inodes", "by", "message"):
            self.add_column(Text(title))

    def show(self, volume: str, identity: str) -> None:
        """Shows the history of a volume, and marks one version in it."""
        if volume == self._volume:
            self._mark(identity)
            return
        self._volume, self._shown, self._limit = volume, identity, _FIRST
        self._read()

    @property
    def manifest(self) -> Manifest | None:
        """The version at the cursor."""
        if not self.row_count:
            return None
        key = self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value
        return self._manifests.get(key or "")

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        if event.row_key.value == _MORE:
            self._limit *= 2
            self._read()
        elif (manifest := self._manifests.get(event.row_key.value or "")) is not None:
            self.post_message(self.Chosen(manifest))

    def _mark(self, identity: str) -> None:
        for other in (self._shown, identity):
            if other in self._manifests:
                self.update_cell(other, "mark", _HERE if other == identity else Text(""))
        self._shown = identity

    def _read(self) -> None:
        volume, limit = self._volume, self._limit

        def work(job: Job) -> Past:
            return self._root.history(volume, limit)

        def failed(error: Exception) -> None:
            self.clear()
            self.add_row(Text(""), Text(f"✗ {printable(str(error))}", "red"))

        self._background.start("history", work, self._fill, failed)

    def _fill(self, past: Past) -> None:
        row = self.cursor_row
        self.clear()
        self._manifests = {manifest.id: manifest for manifest in past.manifests}
        for manifest in past.manifests:
            counts = manifest.statistics
            message = printable((manifest.message or "").partition("\n")[0])
            if len(manifest.parents) > 1:
                message = f"(merge) {message}"
            self.add_row(
                _HERE if manifest.id == self._shown else Text(""),
                Text(version_text(manifest, past.tags), "bold"),
                Text(printable(manifest.volume), "dim"),
                Text(time_text(manifest.created)),
                Text(size_text(counts.used_bytes), justify="right"),
                Text(f"{counts.inode_count:,}", justify="right"),
                Text(producer_text(manifest)),
                Text(message),
                key=manifest.id,
            )
        if past.has_more:
            self.add_row(Text(""), Text("… more", "dim italic"), key=_MORE)
        self.move_cursor(row=row)
