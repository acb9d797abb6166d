"""What is open in this process: roots with their credentials, and volumes with their sessions.

Volumes themselves are plain values, which travel; what cannot travel is kept here, by root and name.  A forked child
begins with nothing open, whatever its parent had.  When the process ends, what is still open is closed, and leaves its
uncommitted changes in its journal.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from attrs import define, field, frozen

from datastore.errors import StoreError
from datastore.events import get_logger
from stowstore.chunks.encryption import Encryption, KeySource
from stowstore.config import ContainerPolicy, Measuring
from stowstore.versions.address import normal_root, open_root
from stowstore.versions.errors import VolumeError
from stowstore.versions.root import MADE_ON_DEMAND, Root, RootFormat
from stowstore.versions.session import Session
from stowstore.volumes.files import Files

__all__ = ["Key", "OpenOptions", "OpenVolume", "Registry", "registry"]

_log = get_logger(part="volume")

#: How many roots on local disk are kept open for whoever asks next.
_MAX_LOCAL_ROOTS: Final = 64


@frozen
class Key:
    """A volume that may be open: its root, its name, and of a version its id."""

    root: str
    volume: str
    version: str | None = None


@frozen(kw_only=True)
class OpenOptions:
    """How a volume was opened, so that opening it again can be held against it."""

    meta_dir: Path | None = None
    cache_dir: Path | None = None
    read_only: bool = False
    upload_delay: float = 0.0
    max_uploads: int = 50


@define(eq=False)
class OpenVolume:
    """An open volume: its session, which a merge replaces, and its files."""

    key: Key
    options: OpenOptions
    session: Session
    files: Files


@frozen
class _Access:
    """What a root needs beside its URL."""

    options: Mapping[str, str] = field(factory=dict, repr=False)
    key: KeySource | None = field(default=None, repr=False)


@define(eq=False)
class _State:
    opened: dict[Key, OpenVolume] = field(factory=dict)
    #: What became of volumes that were open, and the newest version they left.
    ended: dict[Key, tuple[str, str | None]] = field(factory=dict)
    roots: dict[tuple[str, str | None], Root] = field(factory=dict)
    #: Where volumes are mounted by daemons of this process, and whether for reading.
    mounts: dict[Key, dict[Path, bool]] = field(factory=dict)
    #: Volumes whose journals hold, or may hold, what this process has written and nobody has published.
    uncommitted: set[Key] = field(factory=set)
    lock: threading.Lock = field(factory=threading.Lock)
    locks: dict[Key, threading.RLock] = field(factory=dict)


class Registry:
    """The roots and volumes of this process; thread-safe."""

    def __init__(self) -> None:
        #: Whether the stores of roots that are opened from now on count what they do.
        self.measuring = Measuring.ALWAYS
        self._state = _State()
        self._access: dict[str, _Access] = {}
        self._meta_dirs: dict[Key, Path] = {}
        # Never collected: in a forked child the sessions of its parent are not ours to end.
        self._inherited: list[_State] = []

    # -- roots -------------------------------------------------------------------------------------------------------

    def configure(self, root: str, options: Mapping[str, str] | None, key: KeySource | None) -> None:
        """Says what a root needs that its URL must not hold; replaces what was said before."""
        root = normal_root(root)
        with self._state.lock:
            self._access[root] = _Access(dict(options or {}), key)
            for known in [known for known in self._state.roots if known[0] == root]:
                del self._state.roots[known]

    def options_of(self, root: str) -> Mapping[str, str]:
        """What a root was configured with beside its URL."""
        return self._access.get(root, _Access()).options

    def key_source(self, root: str) -> KeySource | None:
        """The key of an encrypted root, where one was given."""
        return self._access.get(root, _Access()).key

    def root(self, url: str, region: str | None = None, *, create: bool = False) -> Root:
        """The root at a URL, opened once a process; made where there is nothing and ``create`` is set.

        Raises:
            NoSuchVolume: there is none.
            RootInUse: something else lies there.
        """
        state = self._state
        known = state.roots.get((url, region))
        if known is not None:
            return known
        access = self._access.get(url, _Access())
        options = dict(access.options)
        if region is not None:
            options.setdefault("region", region)
        scheme = url.partition("://")[0]
        policy = ContainerPolicy.IF_MISSING if create and scheme in MADE_ON_DEMAND else ContainerPolicy.NEVER
        form = None
        if create:
            form = RootFormat()
            if access.key is not None:
                form = RootFormat(encryption=Encryption.create(access.key)[0].to_data())
        found = open_root(url, options=options, containers=policy, create=form, measuring=self.measuring)
        with state.lock:
            kept = state.roots.setdefault((url, region), found)
            local = [name for name in state.roots if name[0].startswith("file:")]
            for name in local[:-_MAX_LOCAL_ROOTS]:
                # Whoever uses it has it; a process that sees many roots must not keep descriptors of them all.
                del state.roots[name]
            return kept

    # -- volumes -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def changing(self, key: Key) -> Iterator[None]:
        """Held while a volume is opened, closed or exchanged."""
        state = self._state
        with state.lock:
            lock = state.locks.setdefault(key, threading.RLock())
        with lock:
            yield

    def find(self, key: Key) -> OpenVolume | None:
        """A volume, if it is open in this process."""
        return self._state.opened.get(key)

    def require(self, key: Key) -> OpenVolume:
        """A volume that has to be open.

        Raises:
            VolumeError: it is not; the message says what became of it.
        """
        found = self._state.opened.get(key)
        if found is None:
            became, _ = self._state.ended.get(key, ("was not opened in this process", None))
            hint = "unmount it first" if key in self._state.mounts else "open it with `await volume.open()`"
            raise VolumeError(f"volume {key.volume!r} {became}", hint=hint)
        return found

    def add(self, opened: OpenVolume) -> None:
        """Takes up a volume that has been opened."""
        with self._state.lock:
            self._state.opened[opened.key] = opened
            if not opened.session.read_only:
                self._state.uncommitted.discard(opened.key)

    def remove(self, key: Key, became: str, locator: str | None) -> OpenVolume | None:
        """Takes out a volume that is about to be closed, remembering what became of it."""
        with self._state.lock:
            self._state.ended[key] = (became, locator)
            return self._state.opened.pop(key, None)

    def note_mount(self, key: Key, path: Path, locator: str | None, *, read_only: bool) -> None:
        """Says that a daemon serves a volume at a path."""
        with self._state.lock:
            self._state.mounts.setdefault(key, {})[path] = read_only
            if not read_only:
                self._state.uncommitted.discard(key)
            self._state.ended[key] = (f"is mounted at {path}, where its files are", locator)

    def note_version(self, key: Key, locator: str) -> None:
        """Says that a mounted volume has a newer version."""
        with self._state.lock:
            became, _ = self._state.ended.get(key, ("", None))
            self._state.ended[key] = (became, locator)

    def note_unmount(self, key: Key, path: Path, became: str) -> None:
        """Says that a volume is mounted at a path no more."""
        with self._state.lock:
            left = self._state.mounts.get(key, {})
            left.pop(path, None)
            if left:
                became = f"is mounted at {next(iter(left))}, where its files are"
            else:
                self._state.mounts.pop(key, None)
            self._state.ended[key] = (became, self._state.ended.get(key, ("", None))[1])

    def note_uncommitted(self, key: Key) -> None:
        """Says that the journal of a volume holds, or may hold, what nobody has published."""
        with self._state.lock:
            self._state.uncommitted.add(key)

    def may_be_uncommitted(self, key: Key) -> bool:
        """Whether this process has left something in the journal of a volume that is not open any more."""
        return key in self._state.uncommitted

    def mounts_of(self, key: Key) -> dict[Path, bool]:
        """Where a volume is mounted by this process, the one that is written first, and whether for reading."""
        with self._state.lock:
            return dict(sorted(self._state.mounts.get(key, {}).items(), key=lambda mounted: mounted[1]))

    def mount_of(self, key: Key) -> Path | None:
        """Where a volume is mounted by this process, for writing where it is."""
        return next(iter(self.mounts_of(key)), None)

    def is_mounted_to_read(self, key: Key) -> bool:
        """Whether this process has mounted a volume, and everywhere for reading only."""
        mounted = self.mounts_of(key)
        return bool(mounted) and all(mounted.values())

    def was_open(self, key: Key) -> bool:
        """Whether a volume is open in this process, or was."""
        return key in self._state.opened or key in self._state.ended

    def last_locator(self, key: Key) -> str | None:
        """The newest version of a volume that was open here when it was closed."""
        return self._state.ended.get(key, ("", None))[1]

    def prefer_meta_dir(self, key: Key, meta_dir: Path) -> None:
        """Says where the journal of a volume goes when it is opened without saying so."""
        self._meta_dirs[key] = meta_dir

    def preferred_meta_dir(self, key: Key) -> Path | None:
        return self._meta_dirs.get(key)

    def close_all(self) -> None:
        """Closes everything; what is not committed stays in the journals."""
        state = self._state
        for key, opened in list(state.opened.items()):
            self.remove(key, "was closed when the process ended", None)
            try:
                opened.session.close()
            except (OSError, StoreError, RuntimeError) as error:
                _log.warning("volume.not_closed", volume=key.volume, root=key.root, error=str(error))

    def start_over(self) -> None:
        """Forgets what a parent process has open, without touching it."""
        self._inherited.append(self._state)
        self._state = _State()


registry: Final = Registry()

atexit.register(registry.close_all)
os.register_at_fork(after_in_child=registry.start_over)
