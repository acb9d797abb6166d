"""Explorers that run without a terminal, and stores that say what was read of them."""

from __future__ import annotations

import asyncio
import html
import io
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rich.console import Console
from rich.style import Style
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from datastore.protocol import Reference, Store
from datastore.stream import ReadStream
from datastore.wrappers.base import StoreWrapper, as_reference
from stowstore.explore.app import ExplorerApp
from stowstore.explore.paged_tree import PagedTree
from stowstore.explore.root import ExploredRoot
from stowstore.versions.root import Root

__all__ = ["CountedStore", "Explorer", "explorer"]

_PLAIN = Style.null()


class CountedStore(StoreWrapper):
    """Counts the bytes that were read, by the first part of their keys; appending to a list is atomic."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self.reads: list[tuple[str, int]] = []

    def read_raw(
        self,
        reference: Reference,
        start: int = 0,
        length: int | None = None,
        *,
        max_bytes: int | None = None,
        if_match: str | None = None,
    ) -> ReadStream:
        stream = super().read_raw(reference, start, length, max_bytes=max_bytes, if_match=if_match)
        self.reads.append((as_reference(reference).key, stream.size))
        return stream

    def sizes(self, part: str) -> list[int]:
        """How many bytes each request asked for of keys with a part, ``packs`` or ``index``."""
        return [size for key, size in self.reads if part in key.split("/")]


class Explorer:
    """An app that runs, its keys, and what it shows."""

    def __init__(self, app: ExplorerApp, pilot: Pilot[None]) -> None:
        self.app = app
        self.pilot = pilot

    async def press(self, *keys: str) -> None:
        """Presses keys, each after all that the one before has set going."""
        for key in keys:
            await self.pilot.press(key)
            await self.settle()

    async def settle(self) -> None:
        """Waits for everything in the background, and for what that sets going."""
        quiet = 0
        async with asyncio.timeout(60):
            while quiet < 2:
                while self.app.background.is_busy:
                    await asyncio.sleep(0.005)
                await self.pilot.pause()
                quiet = 0 if self.app.background.is_busy else quiet + 1

    async def go(self, path: str) -> None:
        """Moves the cursor of the tree to a path."""
        self.app.reveal(os.fsencode(path))
        await self.settle()
        assert self.tree.item.path == os.fsencode(path)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits for something that comes of work which does not end."""
        async with asyncio.timeout(60):
            while not holds():
                await self.pilot.pause()
                await asyncio.sleep(0.01)

    @property
    def tree(self) -> PagedTree:
        """The tree of the screen that is in front."""
        return self.app.screen.query_one(PagedTree)

    @property
    def lines(self) -> list[str]:
        """What the nodes of the tree say, opened branches included."""
        found = []
        waiting = [self.tree.root]
        while waiting:
            node = waiting.pop()
            depth, parent = 0, node.parent
            while parent is not None:
                depth, parent = depth + 1, parent.parent
            text = self.tree.render_label(node, _PLAIN, _PLAIN).plain
            found.append("  " * depth + re.sub(r" {2,}", " | ", text.lstrip("▶▼ ")).strip())
            if node.is_expanded:
                waiting.extend(reversed(node.children))
        return found

    @property
    def picture(self) -> str:
        """Everything that can be seen, as text."""
        svg = self.app.export_screenshot()
        rows: dict[float, list[tuple[float, str]]] = {}
        for x, y, text in re.findall(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>', svg):
            rows.setdefault(float(y), []).append((float(x), html.unescape(text).replace("\xa0", " ")))
        return "\n".join("".join(text for _, text in sorted(row)) for _, row in sorted(rows.items()))

    def text(self, selector: str) -> str:
        """What a part of the main screen says, laid out anew."""
        part = self.app.screen_stack[0].query_one(selector, Static)
        out = io.StringIO()
        Console(file=out, width=200, force_terminal=False).print(part.content)
        return out.getvalue()

    def rows(self, selector: str) -> list[list[str]]:
        """The cells of a table."""
        table = self.app.screen.query_one(selector, DataTable)
        return [[cell.plain for cell in table.get_row_at(row)] for row in range(table.row_count)]


@asynccontextmanager
async def explorer(
    root: Root, volume: str = "data", version: str | None = None, *, path: bytes = b"", is_settled: bool = True
) -> AsyncIterator[Explorer]:
    """An explorer of a volume on a screen of 120 by 40."""
    with ExploredRoot(root) as explored:
        app = ExplorerApp(explored, volume, root.resolve(volume, version), root.address, path=path)
        async with app.run_test(size=(120, 40)) as pilot:
            found = Explorer(app, pilot)
            if is_settled:
                await found.settle()
            yield found
