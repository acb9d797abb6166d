"""What lost records of an index mean: which paths they hurt, and which contradictions only follow from them."""

from __future__ import annotations

from stowstore.index.keys import ENTRY, EXTENTS, INODE, after_prefix, inode_of
from stowstore.index.records import EntryRecord, InodeRecord
from stowstore.versions.salvage import DAMAGE, LostRecords, PathNames, SalvageView
from stowstore.versions.structure import Problem, ProblemKind

__all__ = ["describe_lost", "is_explained", "lost_paths"]


def describe_lost(lost: LostRecords) -> str:
    if lost.delta is not None:
        return f"{lost.delta.records} changed records are lost, so what they changed is as it was before: {lost.why}"
    return f"a part of the index is lost: {lost.why}"


def is_explained(problem: Problem, lost: tuple[LostRecords, ...]) -> bool:
    """Whether a contradiction only follows from records that cannot be read."""
    if not lost:
        return False
    return problem.kind in (
        ProblemKind.DANGLING_ENTRY,
        ProblemKind.NO_DIRECTORY,
        ProblemKind.NO_ROOT,
        ProblemKind.WRONG_COUNTERS,
        ProblemKind.WRONG_NLINK,
        ProblemKind.WRONG_ALLOCATED,
        ProblemKind.STRAY_RECORD,
    )


def lost_paths(view: SalvageView, names: PathNames, lost: LostRecords) -> list[str]:
    """The paths that lost records hurt: of files that are gone or incomplete, and of directories that miss names."""
    if lost.delta is not None:
        return []
    hurt: set[int] = set()
    low, high = _numbers(lost, INODE)
    if low < high:
        for _, value in view.scan(ENTRY, after_prefix(ENTRY)):
            try:
                ino = EntryRecord.decode(value).ino
            except DAMAGE:
                continue
            if low <= ino < high and lost.covers(INODE + ino.to_bytes(8, "big")):
                hurt.add(ino)
    for prefix in (ENTRY, EXTENTS):
        low, high = _numbers(lost, prefix)
        if low >= high:
            continue
        stop = INODE + high.to_bytes(8, "big") if high < 1 << 64 else after_prefix(INODE)
        for key, value in view.scan(INODE + low.to_bytes(8, "big"), stop):
            try:
                record = InodeRecord.decode(value)
            except DAMAGE:
                continue
            if record.many_extents if prefix == EXTENTS else record.mode & 0o170000 == 0o040000:
                hurt.add(inode_of(key))
    return sorted(path for found in names.of(hurt).values() for path in found)


def _numbers(lost: LostRecords, prefix: bytes) -> tuple[int, int]:
    """The inode numbers whose records of a kind may be among those lost: from the first to below the second."""
    after = after_prefix(prefix)
    if lost.start >= after or (lost.stop is not None and lost.stop <= prefix):
        return 0, 0
    low = int.from_bytes(lost.start[1:9].ljust(8, b"\0"), "big") if lost.start[:1] == prefix else 0
    if lost.stop is not None and lost.stop < after:
        return low, int.from_bytes(lost.stop[1:9].ljust(8, b"\0"), "big") + 1
    return low, 1 << 64
