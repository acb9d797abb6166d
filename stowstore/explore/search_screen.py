"""The search: a line to type a glob into, and what is found meanwhile."""

from __future__ import annotations

import stat
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Footer, Input, OptionList, Static

from stowstore.explore.background import Background, Job
from stowstore.explore.searching import MOST_MATCHES, Match, search
from stowstore.explore.version import ExploredVersion
from stowstore.wording import printable

__all__ = ["SearchScreen"]


class SearchScreen(ModalScreen[bytes | None]):
    """Ends with the path that was chosen, or None.  Every letter begins the search anew."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Stop, then close"),
        Binding("down", "results", "Results", show=False),
        Binding("enter", "choose", "Go there", priority=True),
    ]

    def __init__(self, version: ExploredVersion, background: Background) -> None:
        super().__init__()
        self._version = version
        self._background = background
        #: What was found so far.
        self.matches: list[Match] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="window"):
            yield Input(placeholder="name or glob: labels, *.png, images/*/0001*", id="glob")
            yield OptionList(id="matches", markup=False)
            yield Static(id="found")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(".window").border_title = "Search by name"
        self._say("Type a part of a name, or a glob.")

    def on_unmount(self) -> None:
        self._background.cancel("search")

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.matches = []
        self.query_one(OptionList).clear_options()
        self._background.cancel("search")
        glob = event.value
        if not glob:
            self._say("")
            return

        def work(job: Job) -> None:
            def told(found: list[Match], seen: int) -> None:
                job.check()
                job.tell(self._add, found, seen)

            search(self._version, glob, told)

        def failed(error: Exception) -> None:
            self._say(f"✗ {error}", "red")

        self._say("searching …")
        self._background.start("search", work, self._done, failed)

    def action_results(self) -> None:
        """Goes from the line to what was found."""
        results = self.query_one(OptionList)
        if self.focused is results:
            results.action_cursor_down()
        else:
            results.focus()
            results.action_first()

    def action_choose(self) -> None:
        """Closes with what is highlighted, or the first that was found."""
        at = self.query_one(OptionList).highlighted
        if self.matches:
            self.dismiss(self.matches[at or 0].path)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(self.matches[event.option_index].path)

    def action_leave(self) -> None:
        """Stops a search that runs, or closes."""
        if self._background.is_running("search"):
            self._background.cancel("search")
            self._say(f"stopped, {len(self.matches):,} found")
        else:
            self.dismiss(None)

    def _add(self, found: list[Match], seen: int) -> None:
        self.matches += found
        self.query_one(OptionList).add_options([_line(match) for match in found])
        self._say(f"searching … {len(self.matches):,} of {seen:,} names  (Esc stops)")

    def _done(self, _: None) -> None:
        count = len(self.matches)
        self._say(f"the first {count:,} found" if count >= MOST_MATCHES else f"{count:,} found")

    def _say(self, text: str, style: str = "dim") -> None:
        self.query_one("#found", Static).update(Text(printable(text), style))


def _line(match: Match) -> Text:
    above, slash, name = match.path.rpartition(b"/")
    return Text.assemble(
        (printable(above + slash), "dim"),
        (printable(name), "bold"),
        "/" if stat.S_ISDIR(match.kind) else "",
        no_wrap=True,
        overflow="ellipsis",
    )
