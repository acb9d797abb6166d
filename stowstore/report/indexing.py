"""What only the index knows: what each version added, what compression saved, garbage, and the largest directories.

The index of every version is read once, and of what versions share nothing twice; then that of the newest version of
each volume again, for its directories.  Files are not read.  It costs what `stowstore volume gc` costs to look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from attrs import evolve

from stowstore.chunks.block import BlockRef, CorruptBlock, PackKind
from stowstore.chunks.encryption import KeySource
from stowstore.chunks.store import ChunkStore
from stowstore.index.node import CorruptNode
from stowstore.index.records import CorruptRecord
from stowstore.namespace.largest import largest_directories
from stowstore.report.model import DirectoryFacts, IndexFacts, Problem, RootFacts
from stowstore.versions.errors import CorruptManifest, NoSuchVersion
from stowstore.versions.marking import Marker, Marks, PackKey
from stowstore.versions.options import SessionOptions
from stowstore.versions.root import Root
from stowstore.versions.session import Session

__all__ = ["DIRECTORIES", "read_index"]

#: How many directories of a volume are told.
DIRECTORIES: Final = 12

_DAMAGE: Final = (CorruptBlock, CorruptManifest, CorruptNode, CorruptRecord, NoSuchVersion)


def read_index(
    root: Root,
    chunks: ChunkStore,
    facts: RootFacts,
    *,
    key: KeySource | None = None,
    on_step: Callable[[str], None] = lambda step: None,
) -> RootFacts:
    """The same facts with what the index adds to them; ``key`` is that of an encrypted root.

    Raises:
        StoreError: the store does not answer.
    """
    marker = Marker(chunks.index_reader)
    marker.marks = marks = _GrowingMarks()
    added: dict[str, int] = {}
    problems = list(facts.problems)
    for position, version in enumerate(facts.versions, 1):
        on_step(f"reading the index of version {position} of {len(facts.versions)}")
        try:
            marker.mark(root.manifest(version.volume, version.id).snapshot)
        except _DAMAGE as error:
            problems.append(Problem(where=f"the index of {version.volume}@{version.id}", message=error.message))
        added[version.id] = marks.growth()
    packs = [(kind, entry.pack, entry.size) for kind in PackKind for entry in chunks.list_packs(kind)]
    garbage = [size for kind, pack, size in packs if (kind, pack) not in marks]
    directories: list[DirectoryFacts] = []
    for volume in facts.volumes:
        if volume.head is not None:
            on_step(f"adding up the directories of {volume.name}")
            try:
                directories += _directories(root, volume.name, SessionOptions(key=key))
            except _DAMAGE as error:
                problems.append(Problem(where=f"the directories of {volume.name}", message=error.message))
    by_volume: dict[str, int] = {}
    for version in facts.versions:
        by_volume[version.volume] = by_volume.get(version.volume, 0) + added[version.id]
    live = sum(map(marks.live_bytes, marks))
    return evolve(
        facts,
        versions=tuple(evolve(version, added_bytes=added[version.id]) for version in facts.versions),
        volumes=tuple(evolve(volume, added_bytes=by_volume.get(volume.name, 0)) for volume in facts.volumes),
        index=IndexFacts(
            nodes=marker.nodes,
            content_bytes=sum(map(marks.content.live_bytes, marks.content)),
            content_stored=sum(marks.live_bytes(key) for key in marks if key[0] is PackKind.DATA),
            live_bytes=live,
            garbage_packs=len(garbage),
            garbage_bytes=sum(garbage),
            directories=tuple(directories),
        ),
        problems=tuple(problems),
    )


class _GrowingMarks(Marks):
    """Marks that know how much came since they were last asked, and how large the content was before compression."""

    def __init__(self) -> None:
        super().__init__()
        self.content = Marks()
        self._touched: set[PackKey] = set()
        self._counted: dict[PackKey, int] = {}

    def mark(self, kind: PackKind, ref: BlockRef) -> None:
        super().mark(kind, ref)
        self._touched.add((kind, ref.pack))
        if kind is PackKind.DATA:
            self.content.mark(kind, ref._replace(stored=ref.length))

    def growth(self) -> int:
        """Stored bytes that became live since this was last asked; only packs that were touched are looked at."""
        grown = 0
        for pack in self._touched:
            live = self.live_bytes(pack)
            grown += live - self._counted.get(pack, 0)
            self._counted[pack] = live
        self._touched.clear()
        return grown


def _directories(root: Root, volume: str, options: SessionOptions) -> Iterator[DirectoryFacts]:
    with Session.read(root, root.head(volume), options) as session:
        # The first is the top directory, which holds everything.
        for found in largest_directories(session.files, DIRECTORIES + 1)[1:]:
            path = found.path.decode("utf-8", "backslashreplace")
            yield DirectoryFacts(volume=volume, path=path, bytes=found.size, files=found.files)
