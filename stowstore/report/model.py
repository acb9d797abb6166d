"""What a report knows: plain values, as they were found; sizes in bytes, moments in UTC.

Text of these values comes from the store and may say anything: who shows it escapes it.
"""

from __future__ import annotations

from datetime import datetime

from attrs import field, frozen

__all__ = [
    "DirectoryFacts",
    "Holder",
    "IndexFacts",
    "LastCollection",
    "PackTotals",
    "Parent",
    "Problem",
    "RootFacts",
    "VersionFacts",
    "VolumeFacts",
]


@frozen
class Parent:
    """A version that another one was made from, which may lie in another volume or be gone."""

    volume: str
    id: str


@frozen(kw_only=True)
class VersionFacts:
    """One version: what its manifest says, and what names it.

    ``tags`` are ``volume@tag``; ``produced_by`` is what made it, as short text; ``added_bytes`` is what it stores
    that no older version of the root does, known only where the index was read.
    """

    volume: str
    id: str
    created: datetime
    parents: tuple[Parent, ...] = ()
    message: str = ""
    used_bytes: int = 0
    inodes: int = 0
    index_bytes: int = 0
    produced_by: str = ""
    head_of: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    added_bytes: int | None = None

    @property
    def is_merge(self) -> bool:
        return len(self.parents) > 1


@frozen(kw_only=True)
class Holder:
    """Who has the lease of a volume; ``is_over`` once anybody may take it over."""

    who: str
    since: datetime | None
    expires: datetime | None
    is_over: bool


@frozen(kw_only=True)
class VolumeFacts:
    """One volume.

    ``head`` is its newest version, which is one of ``origin`` until a fork is committed to.  ``is_deleted`` says that
    only versions are left.  ``sizes`` are the logical bytes of its versions, oldest first.
    """

    name: str
    head: Parent | None = None
    origin: str | None = None
    versions: int = 0
    used_bytes: int = 0
    inodes: int = 0
    last_commit: datetime | None = None
    holder: Holder | None = None
    tags: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    is_deleted: bool = False
    added_bytes: int | None = None


@frozen(kw_only=True)
class PackTotals:
    """What lies in packs, as listed; ``growth`` is how much of it was there at which moment, oldest first."""

    data_packs: int = 0
    data_bytes: int = 0
    index_packs: int = 0
    index_bytes: int = 0
    growth: tuple[tuple[datetime, int], ...] = ()

    @property
    def packs(self) -> int:
        return self.data_packs + self.index_packs

    @property
    def bytes(self) -> int:
        return self.data_bytes + self.index_bytes


@frozen(kw_only=True)
class LastCollection:
    """What the last look for garbage wrote down."""

    written: datetime
    bytes: int
    packs: int
    dry_run: bool


@frozen(kw_only=True)
class DirectoryFacts:
    """What lies below a directory of a volume's newest version."""

    volume: str
    path: str
    bytes: int
    files: int


@frozen(kw_only=True)
class IndexFacts:
    """What the index of every version says.

    ``content_bytes`` is every block of file data once, before compression; ``content_stored`` the same as it lies in
    packs; ``live_bytes`` all that is needed of packs, index included; ``garbage_bytes`` whole packs that no version
    needs, which a collection would remove once they are old enough.
    """

    nodes: int
    content_bytes: int
    content_stored: int
    live_bytes: int
    garbage_packs: int
    garbage_bytes: int
    directories: tuple[DirectoryFacts, ...] = ()


@frozen(kw_only=True)
class Problem:
    """Something that could not be read, and so is missing from the report."""

    where: str
    message: str


@frozen(kw_only=True)
class RootFacts:
    """Everything a report shows of a root.

    ``versions`` are ordered by their ids, which is by time.  ``listings`` and ``reads`` are what was asked of the store
    without the index: prefixes that were listed, and small objects that were read.
    """

    address: str
    gathered: datetime
    compression: str = "zstd"
    is_encrypted: bool = False
    volumes: tuple[VolumeFacts, ...] = ()
    versions: tuple[VersionFacts, ...] = ()
    packs: PackTotals = field(factory=PackTotals)
    collection: LastCollection | None = None
    index: IndexFacts | None = None
    problems: tuple[Problem, ...] = ()
    listings: int = 0
    reads: int = 0

    @property
    def newest_bytes(self) -> int:
        """The newest versions of all volumes, as large as their files are."""
        return sum(volume.used_bytes for volume in self.volumes if not volume.is_deleted)

    @property
    def logical_bytes(self) -> int:
        """All versions, as if each were a full copy."""
        return sum(version.used_bytes for version in self.versions)
