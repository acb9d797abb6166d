"""Checking: what of a root, a volume or a version is damaged, and which files that hurts.

Damage is never raised but reported, with the paths it hurts in every version checked; what is raised is that the store
could not be looked at.  Everything is read past the caches.

Reading every byte falls into units that need nothing of each other: packs with the blocks that are needed of them.
Threads of this process check them, or the workers of whatever `Runner` is given; what has gathered is checked whenever
it would take too much memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from datastore import context
from datastore.errors import NotFound, StoreError
from stowstore.chunks.block import BlockRef, PackKind
from stowstore.chunks.memory_cache import MemoryCache
from stowstore.chunks.packs import TRAILER_BYTES
from stowstore.chunks.store import ChunkStore
from stowstore.index.records import Extent
from stowstore.index.snapshot import SnapshotRef
from stowstore.runners import Runner, ThreadRunner
from stowstore.versions.check_packs import PackToCheck, check_packs
from stowstore.versions.errors import CorruptManifest, NoSuchVersion, NoSuchVolume
from stowstore.versions.findings import BadBlock, CheckDepth, CheckReport, Finding, FindingKind
from stowstore.versions.history import walk_history
from stowstore.versions.lost import describe_lost, is_explained, lost_paths
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.root import HEAD, Root
from stowstore.versions.salvage import PathNames, SalvageView, extents_in
from stowstore.versions.structure import StructureCheck

__all__ = ["check"]

#: How many blocks gather before they are checked, at some 300 bytes each.
_MAX_GATHERED: Final = 1 << 19

_WORKERS: Final = 8

#: Packs that one piece of the work reads at most.
_PACKS_A_PIECE: Final = 16

Progress = Callable[[str, int, int], None]


def check(
    root: Root,
    chunks: ChunkStore,
    volume: str | None = None,
    version: str | None = None,
    *,
    depth: CheckDepth = CheckDepth.STRUCTURE,
    on_progress: Progress | None = None,
    runner: Runner[ChunkStore] | None = None,
) -> CheckReport:
    """Looks at a version of a volume, at all of its versions (None), or at all volumes (None).

    ``version`` is an id, the beginning of one, a tag, or ``head``.  ``runner`` is where packs are read, threads of this
    process without one; it has to read past caches as well.

    Raises:
        NoSuchVolume, NoSuchVersion: there is nothing of that name to look at.
        StoreError: the store cannot be read.
    """
    # What a cache holds says nothing of what the store holds.
    with ChunkStore(root.store, root.base, chunks.codec, memory=MemoryCache(32 << 20)) as fresh:
        run = _Check(root, fresh, depth, on_progress or _silent, runner or ThreadRunner(fresh, _WORKERS))
        run.look(volume, version)
        return run.report()


class _Version(NamedTuple):
    """Versions of one snapshot, and what was seen of them."""

    snapshot: SnapshotRef
    names: list[tuple[str, str]]
    first_ino: int


class _Check:
    """One check."""

    def __init__(
        self, root: Root, chunks: ChunkStore, depth: CheckDepth, on_progress: Progress, runner: Runner[ChunkStore]
    ) -> None:
        self._runner = runner
        self._root = root
        self._chunks = chunks
        self._depth = depth
        self._tell = on_progress
        self._findings: list[Finding] = []
        self._snapshots: dict[SnapshotRef, _Version] = {}
        self._seen: set[tuple[str, str]] = set()
        self._past: set[tuple[str, str]] | None = None
        self._ends: dict[tuple[PackKind, bytes], int] = {}
        self._gathered: dict[bytes, set[BlockRef]] = {}
        self._count = 0
        self._bad: dict[bytes, list[BadBlock]] = {}
        self._inodes = self._nodes = self._blocks = 0

    def look(self, volume: str | None, version: str | None) -> None:
        """Looks at everything that was asked for."""
        for name in self._volumes() if volume is None else [volume]:
            self._look_at_volume(name, version)
        versions = list(self._snapshots.values())
        for done, found in enumerate(versions):
            context.check()
            self._tell("checking versions", done, len(versions))
            self._structure(found)
        self._tell("checking versions", len(versions), len(versions))
        if self._depth >= CheckDepth.EXISTENCE:
            self._packs()
        if self._depth >= CheckDepth.DATA:
            self._verify()
            self._read([PackToCheck(kind, pack, frozenset()) for kind, pack in self._ends if kind is PackKind.INDEX])
        if self._bad:
            for found in versions:
                self._hurt(found)

    def report(self) -> CheckReport:
        return CheckReport(
            depth=self._depth,
            findings=tuple(self._findings),
            versions=len(self._seen),
            inodes=self._inodes,
            nodes=self._nodes,
            blocks=self._blocks,
        )

    def _volumes(self) -> list[str]:
        """Every volume that has references or versions."""
        found = set(self._root.volumes())
        for entry in self._root.store.walk(self._root.base.join("versions"), directory=True):
            found.add(entry.reference.key.removeprefix(self._root.base.join("versions").key + "/").partition("/")[0])
        return sorted(found)

    def _is_past(self, volume: str, ids: list[str]) -> bool:
        """Whether others have all these versions in their history: a copied volume brings what it was forked from."""
        if self._past is None:
            self._past = set()
            # What is damaged is found for itself, and explains nothing here.
            with suppress(StoreError):
                for head in self._root.pinned():
                    self._past.update((one.volume, one.id) for one in walk_history(self._root, head))
        return {(volume, found) for found in ids} <= self._past

    def _look_at_volume(self, volume: str, version: str | None) -> None:
        names = dict(self._references(volume))
        ids = list(self._root.version_ids(volume))
        if not names and not ids and not any(found.volume == volume for found in self._findings):
            raise NoSuchVolume(
                f"there is no volume {volume!r} in {self._root.address}", hint="list volumes to see which"
            )
        if (
            HEAD not in names
            and not any(found.volume == volume for found in self._findings)
            and (names or not self._is_past(volume, ids))
        ):
            self._find(FindingKind.BAD_REFERENCE, f"{len(ids)} versions and no head", volume)
        if version is None:
            digests = {(name.volume, name.id): (label, name.digest) for label, name in names.items()}
            wanted = dict.fromkeys([(volume, found) for found in ids]) | dict.fromkeys(digests)
        else:
            one = self._one(volume, version, names, ids)
            digests = {one: (version, names[version].digest)} if version in names else {}
            wanted = dict.fromkeys([one])
        manifests = [self._manifest(*name, *digests.get(name, ("", None))) for name in wanted]
        known = {(found.volume, found.id): found for found in manifests if found is not None}
        for manifest in known.values():
            for parent in manifest.parents:
                found = known.get((parent.volume, parent.id))
                if found is not None and found.name != parent:
                    message = f"its digest is not the one that version {manifest.id} was made on"
                    self._find(FindingKind.BAD_MANIFEST, message, *(parent.volume, parent.id))

    def _one(self, volume: str, version: str, names: Mapping[str, VersionName], ids: list[str]) -> tuple[str, str]:
        if version in names:
            return names[version].volume, names[version].id
        found = [name for name in ids if name.startswith(version.upper())]
        if len(found) != 1:
            how = "several versions begin so" if found else "no version or tag is called so"
            raise NoSuchVersion(f"{volume}@{version}: {how}", hint="see the log of the volume")
        return volume, found[0]

    def _references(self, volume: str) -> Iterator[tuple[str, VersionName]]:
        """The head and the tags of a volume that can be read."""
        store, base = self._root.store, self._root.base.join("refs", volume)
        for entry in store.walk(base, directory=True):
            label = entry.reference.key.removeprefix(base.key + "/").removeprefix("tags/")
            try:
                yield label, VersionName.from_data(json.loads(store.read_bytes(entry.reference)))
            except NotFound:
                continue
            except (ValueError, CorruptManifest):
                self._find(FindingKind.BAD_REFERENCE, f"the reference {label} is damaged", volume)

    def _manifest(self, volume: str, version: str, label: str, digest: str | None) -> Manifest | None:
        if (volume, version) in self._seen:
            return None
        self._seen.add((volume, version))
        try:
            found = self._root.manifest(volume, version, digest=digest)
        except NoSuchVersion:
            if label:
                message = f"{label} names this version, which is not there"
                self._find(FindingKind.BAD_REFERENCE, message, volume, version)
            return None
        except CorruptManifest as error:
            self._find(FindingKind.BAD_MANIFEST, error.message, volume, version)
            return None
        first = found.inode_offset
        held = self._snapshots.setdefault(found.snapshot, _Version(found.snapshot, [], first))
        held.names.append((volume, version))
        return found

    def _structure(self, version: _Version) -> None:
        view = SalvageView(version.snapshot, self._chunks.index_reader)
        empty = version.snapshot == SnapshotRef()
        run = StructureCheck(view, first_ino=version.first_ino, on_extent=self._gather)
        problems = [] if empty else list(run.problems())
        self._inodes += run.inodes
        self._nodes += view.nodes
        for pack, end in view.packs.items():
            key = (PackKind.INDEX, pack)
            self._ends[key] = max(self._ends.get(key, 0), end)
        names = PathNames(view)
        for lost in view.lost:
            paths = lost_paths(view, names, lost)
            self._found_in(version, FindingKind.LOST_INDEX, describe_lost(lost), paths, lost.block)
        for delta in view.misfiltered:
            message = "the filter of an index segment denies records that the segment holds: lookups may miss them"
            self._found_in(version, FindingKind.BAD_STRUCTURE, message, [], delta.blocks[0])
        problems = [problem for problem in problems if not is_explained(problem, view.lost)]
        if problems:
            hurt = names.of(problem.ino for problem in problems if problem.ino)
            for problem in problems:
                for volume, name in version.names:
                    self._findings.append(
                        Finding(
                            kind=FindingKind.BAD_STRUCTURE,
                            message=problem.message,
                            volume=volume,
                            version=name,
                            paths=tuple(hurt.get(problem.ino, ())),
                            problem=problem.kind,
                        )
                    )

    def _gather(self, extent: Extent) -> None:
        """Notes a block that some file needs."""
        block = extent.block
        key = (PackKind.DATA, block.pack)
        self._ends[key] = max(self._ends.get(key, 0), block.offset + block.stored)
        if self._depth >= CheckDepth.DATA:
            gathered = self._gathered.setdefault(block.pack, set())
            if block not in gathered:
                gathered.add(block)
                self._count += 1
                if self._count > _MAX_GATHERED:
                    self._verify()

    def _packs(self) -> None:
        """Holds the packs that are needed against those that are there."""
        for kind in PackKind:
            sizes = {entry.pack: entry.size for entry in self._chunks.list_packs(kind)}
            for (found, pack), end in self._ends.items():
                if found is not kind:
                    continue
                size = sizes.get(pack)
                if size is None:
                    why = f"pack {pack.hex()} is missing"
                    self._bad.setdefault(pack, []).insert(0, BadBlock(FindingKind.MISSING_PACK, pack, None, why))
                elif size < end + TRAILER_BYTES:
                    why = f"pack {pack.hex()} has {size} bytes, {end} and its table are needed"
                    self._bad.setdefault(pack, []).insert(0, BadBlock(FindingKind.SHORT_PACK, pack, None, why))

    def _verify(self) -> None:
        """Reads what has gathered, some packs at once."""
        packs, self._gathered, self._count = self._gathered, {}, 0
        self._read([PackToCheck(PackKind.DATA, pack, frozenset(blocks)) for pack, blocks in packs.items()])

    def _read(self, work: list[PackToCheck]) -> None:
        missing = {pack for pack, bad in self._bad.items() if bad[0].kind is FindingKind.MISSING_PACK}
        wanted = [item for item in work if item.pack not in missing]
        size = min(_PACKS_A_PIECE, 1 + len(wanted) // (4 * self._runner.slots))
        pieces = [wanted[start : start + size] for start in range(0, len(wanted), size)]
        done = 0
        self._tell("reading packs", done, len(wanted))
        for piece, found in zip(pieces, self._runner.map(check_packs, pieces), strict=True):
            context.check()
            for item, bad in zip(piece, found, strict=True):
                self._blocks += len(item.blocks)
                if bad:
                    self._bad.setdefault(item.pack, []).extend(bad)
            done += len(piece)
            self._tell("reading packs", done, len(wanted))

    def _hurt(self, version: _Version) -> None:
        """Tells which files of a version need what is bad."""
        view = SalvageView(version.snapshot, self._chunks.index_reader)
        hurt: dict[BadBlock, set[int]] = {}
        for ino, _, extent in extents_in(view):
            for bad in self._bad.get(extent.block.pack, ()):
                if bad.kind is FindingKind.BAD_TABLE:
                    # It serves ranges of large blocks only; without it they are read whole.
                    hurt.setdefault(bad, set())
                elif bad.block in (None, extent.block):
                    hurt.setdefault(bad, set()).add(ino)
        for pack in view.packs:
            for bad in self._bad.get(pack, ()):
                # The nodes themselves were read: what is bad of the pack hurts nobody yet.
                hurt.setdefault(bad, set())
        paths = PathNames(view).of(set().union(*hurt.values())) if any(hurt.values()) else {}
        for bad, inos in hurt.items():
            found = sorted(path for ino in inos for path in paths[ino] or [f"<inode {ino}>"])
            self._found_in(version, bad.kind, bad.why, found, bad.block, bad.pack)

    def _found_in(
        self,
        version: _Version,
        kind: FindingKind,
        message: str,
        paths: list[str],
        block: BlockRef | None,
        pack: bytes | None = None,
    ) -> None:
        for volume, name in version.names:
            self._findings.append(
                Finding(
                    kind=kind,
                    message=message,
                    volume=volume,
                    version=name,
                    paths=tuple(paths),
                    pack=pack if block is None else block.pack,
                    block=None if block is None else block.name,
                )
            )

    def _find(self, kind: FindingKind, message: str, volume: str, version: str = "") -> None:
        self._findings.append(Finding(kind=kind, message=message, volume=volume, version=version))


def _silent(step: str, done: int, total: int) -> None:
    """Tells nobody."""
