"""What differs between two versions, as a tree."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import define, field
from rich.text import Text

from datastore.context import check
from stowstore.explore.paged_tree import PAGE, Rows
from stowstore.versions.changes import Change, ChangeKind
from stowstore.wording import printable

__all__ = ["STYLES", "ChangeNode", "ChangeSource", "change_tree", "counts_text"]

#: How each kind looks: its sign and its colour.
STYLES: Final[Mapping[ChangeKind, tuple[str, str]]] = {
    ChangeKind.ADDED: ("+", "#9ece6a"),
    ChangeKind.REMOVED: ("-", "#f7768e"),
    ChangeKind.CONTENT: ("~", "#e0af68"),
    ChangeKind.REPLACED: ("!", "#ff9e64"),
    ChangeKind.ATTRIBUTES: ("m", "#7dcfff"),
}

#: So many changes are all shown at once.
_FEW: Final = 200


@define
class ChangeNode:
    """A name that differs, or a directory with such names below; ``kind`` None is a directory that is on both sides."""

    name: bytes
    path: bytes
    kind: ChangeKind | None = None
    is_directory: bool = False
    counts: Counter[ChangeKind] = field(factory=Counter)
    children: dict[bytes, ChangeNode] = field(factory=dict, repr=False)
    names: list[bytes] = field(factory=list, repr=False)


def change_tree(changes: Iterable[Change]) -> ChangeNode:
    """The tree of all changes, from its top; ends when the context is cancelled."""
    top = ChangeNode(b"", b"", is_directory=True)
    for change in changes:
        check()
        path = change.path.encode("utf-8", "surrogateescape")
        node = top
        above = [top]
        for name in path.split(b"/"):
            child = node.children.get(name)
            if child is None:
                below = node.path + b"/" + name if node.path else name
                child = node.children[name] = ChangeNode(name, below, is_directory=True)
            node = child
            above.append(node)
        node.kind = change.kind
        node.is_directory = change.is_directory
        for other in above:
            other.counts[change.kind] += 1
    return top


def counts_text(counts: Counter[ChangeKind]) -> Text:
    """How many names differ, by kind."""
    parts = [(f"{sign}{counts[kind]:,}", style) for kind, (sign, style) in STYLES.items() if counts[kind]]
    return Text(" ").join(Text(*part) for part in parts)


class ChangeSource:
    """The changes as `PagedTree` shows them, all of its branches open where they are few; everything is in memory."""

    def __init__(self, top: ChangeNode) -> None:
        self._is_small = top.counts.total() <= _FEW

    def rows(self, item: ChangeNode, start: bytes) -> Rows[ChangeNode]:
        if not item.names:
            item.names = sorted(item.children)
        first = bisect_left(item.names, start)
        names = item.names[first : first + PAGE]
        following = item.names[first + PAGE] if len(item.names) > first + PAGE else None
        return Rows(items=[item.children[name] for name in names], following=following)

    def name(self, item: ChangeNode) -> bytes:
        return item.name

    def is_branch(self, item: ChangeNode) -> bool:
        return bool(item.children)

    def label(self, item: ChangeNode) -> Text:
        if not item.path:
            return Text("/", "bold")
        shown = printable(item.name) + ("/" if item.is_directory else "")
        if item.kind is None:
            return Text(shown, "bold #7aa2f7")
        sign, style = STYLES[item.kind]
        return Text(f"{sign} {shown}", style)

    def figure(self, item: ChangeNode) -> Text:
        if item.children:
            return counts_text(item.counts)
        return Text(item.kind.value, STYLES[item.kind][1]) if item.kind is not None else Text()

    def is_opened(self, item: ChangeNode) -> bool:
        return self._is_small
