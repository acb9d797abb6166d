"""The tree: an immutable sorted map of bytes to bytes, of content-addressed nodes, copied on write.

A change rewrites the leaves it touches and the path above them; every other node is shared with the tree before,
which stays readable.  Leaves that deletions left small are joined with a neighbour.  The shape depends on the
history, so equal content may have different roots; differences are exact all the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from attrs import frozen

from stowstore.chunks.block import BlockRef
from stowstore.index.node import (
    FAN_OUT,
    LEAF_RECORDS,
    NODE_BYTES,
    Node,
    NodeCache,
    NodeWriter,
    encode_node,
)

__all__ = ["EMPTY_TREE", "Tree", "TreeRef", "apply_changes", "build_tree"]

#: How many leaves a scan fetches together at first, and from then on: most scans end soon, the others go far.
_FIRST_AHEAD = 16
_AHEAD = 64


@frozen
class TreeRef:
    """What names a tree: its root and how many levels stand above the leaves; no root is the empty tree."""

    root: BlockRef | None = None
    depth: int = 0


EMPTY_TREE = TreeRef()


class Tree:
    """Reads one tree; immutable and thread-safe."""

    __slots__ = ("cache", "ref")

    def __init__(self, ref: TreeRef, cache: NodeCache) -> None:
        self.ref = ref
        self.cache = cache

    def get(self, key: bytes, *, near: bool = False) -> bytes | None:
        """The value of a key, or None; with ``near`` out of memory, or `WouldWait`."""
        ref = self.ref.root
        if ref is None:
            return None
        get = self.cache.get_near if near else self.cache.get
        for level in range(self.ref.depth, 0, -1):
            node = get(ref, level)
            position = bisect_right(node.keys, key) - 1
            if position < 0:
                return None
            ref = node.child(position)
        node = get(ref, 0)
        position = bisect_left(node.keys, key)
        if position < len(node.keys) and node.keys[position] == key:
            return node.values[position]
        return None

    def scan(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """The pairs from ``start`` to below ``stop``, ascending; nodes are fetched as it goes."""
        for keys, values in self.leaves(start, stop):
            yield from zip(keys, values, strict=True)

    def find(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """The values of those of the keys, ascending, that there are; the nodes of a level are fetched together."""
        found: dict[bytes, bytes] = {}
        ref = self.ref.root
        if ref is None or not keys:
            return found
        # References of nodes of one level, each with which of the keys it may hold.
        wanted = [(ref, 0, len(keys))]
        for level in range(self.ref.depth, 0, -1):
            below: list[tuple[BlockRef, int, int]] = []
            nodes = self.cache.get_all([ref for ref, _, _ in wanted], level)
            for node, (_, first, last) in zip(nodes, wanted, strict=True):
                while first < last:
                    position = bisect_right(node.keys, keys[first]) - 1
                    end = last
                    if position + 1 < len(node.keys):
                        end = bisect_left(keys, node.keys[position + 1], first, last)
                    if position >= 0:
                        below.append((node.child(position), first, end))
                    first = end
            wanted = below
        for start in range(0, len(wanted), _AHEAD):
            part = wanted[start : start + _AHEAD]
            for node, (_, first, last) in zip(self.cache.get_all([ref for ref, _, _ in part], 0), part, strict=True):
                if last - first == 1:
                    position = bisect_left(node.keys, keys[first])
                    if position < len(node.keys) and node.keys[position] == keys[first]:
                        found[keys[first]] = node.values[position]
                else:
                    held = dict(zip(node.keys, node.values, strict=True))
                    found.update((key, held[key]) for key in keys[first:last] if key in held)
        return found

    def leaves(
        self, start: bytes = b"", stop: bytes | None = None, *, ahead: int = _FIRST_AHEAD
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        """The same leaf by leaf: keys and their values.

        ``ahead`` leaves are read at a time at first, twice as many each time after: few for who may soon have found
        what is looked for.
        """
        if self.ref.root is not None:
            yield from self._leaves(self.ref.root, self.ref.depth, start, stop, ahead)

    def _leaves(
        self, ref: BlockRef, level: int, start: bytes, stop: bytes | None, ahead: int
    ) -> Iterator[tuple[list[bytes], list[bytes]]]:
        node = self.cache.get(ref, level)
        keys = node.keys
        if level == 0:
            first = bisect_left(keys, start)
            last = len(keys) if stop is None else bisect_left(keys, stop)
            if first < last:
                yield keys[first:last], node.values[first:last]
            return
        first = max(bisect_right(keys, start) - 1, 0)
        last = len(keys) if stop is None else bisect_left(keys, stop)
        while first < last:
            end = min(first + ahead, last) if level == 1 else first + 1
            refs = [node.child(position) for position in range(first, end)]
            if level == 1:
                self.cache.get_all(refs, 0)
                ahead = min(2 * ahead, _AHEAD)
            for ref in refs:
                yield from self._leaves(ref, level - 1, start, stop, ahead)
            first = end


def build_tree(items: Iterable[tuple[bytes, bytes]], writer: NodeWriter) -> TreeRef:
    """Builds a tree of pairs that come ascending, without holding more than one leaf of them.

    Raises:
        ValueError: the keys do not ascend.
    """
    leaves = _Level(0, writer)
    last: bytes | None = None
    for key, value in items:
        if last is not None and key <= last:
            raise ValueError(f"keys must ascend: {key!r} after {last!r}")
        last = key
        leaves.add(key, value)
    return _grow(leaves.finish(), 0, writer)


def apply_changes(tree: Tree, changes: Sequence[tuple[bytes, bytes | None]], writer: NodeWriter) -> TreeRef:
    """The tree with changes, ascending by key, None deleting; only what they touch is read and written."""
    if not changes:
        return tree.ref
    if tree.ref.root is None:
        return build_tree(((key, value) for key, value in changes if value is not None), writer)
    content = _changed(tree, tree.ref.root, tree.ref.depth, changes, writer)
    if tree.ref.depth and len(content.keys) == 1:
        return _without_single_children(BlockRef.unpack(content.values[0]), tree.ref.depth - 1, tree.cache)
    return _grow(_write(content, tree.ref.depth, writer), tree.ref.depth, writer)


_Pairs = list[tuple[bytes, BlockRef]]


class _Content:
    """The keys and values of a node that is being rewritten."""

    __slots__ = ("keys", "values")

    def __init__(self, keys: list[bytes], values: list[bytes]) -> None:
        self.keys = keys
        self.values = values


def _changed(
    tree: Tree, ref: BlockRef, level: int, changes: Sequence[tuple[bytes, bytes | None]], writer: NodeWriter
) -> _Content:
    node = tree.cache.get(ref, level)
    if level == 0:
        return _merge_leaf(node, changes)
    parts = list(_children(tree, node, changes, writer))
    _join_small(tree, level - 1, parts)
    keys: list[bytes] = []
    values: list[bytes] = []
    for part in parts:
        if isinstance(part, _Content):
            for key, child in _write(part, level - 1, writer):
                keys.append(key)
                values.append(child.pack_bytes())
        else:
            keys.append(part[0])
            values.append(part[1])
    return _Content(keys, values)


_Part = tuple[bytes, bytes] | _Content


def _children(
    tree: Tree, node: Node, changes: Sequence[tuple[bytes, bytes | None]], writer: NodeWriter
) -> Iterator[_Part]:
    """The children of a node after the changes: rewritten ones as content, the others as they are."""
    done = 0
    for position, key in enumerate(node.keys):
        end = len(changes)
        if position + 1 < len(node.keys):
            end = bisect_left(changes, node.keys[position + 1], lo=done, key=_key_of)
        if end == done:
            yield key, node.values[position]
            continue
        content = _changed(tree, node.child(position), node.level - 1, changes[done:end], writer)
        done = end
        if content.keys:
            yield content


def _key_of(change: tuple[bytes, bytes | None]) -> bytes:
    return change[0]


def _merge_leaf(node: Node, changes: Sequence[tuple[bytes, bytes | None]]) -> _Content:
    keys: list[bytes] = []
    values: list[bytes] = []
    done = 0
    for key, value in changes:
        position = bisect_left(node.keys, key, lo=done)
        keys += node.keys[done:position]
        values += node.values[done:position]
        done = position
        if position < len(node.keys) and node.keys[position] == key:
            done += 1
        if value is not None:
            keys.append(key)
            values.append(value)
    keys += node.keys[done:]
    values += node.values[done:]
    return _Content(keys, values)


def _join_small(tree: Tree, level: int, parts: list[_Part]) -> None:
    """Joins rewritten nodes that have become small with the neighbour before, or else behind."""
    least = (LEAF_RECORDS if level == 0 else FAN_OUT) // 4
    position = 0
    while position < len(parts) and len(parts) > 1:
        part = parts[position]
        if isinstance(part, _Content) and len(part.keys) < least:
            left = position - 1 if position else 0
            first, second = (_opened(tree, level, parts[at]) for at in (left, left + 1))
            parts[left : left + 2] = [_Content(first.keys + second.keys, first.values + second.values)]
            position = left
        else:
            position += 1


def _opened(tree: Tree, level: int, part: _Part) -> _Content:
    if isinstance(part, _Content):
        return part
    node = tree.cache.get(BlockRef.unpack(part[1]), level)
    return _Content(list(node.keys), list(node.values))


class _Level:
    """Cuts a stream of pairs into nodes of one level."""

    def __init__(self, level: int, writer: NodeWriter) -> None:
        self._level = level
        self._writer = writer
        self._target = LEAF_RECORDS if level == 0 else FAN_OUT
        self._keys: list[bytes] = []
        self._values: list[bytes] = []
        self._bytes = 0
        self._pairs: _Pairs = []

    def add(self, key: bytes, value: bytes) -> None:
        self._keys.append(key)
        self._values.append(value)
        self._bytes += len(key) + len(value)
        if len(self._keys) >= self._target or self._bytes >= NODE_BYTES:
            self._cut()

    def finish(self) -> _Pairs:
        if self._keys:
            self._cut()
        return self._pairs

    def _cut(self) -> None:
        ref = self._writer.add(encode_node(self._level, self._keys, self._values))
        self._pairs.append((self._keys[0], ref))
        self._keys, self._values, self._bytes = [], [], 0


def _write(content: _Content, level: int, writer: NodeWriter) -> _Pairs:
    """Writes content as one node, or as several even ones where it has outgrown one."""
    target = LEAF_RECORDS if level == 0 else FAN_OUT
    count = len(content.keys)
    size = sum(map(len, content.keys)) + sum(map(len, content.values))
    parts = max(1 if count <= 2 * target else -(-count // target), -(-size // (2 * NODE_BYTES)))
    step = -(-count // parts) if count else 1
    pairs: _Pairs = []
    for start in range(0, count, step):
        keys = content.keys[start : start + step]
        pairs.append((keys[0], writer.add(encode_node(level, keys, content.values[start : start + step]))))
    return pairs


def _grow(pairs: _Pairs, level: int, writer: NodeWriter) -> TreeRef:
    """Puts inner levels over nodes of a level until one is left."""
    while len(pairs) > 1:
        level += 1
        above = _Level(level, writer)
        for key, ref in pairs:
            above.add(key, ref.pack_bytes())
        pairs = above.finish()
    return TreeRef(pairs[0][1], level) if pairs else EMPTY_TREE


def _without_single_children(root: BlockRef, depth: int, cache: NodeCache) -> TreeRef:
    """The tree below roots that deletions have left with one child."""
    while depth:
        node = cache.get(root, depth)
        if len(node.keys) > 1:
            break
        root, depth = node.child(0), depth - 1
    return TreeRef(root, depth)
