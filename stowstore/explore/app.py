"""The explorer: the tree of a version on the left, what lies at the cursor on the right, the history below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Static, TabbedContent, TabPane

from stowstore.explore.background import Background, Job
from stowstore.explore.entries import EntrySource
from stowstore.explore.history import HistoryTable
from stowstore.explore.paged_tree import PagedTree
from stowstore.explore.previews import PREVIEW_BYTES, preview
from stowstore.explore.showing import describe, summary, version_text
from stowstore.explore.version import Details, Entry, ExploredVersion
from stowstore.explore.volume import ExploredVolume
from stowstore.namespace.committing import Changes
from stowstore.namespace.largest import DirectorySum, directory_sums
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.wording import printable, time_text

__all__ = ["ExplorerApp"]

_UNASKED = Text("Press p on a file to fetch its first bytes.", "dim")


class ExplorerApp(App[None]):
    """Shows a version of a volume, and lets one go through it and its past.  The caller closes the volume."""

    TITLE = "stowstore explore"
    ENABLE_COMMAND_PALETTE = False
    CSS_PATH = "explore.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "preview", "Preview"),
        Binding("z", "sizes", "Directory sizes"),
        Binding("h", "history", "History"),
        Binding("t", "tree", "Tree"),
        Binding("escape", "stop", "Stop", show=False),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, volume: ExploredVolume, version: VersionName, title: str, path: bytes = b"") -> None:
        super().__init__()
        self.volume = volume
        self.background = Background(self)
        self.tags: dict[str, list[str]] = {}
        self._title = title
        self._begin = version
        self._path = path
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
        yield HistoryTable(self.volume, self.background, id="history")
        yield Static(id="status")
        yield Footer()

    def on_mount(self) -> None:
        self.theme = "tokyo-night"
        self.open_version(self._begin, self._path)

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

        def work(job: Job) -> tuple[ExploredVersion, list[Entry], dict[str, list[str]]]:
            version = self.volume.version(name)
            try:
                chain = version.chain(path)
            except FileNotFoundError:
                chain = [version.top()]
            return version, chain, self.volume.tags(self.volume.volume)

        def done(found: tuple[ExploredVersion, list[Entry], dict[str, list[str]]]) -> None:
            self._show(*found)

        self.background.start("version", work, done, self.failed)

    async def _put_tree(self, tree: PagedTree[Entry]) -> None:
        left = self.query_one("#left")
        await left.mount(tree)
        tree.focus()

    def _show(self, version: ExploredVersion, chain: Sequence[Entry], tags: dict[str, list[str]]) -> None:
        for group in ("sizes", "details", "preview"):
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
        self.query_one(HistoryTable).mark(manifest.id)

    def _show_head(self, manifest: Manifest) -> None:
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append(printable(self._title), "bold")
        head.append(f"  {version_text(manifest, self.tags)}", "bold #e0af68")
        head.append(f"  {time_text(manifest.created)}  ", "dim")
        head.append_text(summary(manifest))
        if manifest.message:
            head.append(f"  “{printable(manifest.message.partition(chr(10))[0])}”", "italic")
        self.query_one("#head", Static).update(head)

    # -- the entry at the cursor --------------------------------------------------------------------------------------

    def on_paged_tree_pointed(self, event: PagedTree.Pointed) -> None:
        version = self._version
        if event.tree.id != "tree" or version is None or isinstance(event, PagedTree.Chosen):
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
