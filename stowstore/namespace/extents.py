"""Where the bytes of one file lie: a sorted map of extents, in blocks or still staged.

What no extent covers is a hole.  Everything costs what it touches, never the size of the file: a truncate to 10^15
bytes is one comparison.

**In memory** extents lie in leaves of some hundred, which a fork shares until either side writes (copy on write).  A
leaf of a huge file stays unloaded until it is touched, and is then read in batches.

**In records** a file of more than `INLINE_EXTENTS` extents has one record a *window*: an aligned stretch of
`WINDOW_BYTES` of the file, under the key of the window's first byte, with the extents that lie in it.  No extent
crosses from one window into the next, so a small change rewrites one record, whatever the size of the file.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Final

from stowstore.chunks.block import BlockRef
from stowstore.index.keys import extents_key, offset_of
from stowstore.index.records import INLINE_EXTENTS
from stowstore.namespace.extent_pieces import (
    END,
    INSIDE,
    WINDOW_BYTES,
    Move,
    Piece,
    Source,
    StagedSource,
    joined,
    joins,
    pack_pieces,
    unpack_window,
)
from stowstore.namespace.interfaces import EncodedExtents, Scan

__all__ = [
    "END",
    "WINDOW_BYTES",
    "ExtentMap",
    "Move",
    "Piece",
    "Source",
    "StagedSource",
    "fetch_windows",
    "unpack_window",
]

_SHIFT: Final = WINDOW_BYTES.bit_length() - 1

#: Extents a leaf holds before it is split, and after.
_LEAF: Final = 512
_PART: Final = 256

#: Records read at once, when one of an unloaded leaf is needed.
_BATCH: Final = 64


def stored_windows(ino: int, scan: Scan, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """The offsets and records of the windows of a file, as the version below has them."""
    for key, value in scan(extents_key(ino, start), extents_key(ino, end)):
        yield offset_of(key), value


def fetch_windows(ino: int, scan: Scan, start: int, stop: int) -> None:
    """Reads what a map reads when it needs a range, so that it then finds it in memory."""
    for count, (offset, _) in enumerate(stored_windows(ino, scan, start & ~INSIDE, END)):
        if count >= _BATCH and offset >= stop:
            return


class _Leaf:
    """Extents in a stretch of the file; None while they are not loaded.  Changed by the map that owns it alone."""

    __slots__ = ("extents", "owner")

    def __init__(self, owner: object, extents: list[Piece] | None) -> None:
        self.owner = owner
        self.extents = extents


class ExtentMap:
    """The extents of one file, as `stowstore.namespace.interfaces.Extents` says.

    Not thread-safe; forks are independent of each other.
    """

    __slots__ = (
        "__weakref__",
        "_changed",
        "_leaves",
        "_many_below",
        "_owner",
        "_scan",
        "_staged",
        "_starts",
        "_unloaded",
        "_wipes",
        "allocated",
        "moves",
        "read_ahead",
        "read_end",
    )

    def __init__(self, pieces: Iterable[Piece] = ()) -> None:
        #: Bytes that extents cover.
        self.allocated = 0
        #: Where what was staged lies since a flush of this fork.
        self.moves: list[Move] = []
        #: Where the last read ended, and up to where blocks were asked for ahead of it.
        self.read_end = self.read_ahead = 0
        # Not the map itself: a cycle would keep staged data until the garbage collector comes by.
        self._owner = object()
        self._starts = [0]
        self._leaves = [_Leaf(self._owner, [])]
        self._staged = 0
        self._unloaded = 0
        self._scan: tuple[int, Scan] | None = None
        # Windows whose record differs from the version below, and whether that version has such records at all.
        self._changed: set[int] = set()
        self._many_below = False
        # How often all records below were dropped without looking at them.
        self._wipes = 0
        for piece in pieces:
            self.put(*piece)
        self._changed.clear()

    @classmethod
    def stored(
        cls, ino: int, scan: Scan, allocated: int, journalled: Mapping[int, list[Piece]] | None = None
    ) -> ExtentMap:
        """The map of a file that has records of its own, read as they are needed.

        ``journalled`` has the windows that a journal holds, by number, over those below.
        """
        made = cls()
        made._scan = (ino, scan)
        made._many_below = True
        made._leaves[0].extents = None
        made._unloaded = 1
        for window, pieces in sorted((journalled or {}).items()):
            made._split_unloaded(window << _SHIFT, pieces)
            made._changed.add(window)
            made._staged += sum(1 for piece in pieces if piece.source.__class__ is not BlockRef)
        made.allocated = allocated
        return made

    def dropped_records(self, windows: Iterable[int]) -> None:
        """Says that the version below has records of these windows, which a journal says are gone."""
        self._many_below = True
        self._changed.update(windows, self._all_windows())

    @property
    def staged(self) -> bool:
        """Whether any extent lies outside of blocks."""
        return self._staged > 0

    @property
    def is_large(self) -> bool:
        """Whether there are more extents than one leaf holds, or records below are to be looked up."""
        return len(self._leaves) > 1 or bool(self._wipes)

    @property
    def is_loaded(self) -> bool:
        """Whether nothing is left to be read."""
        return not self._unloaded

    def is_loaded_in(self, start: int, stop: int) -> bool:
        """Whether nothing has to be read for a range."""
        first, last = bisect_right(self._starts, start) - 1, max(bisect_left(self._starts, stop), 1) - 1
        return not self._unloaded or all(leaf.extents is not None for leaf in self._leaves[first : last + 1])

    def fork(self) -> ExtentMap:
        """The same extents as of now; neither map sees later changes of the other."""
        made = ExtentMap.__new__(ExtentMap)
        made.allocated = self.allocated
        made.moves = []
        made.read_end = made.read_ahead = 0
        made._owner = object()
        made._starts = self._starts.copy()
        made._leaves = self._leaves.copy()
        made._staged = self._staged
        made._unloaded = self._unloaded
        made._scan = self._scan
        made._changed = self._changed.copy()
        made._many_below = self._many_below
        made._wipes = self._wipes
        # All leaves are shared now, so this map owns none of them either.
        self._owner = object()
        return made

    def pieces(self, start: int, stop: int) -> Iterator[Piece]:
        """The extents that overlap a range, ascending, cut to it."""
        position = start
        while position < stop:
            index = self._loaded_leaf(position, stop)
            extents = self._leaves[index].extents
            assert extents is not None
            at = bisect_left(extents, (position,))
            if at:
                offset, length, skip, source = extents[at - 1]
                if offset + length > position:
                    yield Piece(position, min(offset + length, stop) - position, skip + position - offset, source)
            while at < len(extents):
                piece = extents[at]
                if piece[0] >= stop:
                    return
                if piece[0] + piece[1] > stop:
                    yield Piece(piece[0], stop - piece[0], piece[2], piece[3])
                    return
                yield piece
                at += 1
            if index + 1 == len(self._starts):
                return
            position = self._starts[index + 1]

    def only(self, start: int, stop: int) -> Piece | None:
        """The one extent that covers a range, cut to it; None where it takes more, or is not loaded."""
        leaf = self._leaves[0 if len(self._leaves) == 1 else bisect_right(self._starts, start) - 1]
        extents = leaf.extents
        if extents:
            offset, length, skip, source = extents[bisect_left(extents, (start + 1,)) - 1]
            if offset <= start and stop <= offset + length:
                return Piece(start, stop - start, skip + start - offset, source)
        return None

    def covered(self, offset: int, length: int) -> int:
        """Bytes of a range that extents cover."""
        if not self.allocated:
            return 0
        return sum(piece.length for piece in self.pieces(offset, offset + length))

    def put(self, offset: int, length: int, skip: int, source: Source) -> None:
        """Lets a range be bytes of a source from ``skip`` on, over what was there."""
        stop = offset + length
        end = (offset | INSIDE) + 1
        if stop <= end:
            piece = Piece(offset, length, skip, source)
            if len(self._leaves) != 1 or not self._append(piece):
                self._splice(offset, stop, [piece])
            return
        cut = []
        position = offset
        while position < stop:
            size = min(end, stop) - position
            cut.append(Piece(position, size, skip, source))
            position += size
            skip += size
            end += WINDOW_BYTES
        self._splice(offset, stop, cut)

    def drop(self, start: int, stop: int) -> None:
        """Makes a range a hole."""
        if start >= stop or not (self.allocated or self._unloaded):
            return
        if start == 0 and stop >= END:
            self._clear()
        else:
            self._splice(start, stop, [])

    def share(self, pieces: Iterable[Piece], start: int, stop: int, shift: int) -> None:
        """Lets a range have exactly the given extents, moved by ``shift``; sources are shared."""
        cut = []
        for offset, length, skip, source in pieces:
            position, left = offset + shift, length
            while left:
                size = min(left, WINDOW_BYTES - (position & INSIDE))
                cut.append(Piece(position, size, skip, source))
                position += size
                skip += size
                left -= size
        self._splice(start, stop, cut)

    def next_data(self, offset: int, stop: int) -> int | None:
        """The first offset from ``offset`` to below ``stop`` that an extent covers."""
        piece = next(self.pieces(offset, stop), None)
        return None if piece is None else piece.offset

    def next_hole(self, offset: int, stop: int) -> int:
        """The first offset from ``offset`` on that no extent covers, at most ``stop``."""
        for piece in self.pieces(offset, stop):
            if piece.offset > offset:
                return offset
            offset = piece.offset + piece.length
        return offset

    def changed_windows(self) -> list[tuple[int, list[Piece]]]:
        """The windows that differ from the version below, with their extents; all staged data lie in these."""
        windows = self._changed if self._many_below or self._unloaded else self._all_windows()
        return [(window, self._window(window)) for window in sorted(windows)]

    def move(self, moves: Iterable[Move]) -> None:
        """Replaces where bytes lie, as far as they still are those that were moved."""
        for offset, length, skip, source, new_skip, block in moves:
            for piece in list(self.pieces(offset, offset + length)):
                if piece.source == source and piece.skip - skip == piece.offset - offset:
                    start = piece.offset
                    moved = Piece(start, piece.length, new_skip + start - offset, block)
                    self._splice(start, start + piece.length, [moved])

    def rebase(self, below: ExtentMap) -> None:
        """Says that a fork of this map has become the version below."""
        for window in below._changed:
            if window in self._changed and self._window(window) == below._window(window):
                self._changed.discard(window)
        self._many_below = below._is_many()
        if self._unloaded and not self._many_below:
            self._take_unloaded(below)
        if self._wipes == below._wipes:
            self._wipes = 0

    def encode(self, ino: int) -> EncodedExtents:
        """The records of extents that all lie in blocks.

        Raises:
            RuntimeError: some are staged still.
        """
        if self._staged:
            raise RuntimeError(f"inode {ino} has staged data, which no version can refer to; flush them first")
        return self._encode(ino)

    def encode_for_journal(self, ino: int) -> EncodedExtents:
        """The records with references to staged data, which only the same staging area understands."""
        return self._encode(ino)

    def _encode(self, ino: int) -> EncodedExtents:
        changes: dict[bytes, bytes | None] = {}
        if self._wipes:
            changes.update(self._keys_below(ino))
        if not self._is_many():
            if self._many_below:
                changes.update((extents_key(ino, window << _SHIFT), None) for window in self._changed)
                changes.update((extents_key(ino, window << _SHIFT), None) for window in self._all_windows())
            return EncodedExtents(pack_pieces(self.pieces(0, END)) if self.allocated else b"", False, changes)
        for window, pieces in self.changed_windows():
            changes[extents_key(ino, window << _SHIFT)] = pack_pieces(pieces) if pieces else None
        return EncodedExtents(b"", True, changes)

    def _is_many(self) -> bool:
        """Whether the extents take records of their own."""
        if self._unloaded:
            return True
        left = INLINE_EXTENTS
        for leaf in self._leaves:
            assert leaf.extents is not None
            left -= len(leaf.extents)
            if left < 0:
                return True
        return False

    def _all_windows(self) -> list[int]:
        """The windows that have extents, where all are loaded."""
        return [
            window
            for leaf in self._leaves
            for window, _ in groupby(leaf.extents or (), lambda piece: piece[0] >> _SHIFT)
        ]

    def _window(self, window: int) -> list[Piece]:
        start = window << _SHIFT
        return list(self.pieces(start, start + WINDOW_BYTES))

    def _keys_below(self, ino: int) -> Iterator[tuple[bytes, None]]:
        assert self._scan is not None
        for key, _ in self._scan[1](extents_key(ino, 0), extents_key(ino, END)):
            yield key, None

    def _clear(self) -> None:
        """Drops everything, without reading what is not loaded."""
        if self._unloaded:
            self._wipes += 1
        for leaf in self._leaves:
            self._changed.update(piece[0] >> _SHIFT for piece in leaf.extents or ())
        self._starts = [0]
        self._leaves = [_Leaf(self._owner, [])]
        self.allocated = self._staged = self._unloaded = 0

    def _append(self, piece: Piece) -> bool:
        """Puts an extent behind all others, if that is where it belongs and there is room: what most writes do."""
        leaf = self._leaves[0]
        extents = leaf.extents
        if extents is None or leaf.owner is not self._owner or len(extents) >= _LEAF:
            return False
        offset, length, _, source = piece
        if extents:
            last = extents[-1]
            if last[0] + last[1] > offset:
                return False
            if joins(last, piece):
                extents[-1] = Piece(last[0], last[1] + length, last[2], last[3])
                self._changed.add(offset >> _SHIFT)
                self.allocated += length
                return True
        extents.append(piece)
        self._changed.add(offset >> _SHIFT)
        self.allocated += length
        if source.__class__ is not BlockRef:
            self._staged += 1
        return True

    def _splice(self, start: int, stop: int, new: list[Piece]) -> None:
        """Replaces what lies in a range by extents in it; the ends of those that reach out of it stay."""
        first = self._loaded_leaf(start, stop)
        last = first if self._leaf_end(first) >= stop else bisect_left(self._starts, stop) - 1
        if self._unloaded and last > first:
            last = self._load_all(start, stop)
        leaves = self._leaves
        left, right = leaves[first].extents, leaves[last].extents
        assert left is not None
        assert right is not None
        low = bisect_left(left, (start,))
        if low and left[low - 1][0] + left[low - 1][1] > start:
            low -= 1
        high = bisect_left(right, (stop,), low if first == last else 0)
        if first == last:
            old = left[low:high]
        else:
            between = (piece for leaf in leaves[first + 1 : last] for piece in leaf.extents or ())
            old = [*left[low:], *between, *right[:high]]
        if not old and not new:
            return
        changed = self._changed
        for piece in old:
            changed.add(piece[0] >> _SHIFT)
        for piece in new:
            changed.add(piece[0] >> _SHIFT)
        if old:
            offset, length, skip, source = old[-1]
            if offset + length > stop:
                new.append(Piece(stop, offset + length - stop, skip + stop - offset, source))
            offset, length, skip, source = old[0]
            if offset < start:
                new.insert(0, Piece(offset, start - offset, skip, source))
        if low and new and joins(left[low - 1], new[0]):
            low -= 1
            old.insert(0, left[low])
            new.insert(0, left[low])
        if new and high < len(right) and joins(new[-1], right[high]):
            old.append(right[high])
            new.append(right[high])
            high += 1
        if len(new) > 1:
            new = joined(new)
        for piece in old:
            self.allocated -= piece[1]
            if piece[3].__class__ is not BlockRef:
                self._staged -= 1
        for piece in new:
            self.allocated += piece[1]
            if piece[3].__class__ is not BlockRef:
                self._staged += 1
        self._replace(first, last, low, high, new)

    def _replace(self, first: int, last: int, low: int, high: int, new: list[Piece]) -> None:
        """Puts extents between position ``low`` of a leaf and ``high`` of the same or a later one."""
        leaf = self._leaves[first]
        if first == last and leaf.owner is self._owner:
            extents = leaf.extents
            assert extents is not None
            extents[low:high] = new
        else:
            left, right = leaf.extents, self._leaves[last].extents
            assert left is not None
            assert right is not None
            extents = [*left[:low], *new, *right[high:]]
            self._leaves[first : last + 1] = [_Leaf(self._owner, extents)]
            del self._starts[first + 1 : last + 1]
        if len(extents) > _LEAF:
            parts = [extents[at : at + _PART] for at in range(0, len(extents), _PART)]
            self._leaves[first : first + 1] = [_Leaf(self._owner, part) for part in parts]
            self._starts[first + 1 : first + 1] = [part[0][0] for part in parts[1:]]

    def _leaf_end(self, index: int) -> int:
        return self._starts[index + 1] if index + 1 < len(self._starts) else END

    def _loaded_leaf(self, position: int, stop: int) -> int:
        """The leaf that a position lies in, loaded at least from there up to ``stop`` or its own end."""
        index = bisect_right(self._starts, position) - 1
        if self._leaves[index].extents is None:
            self._load(index, position, stop)
            index = bisect_right(self._starts, position) - 1
        return index

    def _load_all(self, start: int, stop: int) -> int:
        """Loads every leaf of a range; the last one of them."""
        while True:
            first, last = bisect_right(self._starts, start) - 1, bisect_left(self._starts, stop) - 1
            missing = next((at for at in range(first, last + 1) if self._leaves[at].extents is None), None)
            if missing is None:
                return last
            self._load(missing, self._starts[missing], stop)

    def _load(self, index: int, position: int, stop: int) -> None:
        """Reads the records from a position up to ``stop``, or a batch of them if that is further."""
        assert self._scan is not None
        start = position & ~INSIDE
        end = self._leaf_end(index)
        found: list[Piece] = []
        loaded_to = end
        for count, (offset, value) in enumerate(stored_windows(*self._scan, start, end)):
            if count >= _BATCH and offset >= stop:
                loaded_to = offset
                break
            found.extend(unpack_window(offset, value))
        self._insert_loaded(index, start, loaded_to, found)

    def _insert_loaded(self, index: int, start: int, stop: int, pieces: list[Piece]) -> None:
        """Replaces the part of an unloaded leaf from ``start`` to ``stop`` by what it holds."""
        begin, end = self._starts[index], self._leaf_end(index)
        starts: list[int] = []
        leaves: list[_Leaf] = []
        if begin < start:
            starts.append(begin)
            leaves.append(_Leaf(None, None))
        parts = [pieces[at : at + _PART] for at in range(0, len(pieces), _PART)] or [[]]
        for number, part in enumerate(parts):
            starts.append(part[0][0] if number else start)
            leaves.append(_Leaf(self._owner, part))
        if stop < end:
            starts.append(stop)
            leaves.append(_Leaf(None, None))
        self._unloaded += (begin < start) + (stop < end) - 1
        self._starts[index : index + 1] = starts
        self._leaves[index : index + 1] = leaves

    def _take_unloaded(self, below: ExtentMap) -> None:
        """Fills what is not loaded from a fork that is: it has put all into one record, and the others are gone."""
        for index in reversed(range(len(self._leaves))):
            if self._leaves[index].extents is None:
                begin, end = self._starts[index], self._leaf_end(index)
                self._insert_loaded(index, begin, end, list(below.pieces(begin, end)))

    def _split_unloaded(self, start: int, pieces: list[Piece]) -> None:
        index = bisect_right(self._starts, start) - 1
        self._insert_loaded(index, start, start + WINDOW_BYTES, list(pieces))
