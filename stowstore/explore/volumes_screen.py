"""The volumes of the root, to choose one."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Static

from stowstore.explore.background import Background, Job
from stowstore.explore.root import ExploredRoot, Newest
from stowstore.wording import printable, size_text, time_text

__all__ = ["VolumesScreen"]


class VolumesScreen(ModalScreen[Newest | None]):
    """Ends with the volume that was chosen, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Close"),
    ]

    def __init__(self, root: ExploredRoot, background: Background) -> None:
        super().__init__()
        self._root = root
        self._background = background
        self._found: list[Newest] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            yield Static(Text("reading …", "dim"), id="said")
            yield DataTable[Text](id="volumes", cursor_type="row")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(".window").border_title = "Volumes of this root"
        for title in ("volume", "newest version", "size", "inodes", "message"):
            self._table.add_column(Text(title))

        def work(job: Job) -> list[Newest]:
            return self._root.volumes()

        self._background.start("volumes", work, self._show, self._failed)

    def on_unmount(self) -> None:
        self._background.cancel("volumes")

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        event.stop()
        self.dismiss(self._found[event.cursor_row])

    @property
    def _table(self) -> DataTable[Text]:
        return self.query_one("#volumes", DataTable)

    def _show(self, found: list[Newest]) -> None:
        self._found = found
        self.query_one("#said", Static).update(Text(f"{len(found):,} volumes", "dim"))
        for newest in found:
            counts = newest.manifest.statistics
            self._table.add_row(
                Text(printable(newest.volume), "bold"),
                Text(time_text(newest.manifest.created)),
                Text(size_text(counts.used_bytes), justify="right"),
                Text(f"{counts.inode_count:,}", justify="right"),
                Text(printable((newest.manifest.message or "").partition("\n")[0])),
            )
        self._table.focus()

    def _failed(self, error: Exception) -> None:
        self.query_one("#said", Static).update(Text(f"✗ {printable(str(error))}", "red"))
