"""What differs between two versions, on a screen of its own."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Footer, Static

from stowstore.explore.background import Background, Job
from stowstore.explore.differing import STYLES, ChangeNode, ChangeSource, change_tree, counts_text
from stowstore.explore.paged_tree import PagedTree
from stowstore.explore.root import ExploredRoot
from stowstore.versions.manifest import Manifest
from stowstore.wording import printable

__all__ = ["DiffScreen"]


class DiffScreen(ModalScreen[bytes | None]):
    """Ends with the path that was chosen, or None.  Reads what the two versions do not share."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Close"),
    ]

    def __init__(self, root: ExploredRoot, background: Background, old: Manifest, new: Manifest, title: str) -> None:
        super().__init__()
        self._root = root
        self._background = background
        self._sides = old, new
        self._title = title

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            yield Static(Text("comparing …  (Esc stops)", "dim"), id="counts")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(".window").border_title = "What differs"
        old, new = self._sides

        def work(job: Job) -> ChangeNode:
            return change_tree(self._root.changes(old.name, new.name))

        self._background.start("diff", work, self._show, self._failed)

    def on_unmount(self) -> None:
        self._background.cancel("diff")

    def on_paged_tree_chosen(self, event: PagedTree.Chosen) -> None:
        event.stop()
        self.dismiss(event.item.path)

    def on_paged_tree_pointed(self, event: PagedTree.Pointed) -> None:
        event.stop()

    def _show(self, top: ChangeNode) -> None:
        head = Text(f"{self._title}   ", "bold")
        head.append_text(counts_text(top.counts) if top.counts else Text("no difference", "dim"))
        head.append("\n" + "   ".join(f"{sign} {kind.value}" for kind, (sign, _) in STYLES.items()), "dim")
        self.query_one("#counts", Static).update(head)
        if top.children:
            tree: PagedTree[ChangeNode] = PagedTree(ChangeSource(top), top, self._background, id="changes")
            self.call_later(self._put, tree)

    async def _put(self, tree: PagedTree[ChangeNode]) -> None:
        await self.query_one(".window").mount(tree)
        tree.focus()

    def _failed(self, error: Exception) -> None:
        self.query_one("#counts", Static).update(Text(f"✗ {printable(str(error))}", "red"))
