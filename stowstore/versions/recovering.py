"""Recovering a stranded journal: changes over a version that somebody else has published past.

They cannot be laid over the newest version, which knows nothing of them; so they become a volume of their own, forked
where they began, that can be merged like any other fork.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from stowstore.namespace.metastore import choose_kind, open_metastore
from stowstore.versions.errors import NoSuchVersion, RootInUse, VolumeError
from stowstore.versions.history import walk_history
from stowstore.versions.journals import BASE, PENDING, has_changes, journal_name
from stowstore.versions.manifest import Manifest
from stowstore.versions.root import Root, check_volume_name
from stowstore.versions.session import CommitOptions, Session, SessionOptions

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
        said = {key: (journal.get_meta(key) or b"").decode() for key in ("root", "volume", BASE, PENDING)}
        if said["root"] != str(root.base) or said["volume"] not in (volume, recovered):
            raise VolumeError(
                f"the journal in {meta_dir} is of {said['volume'] or 'nothing'} in {said['root'] or 'no root'}, "
                f"not of {volume} in {root.base}",
                hint="name the volume it is of, or another meta_dir",
            )
        if not has_changes(journal):
            raise VolumeError(f"the journal in {meta_dir} holds no changes", hint="there is nothing to recover")
        base = _base(root, volume, said)
        _fork(root, recovered, base)
        for key, value in (*journal_name(root, recovered, base).items(), (PENDING, b"")):
            journal.set_meta(key, value)
        journal.sync()
    with Session.write(root, recovered, options) as session:
        return session.commit(CommitOptions(message=message, produced_by=produced_by))


def _base(root: Root, volume: str, said: dict[str, str]) -> Manifest | None:
    """The version the changes lie over; the one that was being published, where that has happened."""
    if not root.has_volume(volume):
        return None
    for wanted in filter(None, (said[PENDING], said[BASE])):
        for found in walk_history(root, root.head(volume)):
            if found.id == wanted:
                return found
    if said[BASE]:
        raise NoSuchVersion(
            f"the changes of {volume} lie over version {said[BASE]}, which is not in its history any more",
            hint="a version that has been pruned cannot be gone back to",
        )
    return None


def _fork(root: Root, recovered: str, base: Manifest | None) -> None:
    if root.has_volume(recovered):
        # An earlier try may have come as far as this, but no further.
        if base is None or root.head(recovered) != base.name:
            raise RootInUse(f"there is a volume {recovered!r} already", hint="choose another name")
    elif base is not None:
        root.set_head(recovered, base.name, None)
