"""A root as the explorer sees it: its volumes, their versions, and what differs between two."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Self

from attrs import frozen

from datastore.context import check
from stowstore.chunks.encryption import KeySource
from stowstore.explore.version import ExploredVersion
from stowstore.index.node import NodeCache
from stowstore.versions.changes import Change, path_changes
from stowstore.versions.history import walk_history
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.options import SessionOptions, chunk_store
from stowstore.versions.root import Root

__all__ = ["ExploredRoot", "Newest", "Past"]


@frozen(kw_only=True)
class Newest:
    """A volume of the root and its newest version."""

    volume: str
    manifest: Manifest


@frozen(kw_only=True)
class Past:
    """The newest versions of a history."""

    manifests: list[Manifest]
    has_more: bool
    tags: dict[str, list[str]]


class ExploredRoot:
    """Opens versions for reading, with caches they share.  Thread-safe, and a context manager; the root stays open."""

    def __init__(self, root: Root, key: KeySource | None = None) -> None:
        self.root = root
        options = SessionOptions(key=key)
        self._chunks = chunk_store(root, options)
        self._nodes = NodeCache(self._chunks.index_reader, options.node_cache_bytes)

    def version(self, name: VersionName) -> ExploredVersion:
        """A version; reads its manifest.

        Raises:
            NoSuchVersion: it is gone.
        """
        return ExploredVersion(self.root.load(name), self._nodes, self._chunks.reader)

    def history(self, volume: str, limit: int) -> Past:
        """The versions a volume came from, newest first, and its tags."""
        found = list(islice(_checked(walk_history(self.root, self.root.head(volume))), limit + 1))
        return Past(manifests=found[:limit], has_more=len(found) > limit, tags=self.tags(volume))

    def tags(self, volume: str) -> dict[str, list[str]]:
        """The tags of a volume, by the version they name."""
        found: dict[str, list[str]] = {}
        for tag, name in sorted(self.root.tags(volume).items()):
            found.setdefault(name.id, []).append(tag)
        return found

    def changes(self, old: VersionName, new: VersionName) -> Iterator[Change]:
        """What differs between two versions, at a cost that grows with what differs."""
        return path_changes(self.version(old).snapshot, self.version(new).snapshot)

    def volumes(self) -> list[Newest]:
        """The volumes of the root; reads a manifest of each."""
        found = []
        for name in self.root.volumes():
            check()
            found.append(Newest(volume=name, manifest=self.root.load(self.root.head(name))))
        return found

    def close(self) -> None:
        """Ends the threads that fetch."""
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _checked(manifests: Iterator[Manifest]) -> Iterator[Manifest]:
    for manifest in manifests:
        check()
        yield manifest
