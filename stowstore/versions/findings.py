"""What a check finds damaged, and its report."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NamedTuple

from attrs import frozen

from stowstore.chunks.block import BlockRef
from stowstore.versions.structure import ProblemKind

__all__ = ["BadBlock", "CheckDepth", "CheckReport", "Finding", "FindingKind"]


class CheckDepth(IntEnum):
    """How deep to look; each includes those before."""

    STRUCTURE = 0
    """Every reference, manifest, index node and record."""
    EXISTENCE = 1
    """That every pack is there and long enough, by listing them."""
    DATA = 2
    """Every byte: all blocks that are needed, and the tables of their packs."""


class FindingKind(StrEnum):
    """What kind of damage it is."""

    BAD_REFERENCE = "bad_reference"
    """A head or tag is damaged, missing, or names no version as it is."""
    BAD_MANIFEST = "bad_manifest"
    LOST_INDEX = "lost_index"
    """A part of the index cannot be read."""
    BAD_STRUCTURE = "bad_structure"
    """Records contradict each other."""
    MISSING_PACK = "missing_pack"
    SHORT_PACK = "short_pack"
    BAD_BLOCK = "bad_block"
    """A block is not what it is named for."""
    BAD_TABLE = "bad_table"
    """The table of a pack is damaged; its blocks may be whole."""


@frozen(kw_only=True)
class Finding:
    """One thing that is damaged, where it was seen, and the paths it hurts there.

    ``version`` is empty for what belongs to a volume, both are for what belongs to the root.  ``problem`` says more of
    a contradiction between records.
    """

    kind: FindingKind
    message: str
    volume: str = ""
    version: str = ""
    paths: tuple[str, ...] = ()
    pack: bytes | None = None
    block: bytes | None = None
    problem: ProblemKind | None = None

    def __str__(self) -> str:
        where = "@".join(part for part in (self.volume, self.version) if part)
        hurt = f"; hurts {len(self.paths)}: {', '.join(self.paths[:5])}" if self.paths else ""
        more = ", ..." if len(self.paths) > 5 else ""
        return f"{where}: {self.message}{hurt}{more}" if where else f"{self.message}{hurt}{more}"


@frozen(kw_only=True)
class CheckReport:
    """What a check looked at, and everything it found damaged."""

    depth: CheckDepth
    findings: tuple[Finding, ...] = ()
    versions: int = 0
    inodes: int = 0
    nodes: int = 0
    blocks: int = 0
    """Blocks of file data that were read, 0 below `CheckDepth.DATA`."""

    @property
    def is_whole(self) -> bool:
        return not self.findings


class BadBlock(NamedTuple):
    """What is wrong with a pack: with one block of it, with its table (``block`` None), or with all of it."""

    kind: FindingKind
    pack: bytes
    block: BlockRef | None
    why: str
