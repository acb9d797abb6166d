"""The explorer: the tree of a version on the left, what lies at the cursor on the right, the history below."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import ClassVar, Final

from rich.console import RenderableType
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Static, TabbedContent, TabPane

from stowstore.explore.background import Background, Job
from stowstore.explore.diff_screen import DiffScreen
from stowstore.explore.entries import EntrySource
from stowstore.explore.history import HistoryTable
from stowstore.explore.paged_tree import PagedTree
from stowstore.explore.previews import PREVIEW_BYTES, preview
from stowstore.explore.root import ExploredRoot, Newest
from stowstore.explore.search_screen import SearchScreen
from stowstore.explore.showing import describe, summary, version_text
from stowstore.explore.version import Details, Entry, ExploredVersion
from stowstore.explore.volumes_screen import VolumesScreen
from stowstore.namespace.committing import Changes
from stowstore.namespace.largest import DirectorySum, directory_sums
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.wording import printable, time_text

__all__ = ["Begin", "ExplorerApp"]

#: The sizes of the directories of a version with so few inodes are added up without being asked: its index is small.
_SMALL: Final = 5000

_UNASKED: Final = Text("Press p on a file to fetch its first bytes.", "dim")


class Begin(StrEnum):
    """What is shown first."""

    VERSION = "version"
    VOLUMES = "volumes"
    """The volumes of the root, over a version of the first."""


class ExplorerApp(App[None]):
    """Shows a version of a volume, and lets one go through it, its past and the volumes beside it.

    ``title`` is the root, as it is to be shown.  The caller closes the root.
    """

    TITLE = "stowstore explore"
    ENABLE_COMMAND_PALETTE = False
    CSS_PATH = "explore.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "preview", "Preview"),
        Binding("slash", "search", "Search", key_display="/"),
        Binding("d", "diff", "Diff"),
        Binding("z", "sizes", "Directory sizes"),
        Binding("h", "history", "History"),
        Binding("t", "tree", "Tree"),
        Binding("v", "volumes", "Volumes"),
        Binding("escape", "stop", "Stop", show=False),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(
        self,
        root: ExploredRoot,
        volume: str,
        version: VersionName,
        title: str,
        *,
        path: bytes = b"",
        begin: Begin = Begin.VERSION,
    ) -> None:
        super().__init__()
        self.root = root
        self.volume = volume
        self.background = Background(self)
        self.tags: dict[str, list[str]] = {}
        self._title = title
        self._first = version, path, begin
        self._version: ExploredVersion | None = None
        self._source: EntrySource | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        with Horizontal(id="middle"):
            yield VerticalScroll(id="left")
            with TabbedContent(id="right"):
                with TabPane("Details", id="details-tab"), VerticalScroll(can_focus=True):
                    yield Static(id="details")
                with TabPane("Preview", id="preview-tab"), VerticalScroll(can_focus=True):
                    yield Static(_UNASKED, id="preview")
        yield HistoryTable(self.root, self.background, id="history")
        yield Static(id="status")
        yield Footer()

    def on_mount(self) -> None:
        self.theme = "tokyo-night"
        version, path, begin = self._first
        self.open_version(version, path)
        if begin is Begin.VOLUMES:
            self.action_volumes()

    def on_unmount(self) -> None:
        self.background.cancel_all()

    # -- versions -----------------------------------------------------------------------------------------------------

    @property
    def version(self) -> ExploredVersion | None:
        """The version that is shown; None until it was read."""
        return self._version

    def open_version(self, name: VersionName, path: bytes = b"") -> None:
        """Shows another version, at the same place if it has one."""
        self.say(f"opening {name.id} …")
        self.query_one(HistoryTable).show(self.volume, name.id)
        volume = self.volume

        def work(job: Job) -> tuple[ExploredVersion, list[Entry], dict[str, list[str]]]:
            version = self.root.version(name)
            try:
                chain = version.chain(path)
            except FileNotFoundError:
                chain = [version.top()]
            return version, chain, self.root.tags(volume)

        def done(found: tuple[ExploredVersion, list[Entry], dict[str, list[str]]]) -> None:
            self._show(*found)

        self.background.start("version", work, done, self.failed)

    async def _put_tree(self, tree: PagedTree[Entry]) -> None:
        left = self.query_one("#left")
        await left.mount(tree)
        tree.focus()

    def _show(self, version: ExploredVersion, chain: Sequence[Entry], tags: dict[str, list[str]]) -> None:
        for group in ("sizes", "details", "preview", "reveal", "parent"):
            self.background.cancel(group)
        self._version, self.tags = version, tags
        manifest = version.manifest
        source = self._source = EntrySource(version, "/")
        trees = self.query("#tree").results(PagedTree)
        tree: PagedTree[Entry] | None = next(iter(trees), None)
        if tree is None:
            tree = PagedTree(source, chain[0], self.background, id="tree")
            self.call_later(self._put_tree, tree)
        else:
            tree.show(source, chain[0])
        if len(chain) > 1:
            self.call_after_refresh(tree.reveal, chain)
        self._show_head(manifest)
        self.query_one("#preview", Static).update(_UNASKED)
        self.say("")
        if manifest.statistics.inode_count <= _SMALL:
            self.action_sizes()

    def _show_head(self, manifest: Manifest) -> None:
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append(printable(f"{self._title}#{self.volume}"), "bold")
        head.append(f"  {version_text(manifest, self.tags)}", "bold #e0af68")
        head.append(f"  {time_text(manifest.created)}  ", "dim")
        head.append_text(summary(manifest))
        if manifest.message:
            head.append(f"  “{printable(manifest.message.partition(chr(10))[0])}”", "italic")
        self.query_one("#head", Static).update(head)

    # -- the entry at the cursor --------------------------------------------------------------------------------------

    def on_paged_tree_pointed(self, event: PagedTree.Pointed) -> None:
        version = self._version
        if event.tree.id != "tree" or version is None:
            return
        entry: Entry = event.item

        def work(job: Job) -> Details:
            return version.details(entry)

        self.background.start("details", work, self._show_details, self._no_details)

    def on_paged_tree_chosen(self, event: PagedTree.Chosen) -> None:
        if event.tree.id == "tree":
            self.action_preview()

    def _show_details(self, details: Details) -> None:
        assert self._version is not None
        assert self._source is not None
        total = self._source.sums.get(details.entry.ino)
        self.query_one("#details", Static).update(describe(details, total, self._version.manifest))

    def _no_details(self, error: Exception) -> None:
        self.query_one("#details", Static).update(Text(f"✗ {printable(str(error))}", "red"))

    def action_preview(self) -> None:
        """Fetches the first bytes of the file at the cursor."""
        version, entry = self._version, self._entry()
        if version is None or entry is None:
            return
        if not entry.is_regular or entry.record is None:
            self.say("Only files have a preview.")
            return
        size = entry.record.size
        pane = self.query_one("#preview", Static)
        pane.update(Text("fetching …", "dim italic"))
        self.query_one(TabbedContent).active = "preview-tab"

        def work(job: Job) -> RenderableType:
            return preview(entry.name, size, version.head(entry, PREVIEW_BYTES))

        def failed(error: Exception) -> None:
            pane.update(Text(f"✗ {printable(str(error))}", "red"))

        self.background.start("preview", work, pane.update, failed)

    def _entry(self) -> Entry | None:
        tree: PagedTree[Entry] | None = next(iter(self.query("#tree").results(PagedTree)), None)
        return None if tree is None else tree.item

    # -- sizes of directories -----------------------------------------------------------------------------------------

    def action_sizes(self) -> None:
        """Adds up what lies below every directory, in one pass over the index."""
        version = self._version
        if version is None or self.background.is_running("sizes"):
            return
        records = 2 * version.manifest.statistics.inode_count

        def work(job: Job) -> dict[int, DirectorySum]:
            def told(done: int) -> None:
                job.check()
                job.tell(self.say, f"adding up … {min(99, 100 * done // max(1, records))} %  (Esc stops)")

            return directory_sums(Changes(version.snapshot, {}, {}), told)

        self.say("adding up …  (Esc stops)")
        self.background.start("sizes", work, self._show_sizes, self.failed)

    def _show_sizes(self, sums: dict[int, DirectorySum]) -> None:
        assert self._source is not None
        self._source.sums = sums
        self.say("")
        tree = self.query_one("#tree", PagedTree)
        tree.redraw()
        if tree.item is not None:
            tree.post_message(PagedTree.Pointed(tree, tree.item))

    # -- moving about -------------------------------------------------------------------------------------------------

    def on_history_table_chosen(self, event: HistoryTable.Chosen) -> None:
        entry = self._entry()
        self.open_version(event.manifest.name, entry.path if entry is not None else b"")

    def action_search(self) -> None:
        """Looks for names in the version."""
        if self._version is not None:
            self.push_screen(SearchScreen(self._version, self.background), self.reveal)

    def action_diff(self) -> None:
        """Compares the version that is shown with the one at the cursor of the history, or with its parent."""
        shown, other = self._version, self.query_one(HistoryTable).manifest
        if shown is None or other is None:
            return
        if other.id != shown.manifest.id:
            self._compare(other, shown.manifest)
        elif other.parents:
            self._compare_with(other.parents[0], other)
        else:
            self.say("This is the first version: move the cursor of the history (h) to the one to compare it with.")

    def _compare_with(self, parent: VersionName, shown: Manifest) -> None:
        def work(job: Job) -> Manifest:
            return self.root.root.load(parent)

        def done(found: Manifest) -> None:
            self._compare(found, shown)

        self.background.start("parent", work, done, self.failed)

    def _compare(self, one: Manifest, other: Manifest) -> None:
        old, new = sorted((one, other), key=lambda manifest: manifest.id)
        title = f"{version_text(old, self.tags)} → {version_text(new, self.tags)}"
        self.push_screen(DiffScreen(self.root, self.background, old, new, title), self.reveal)

    def action_volumes(self) -> None:
        """Chooses another volume of the root."""
        self.push_screen(VolumesScreen(self.root, self.background), self._open_volume)

    def _open_volume(self, newest: Newest | None) -> None:
        if newest is not None:
            self.volume = newest.volume
            self.open_version(newest.manifest.name)

    def reveal(self, path: bytes | None) -> None:
        """Goes to a path of the version that is shown, if it has it; None stays where one is."""
        version = self._version
        if version is None or path is None:
            return

        def work(job: Job) -> list[Entry]:
            return version.chain(path)

        def done(chain: list[Entry]) -> None:
            tree = self.query_one("#tree", PagedTree)
            tree.reveal(chain)
            tree.focus()

        self.background.start("reveal", work, done, self.failed)

    def action_history(self) -> None:
        """Goes to the history."""
        self.query_one(HistoryTable).focus()

    def action_tree(self) -> None:
        """Goes back to the tree."""
        self.query_one("#tree").focus()

    def action_stop(self) -> None:
        """Ends what runs for long."""
        for group in ("sizes", "preview"):
            if self.background.is_running(group):
                self.background.cancel(group)
                self.say("stopped")
        self.action_tree()

    def say(self, text: str) -> None:
        """A line above the keys."""
        self.query_one("#status", Static).update(Text(printable(text), "italic"))

    def failed(self, error: Exception) -> None:
        """What went wrong, above the keys."""
        self.query_one("#status", Static).update(Text(f"✗ {printable(str(error))}", "bold red"))
