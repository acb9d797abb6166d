"""A tree whose branches are read page by page in the background, when they are opened and as the cursor gets there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from attrs import define, frozen
from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Tree
from textual.widgets.tree import TreeNode

from stowstore.explore.background import Background, Job
from stowstore.wording import printable

__all__ = ["PAGE", "PagedTree", "Rows", "Source"]

#: Names of one page.
PAGE: Final = 300

#: Rows of one branch; those before are dropped when there would be more, so that the tree stays quick.
_MOST_ROWS: Final = 3000

_T = TypeVar("_T")


@frozen(kw_only=True)
class Rows(Generic[_T]):
    """Some children of an item, ascending by name; ``following`` is where the next begin, None at the end."""

    items: Sequence[_T]
    following: bytes | None


class Source(Protocol[_T]):
    """What a tree shows; `rows` is called in threads, the others on the thread of the screen."""

    def rows(self, item: _T, start: bytes) -> Rows[_T]:
        """A page of what lies below an item, from a name on."""
        ...

    def name(self, item: _T) -> bytes:
        """What an item is called in its branch."""
        ...

    def is_branch(self, item: _T) -> bool:
        """Whether anything can lie below an item."""
        ...

    def label(self, item: _T) -> Text:
        """An item as it is shown."""
        ...

    def figure(self, item: _T) -> Text:
        """What stands at the right edge."""
        ...

    def is_opened(self, item: _T) -> bool:
        """Whether a branch is opened as soon as it is seen."""
        ...


@define
class _Row(Generic[_T]):
    """What a node stands for; ``start`` is from where on its children were asked for, None before that."""

    item: _T
    start: bytes | None = None

    @property
    def begun(self) -> bool:
        return self.start is not None


@frozen
class _Rest:
    """The names of a branch from one on, which are not read yet."""

    start: bytes


@frozen
class _Failed(_Rest):
    """The same after they could not be read: they are asked for again by Enter only."""


@frozen
class _Earlier:
    """The names of a branch in front of those that are shown."""


class PagedTree(Tree[Any], Generic[_T]):
    """Never waits for its source: what is being read says so, and what cannot be read says why."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Open"),
        Binding("right", "open", "Open", show=False),
        Binding("left", "close", "Close", show=False),
    ]

    class Pointed(Message):
        """The cursor is at an item."""

        def __init__(self, tree: PagedTree[Any], item: Any) -> None:
            super().__init__()
            self.tree = tree
            self.item = item

        @property
        def control(self) -> PagedTree[Any]:
            return self.tree

    class Chosen(Pointed):
        """Enter was pressed on an item that is no branch."""

    def __init__(self, source: Source[_T], top: _T, background: Background, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(source.label(top), _Row(top), id=id)
        self.source = source
        self._background = background
        self._revealed: list[_T] = []
        self.guide_depth = 3

    def on_mount(self) -> None:
        self.root.expand()

    def show(self, source: Source[_T], top: _T) -> None:
        """Shows something else, from its top."""
        self._forget()
        self.source = source
        self._revealed = []
        self.reset(source.label(top), _Row(top))
        self.root.expand()
        self.move_cursor(self.root)

    def reveal(self, chain: Sequence[_T]) -> None:
        """Opens the branches down to an item and moves the cursor there; ``chain`` are all of them, the top first."""
        self._revealed = list(chain[1:])
        self._reveal_below(self.root)

    def redraw(self) -> None:
        """Draws labels and figures again: what they tell has changed."""
        self._invalidate()

    @property
    def item(self) -> _T | None:
        """What the cursor is at."""
        node = self.cursor_node
        return node.data.item if node is not None and isinstance(node.data, _Row) else None

    def render_label(self, node: TreeNode[Any], base_style: Style, style: Style) -> Text:
        data = node.data
        if not isinstance(data, _Row):
            return super().render_label(node, base_style, style)
        label = self.source.label(data.item)
        label.stylize(style)
        icon = ""
        if node.allow_expand:
            icon = self.ICON_NODE_EXPANDED if node.is_expanded else self.ICON_NODE
        text = Text.assemble((icon, base_style), label, no_wrap=True)
        figure = self.source.figure(data.item)
        room = self.size.width - self._indent(node) - figure.cell_len - 2
        if figure.cell_len and room > 8:
            if text.cell_len > room:
                text.truncate(room, overflow="ellipsis")
            text.pad_right(room + 1 - text.cell_len)
            figure.stylize(style)
            text.append_text(figure)
        return text

    def get_label_width(self, node: TreeNode[Any]) -> int:
        # Names are cut to the width there is: drawing every one of thousands to measure it would take long.
        return 1

    def on_tree_node_expanded(self, event: Tree.NodeExpanded[Any]) -> None:
        event.stop()
        data = event.node.data
        if isinstance(data, _Row) and not data.begun:
            self._read(event.node, b"")

    def on_tree_node_highlighted(self, event: Tree.NodeHighlighted[Any]) -> None:
        event.stop()
        match event.node.data:
            case _Row(item=item):
                self.post_message(self.Pointed(self, item))
            case _Rest() if not isinstance(event.node.data, _Failed):
                self._read_rest(event.node)

    def on_tree_node_selected(self, event: Tree.NodeSelected[Any]) -> None:
        event.stop()
        match event.node.data:
            case _Row(item=item) if not event.node.allow_expand:
                self.post_message(self.Chosen(self, item))
            case _Rest():
                self._read_rest(event.node)
            case _Earlier() if event.node.parent is not None:
                self._read_again(event.node.parent, b"")

    def action_open(self) -> None:
        """Opens a branch, or goes into one that is open."""
        node = self.cursor_node
        if node is not None and node.allow_expand and not node.is_expanded:
            node.expand()
        elif node is not None and node.children:
            self.move_cursor(node.children[0])

    def action_close(self) -> None:
        """Closes a branch, or goes up to the one around it."""
        node = self.cursor_node
        if node is not None and node.is_expanded and node.parent is not None:
            node.collapse()
        elif node is not None and node.parent is not None:
            self.move_cursor(node.parent)

    def _read(self, node: TreeNode[Any], start: bytes, *, follow: bool = False) -> None:
        _row(node).start = start
        waiting = node.add_leaf(Text("reading …", "dim italic"))
        source, item = self.source, _row(node).item

        def work(job: Job) -> Rows[_T]:
            return source.rows(item, start)

        def done(rows: Rows[_T]) -> None:
            self._add(node, waiting, rows, follow=follow)

        def failed(error: Exception) -> None:
            waiting.data = _Failed(start)
            waiting.set_label(Text(f"✗ {printable(str(error))} (Enter tries again)", "red"))

        self._background.start(self._group(node), work, done, failed)

    def _read_rest(self, rest: TreeNode[Any]) -> None:
        branch = rest.parent
        if branch is None or self._background.is_running(self._group(branch)):
            return
        assert isinstance(rest.data, _Rest)
        start = rest.data.start
        if len(branch.children) >= _MOST_ROWS:
            self._read_again(branch, start, follow=True)
            return
        rest.remove()
        self._read(branch, start, follow=True)

    def _read_again(self, node: TreeNode[Any], start: bytes, *, follow: bool = False) -> None:
        """Shows the names of a branch from one on, and not those before it."""
        self._background.cancel(self._group(node))
        node.remove_children()
        if start:
            node.add_leaf(Text("… earlier names: Enter reads from the first", "dim italic"), _Earlier())
        self._read(node, start, follow=follow)

    def _add(self, node: TreeNode[Any], waiting: TreeNode[Any], rows: Rows[_T], *, follow: bool) -> None:
        follow = follow or self.cursor_node is waiting
        waiting.remove()
        first = None
        for item in rows.items:
            branch = self.source.is_branch(item)
            added = node.add(Text(), _Row(item), allow_expand=branch)
            first = first or added
            if branch and self.source.is_opened(item):
                added.expand()
        if rows.following is not None:
            node.add_leaf(Text("… more names", "dim italic"), _Rest(rows.following))
        elif not node.children:
            node.add_leaf(Text("empty", "dim italic"))
        if follow:
            self._go(first or node)
        if self._revealed:
            self._reveal_below(self.root)

    def _reveal_below(self, node: TreeNode[Any]) -> None:
        for item in self._revealed:
            name = self.source.name(item)
            if not node.is_expanded:
                node.expand()
            if not _row(node).begun or self._background.is_running(self._group(node)):
                if not _row(node).begun:
                    self._read_again(node, b"")
                return
            found = next((child for child in node.children if self._is_called(child, name)), None)
            if found is None:
                if _row(node).start == name:
                    break
                self._read_again(node, name)
                return
            node = found
        self._revealed = []
        self._go(node)

    def _is_called(self, node: TreeNode[Any], name: bytes) -> bool:
        return isinstance(node.data, _Row) and self.source.name(_row(node).item) == name

    def _go(self, node: TreeNode[Any]) -> None:
        # Asking for the last line counts all of them again.
        if self.last_line >= node.line >= 0:
            self.move_cursor(node)
            self.call_after_refresh(self.scroll_to_line, self.cursor_line, animate=False)

    def _indent(self, node: TreeNode[Any]) -> int:
        depth = 0
        while node.parent is not None:
            depth += 1
            node = node.parent
        return depth * self.guide_depth

    def _group(self, node: TreeNode[Any]) -> tuple[str, int, int]:
        return ("page", id(self), node.id)

    def _forget(self) -> None:
        waiting = [self.root]
        while waiting:
            node = waiting.pop()
            self._background.cancel(self._group(node))
            waiting.extend(node.children)


def _row(node: TreeNode[Any]) -> _Row[Any]:
    assert isinstance(node.data, _Row)
    return node.data
