"""Nodes: the pages of the index tree, each one block of an index pack.

A node is the msgpack array ``[format, level, keys, values]``.  Level 0 is a leaf, whose values are the records; the
values of a node above are the block references of its children, and its keys the first key of each.  A node is
named by its content, so two trees that hold the same node hold it once.

Nodes come from a store that others may write to: whatever does not fit is `CorruptNode`, and since levels fall by
one with every step down, no chain of nodes can be endless.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from operator import lt
from typing import Final, Protocol

import msgspec

from datastore.errors import StoreError
from stowstore.chunks.block import BLOCK_BYTES, BLOCK_REF_BYTES, BlockRef
from stowstore.chunks.patience import WouldWait

__all__ = ["FAN_OUT", "LEAF_RECORDS", "CorruptNode", "Node", "NodeCache", "NodeReader", "NodeWriter", "encode_node"]

#: What a leaf is cut to, in records; twice as many stay together, so that it need not be cut again soon.
LEAF_RECORDS: Final = 192

#: What an inner node is cut to, in children.
FAN_OUT: Final = 256

#: What a node is cut to, in bytes of keys and values: far below a block, so that one node is one small fetch.
NODE_BYTES: Final = 256 << 10

_FORMAT = 1
_MAX_LEVEL = 12

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(tuple[int, int, list[bytes], list[bytes]])


class CorruptNode(StoreError):
    """An index node is not what its place in the tree says; nothing below it is trusted."""


class NodeReader(Protocol):
    """Where nodes are read from; verifies each block by its name."""

    def read(self, refs: Sequence[BlockRef]) -> list[bytes]:
        """The contents of index blocks, in order, fetched together."""
        ...

    def name(self, content: bytes) -> bytes:
        """The 32 bytes that name a content in this root."""
        ...


class NodeWriter(Protocol):
    """Where nodes are written to; they are durable once whoever made the writer has flushed it."""

    def add(self, data: bytes) -> BlockRef:
        """Puts a block into the open index pack and says where it will lie."""
        ...

    def name(self, content: bytes) -> bytes:
        """The 32 bytes that name a content in this root."""
        ...


class Node:
    """A decoded node; shared between threads and never changed."""

    __slots__ = ("keys", "level", "size", "values")

    def __init__(self, level: int, keys: list[bytes], values: list[bytes], size: int) -> None:
        self.level = level
        self.keys = keys
        self.values = values
        self.size = size

    def child(self, position: int) -> BlockRef:
        """The reference of a child of an inner node."""
        return BlockRef.unpack(self.values[position])


def encode_node(level: int, keys: list[bytes], values: list[bytes]) -> bytes:
    """The stored form of a node."""
    return _encode((_FORMAT, level, keys, values))


def decode_node(raw: bytes, level: int) -> Node:
    """Reads a node that should be of a level.

    Raises:
        CorruptNode: it is of another level or format, unsorted, or holds references that are none.
    """
    try:
        form, found, keys, values = _decoder.decode(raw)
    except msgspec.MsgspecError as error:
        _require_format(raw)
        raise CorruptNode(f"an index node cannot be read: {error}") from error
    if form != _FORMAT:
        _require_format(raw)
    if found != level or not 0 <= found <= _MAX_LEVEL:
        raise CorruptNode(f"an index node of level {found} stands where level {level} should")
    if len(keys) != len(values) or not keys:
        raise CorruptNode(f"an index node has {len(keys)} keys and {len(values)} values")
    # All in C: this is most of what reading a node costs.
    if not all(map(lt, keys, islice(keys, 1, None))):
        raise CorruptNode("the keys of an index node do not ascend")
    if level and any(len(value) != BLOCK_REF_BYTES for value in values):
        raise CorruptNode("a child reference has the wrong length")
    return Node(level, keys, values, len(raw))


def _require_level(node: Node, level: int) -> None:
    if node.level != level:
        raise CorruptNode(f"an index node of level {node.level} stands where level {level} should")


def _require_format(raw: bytes) -> None:
    """Refuses a node of another format, which may have anything behind its number."""
    try:
        match msgspec.msgpack.decode(raw):
            case [int(form), *_] if form != _FORMAT:
                raise CorruptNode(
                    f"an index node has format {form}, this release reads {_FORMAT}", hint="use a newer release"
                )
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return


class NodeCache:
    """Decoded nodes, least recently used first out, bounded by about the bytes they take; thread-safe.

    A decoded node takes some three times its stored size.
    """

    def __init__(self, reader: NodeReader, max_bytes: int = 64 << 20) -> None:
        self._reader = reader
        self._max_bytes = max_bytes
        self._nodes: OrderedDict[bytes, Node] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        #: Nodes fetched so far, for tests and statistics.
        self.fetched = 0

    @property
    def reader(self) -> NodeReader:
        return self._reader

    def get(self, ref: BlockRef, level: int) -> Node:
        """The node of a reference, which must be of the level given."""
        name = ref.name
        with self._lock:
            node = self._nodes.get(name)
            if node is not None:
                self._nodes.move_to_end(name)
        if node is None:
            node = self._load([ref], level)[0]
        else:
            _require_level(node, level)
        return node

    def get_near(self, ref: BlockRef, level: int) -> Node:
        """The node of a reference, if it is in memory.

        Raises:
            WouldWait: it is not.
        """
        if ref.name not in self._nodes:
            raise WouldWait
        return self.get(ref, level)

    def get_all(self, refs: Sequence[BlockRef], level: int) -> list[Node]:
        """The nodes of references, which must be of the level given, fetched together."""
        with self._lock:
            found = {ref.name: node for ref in refs if (node := self._nodes.get(ref.name)) is not None}
            for name in found:
                self._nodes.move_to_end(name)
        for node in found.values():
            _require_level(node, level)
        missing = list({ref.name: ref for ref in refs if ref.name not in found}.values())
        if missing:
            found.update(zip((ref.name for ref in missing), self._load(missing, level), strict=True))
        return [found[ref.name] for ref in refs]

    def _load(self, refs: Sequence[BlockRef], level: int) -> list[Node]:
        if any(ref.length > BLOCK_BYTES for ref in refs):
            raise CorruptNode("an index node is larger than a block")
        nodes = [decode_node(raw, level) for raw in self._reader.read(refs)]
        with self._lock:
            self.fetched += len(refs)
            for ref, node in zip(refs, nodes, strict=True):
                if ref.name not in self._nodes:
                    self._nodes[ref.name] = node
                    self._bytes += 3 * node.size
            while self._bytes > self._max_bytes and len(self._nodes) > 1:
                self._bytes -= 3 * self._nodes.popitem(last=False)[1].size
        return nodes
