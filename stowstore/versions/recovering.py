"""Recovering a stranded journal: changes over a version that somebody else has published past.

They cannot be laid over the newest version, which knows nothing of them; so they become a volume of their own, forked
where they began, that can be merged like any other fork.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from attrs import evolve

from stowstore.index.keys import ENTRY, INODE, SUPERBLOCK, inode_of
from stowstore.index.node import NodeCache
from stowstore.index.records import EntryRecord, InodeRecord, Superblock
from stowstore.index.snapshot import Snapshot
from stowstore.namespace.metastore import choose_kind, open_metastore
from stowstore.versions.errors import NoSuchVersion, RootInUse, VolumeError
from stowstore.versions.history import walk_history
from stowstore.versions.journals import BASE, PENDING, ROOT, has_changes, journal_name, lies_in
from stowstore.versions.manifest import Manifest
from stowstore.versions.numbering import advanced, next_ino
from stowstore.versions.options import CommitOptions, SessionOptions, chunk_store
from stowstore.versions.root import Root, check_volume_name
from stowstore.versions.session import Session

__all__ = ["recover_journal"]


def recover_journal(
    root: Root,
    volume: str,
    recovered: str,
    options: SessionOptions,
    *,
    message: str | None = None,
    produced_by: Any = None,
) -> Manifest:
    """Commits what the journal of a volume holds as the first version of a fork named ``recovered``.

    ``options`` name the journal's directories.  The volume itself is not touched, nor need it be free.  When it is
    interrupted, it can be run again with the same names.

    Raises:
        VolumeError: the journal is another volume's, or holds no changes.
        RootInUse: there is a volume called ``recovered`` that is something else.
        NoSuchVersion: the version the changes lie over has been pruned.
    """
    check_volume_name(recovered)
    if options.meta_dir is None:
        raise VolumeError("a journal in memory ended with its process", hint="name the meta_dir it was kept in")
    with contextlib.closing(open_metastore(choose_kind(options.metadata_store_type), options.meta_dir)) as journal:
        meta_dir: Path = options.meta_dir
        said = {key: (journal.get_meta(key) or b"").decode() for key in (ROOT, "volume", BASE, PENDING)}
        here = journal_name(root, volume, None)[ROOT]
        if not lies_in(said[ROOT].encode(), here) or said["volume"] not in (volume, recovered):
            raise VolumeError(
                f"the journal in {meta_dir} is of {said['volume'] or 'nothing'} in {said[ROOT] or 'no root'}, "
                f"not of {volume} in {root.address}",
                hint="name the volume it is of, or another meta_dir",
            )
        if not has_changes(journal):
            raise VolumeError(f"the journal in {meta_dir} holds no changes", hint="there is nothing to recover")
        base = _base(root, volume, said)
        _fork(root, recovered, base)
        if said["volume"] != recovered:
            records = dict(journal.load())
            if base is not None:
                with chunk_store(root, evolve(options, cache_dir=None)) as chunks:
                    records = _renumbered(records, next_ino(Snapshot(base.snapshot, NodeCache(chunks.index_reader))))
            journal.replace(records, {**journal_name(root, recovered, base), PENDING: b""})
            journal.sync()
    with Session.write(root, recovered, options) as session:
        return session.commit(CommitOptions(message=message, produced_by=produced_by))


def _base(root: Root, volume: str, said: dict[str, str]) -> Manifest | None:
    """The version the changes lie over; the one that was being published, where that has happened."""
    if not root.has_volume(volume):
        return None
    # The newer of the two: what an earlier commit has published is older than what the records lie over.
    for found in walk_history(root, root.head(volume)):
        if found.id in (said[PENDING], said[BASE]):
            return found
    if said[BASE]:
        raise NoSuchVersion(
            f"the changes of {volume} lie over version {said[BASE]}, which is not in its history any more",
            hint="a version that has been pruned cannot be gone back to",
        )
    return None


def _renumbered(records: Mapping[bytes, bytes | None], first: int) -> dict[bytes, bytes | None]:
    """Gives the inodes that are new in a journal other numbers: whoever has published since has used theirs.

    Two files of one number would be taken for one by a merge.
    """
    step = advanced(first) - first

    def moved(ino: int) -> int:
        return ino + step if ino >= first else ino

    found: dict[bytes, bytes | None] = {}
    for key, value in records.items():
        kind = key[:1]
        if kind == SUPERBLOCK:
            if value is not None:
                counters = Superblock.decode(value)
                value = msgspec.structs.replace(counters, next_ino=moved(max(counters.next_ino, first))).encode()
            found[key] = value
            continue
        if value is not None and kind == INODE:
            inode = InodeRecord.decode(value)
            value = msgspec.structs.replace(inode, parent=moved(inode.parent)).encode()
        elif value is not None and kind == ENTRY:
            entry = EntryRecord.decode(value)
            value = msgspec.structs.replace(entry, ino=moved(entry.ino)).encode()
        found[kind + moved(inode_of(key)).to_bytes(8, "big") + key[9:]] = value
    return found


def _fork(root: Root, recovered: str, base: Manifest | None) -> None:
    if root.has_volume(recovered):
        # An earlier try may have come as far as this, but no further.
        if base is None or root.head(recovered) != base.name:
            raise RootInUse(f"there is a volume {recovered!r} already", hint="choose another name")
    elif base is not None:
        root.set_head(recovered, base.name, None)
