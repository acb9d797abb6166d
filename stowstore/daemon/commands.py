"""What a daemon can be told to do."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from attrs import asdict

from datastore.errors import ConfigError, StoreError
from stowstore.daemon.hosting import Hosted
from stowstore.daemon.mounted import Mounted
from stowstore.index.diff import diff_snapshots
from stowstore.index.keys import ENTRY, INODE, inode_of, name_of
from stowstore.namespace.largest import largest_directories
from stowstore.namespace.permissions import ROOT
from stowstore.versions.address import VolumeAddress
from stowstore.versions.errors import VolumeError
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.options import CommitOptions

__all__ = ["Commands"]

#: How long the last commit asks for an unmount before it detaches the mount, seconds.
_FINAL_PATIENCE: Final = 0.5

#: How long an unmount waits for programs to be done, seconds: the kernel may still be closing files of some that ended.
_BUSY_PATIENCE: Final = 2.0

_WARM_BYTES: Final = 8 << 20


class Commands:
    """Called with the name of a command and its arguments; thread-safe."""

    def __init__(self, mounted: Mounted, hosted: Hosted | None = None) -> None:
        self._mounted = mounted
        self._hosted = hosted
        self._publishing = threading.Lock()

    def wait(self) -> None:
        """Returns when nothing is being published."""
        with self._publishing:
            pass

    def __call__(self, do: str, arguments: dict[str, Any]) -> dict[str, Any]:
        command: Callable[..., dict[str, Any]] | None = getattr(self, f"_do_{do}", None)
        if command is None:
            raise ConfigError(f"a mount knows no {do!r}", hint="the daemon may be of an older release")
        return command(**arguments)

    def _do_ping(self) -> dict[str, Any]:
        return {"pid": os.getpid()}

    def _do_commit(
        self, message: str | None = None, produced_by: Any = None, parent_produced_by: Any = None
    ) -> dict[str, Any]:
        """Publishes the present state, what the kernel still keeps included; writers go on."""
        self._require_writable()
        with self._publishing:
            self._mounted.settle()
            options = CommitOptions(message=message, produced_by=produced_by, parent_produced_by=parent_produced_by)
            return self._published(self._mounted.session.commit(options))

    def _do_finalize(
        self, message: str | None = None, produced_by: Any = None, parent_produced_by: Any = None
    ) -> dict[str, Any]:
        """Unmounts, so that nobody writes any more, and publishes; what fails to be published is in the journal."""
        self._require_writable()
        with self._publishing:
            self._mounted.settle()
            # Files that are open do not keep the version waiting.
            threading.Thread(target=self._mounted.unmount, args=(_FINAL_PATIENCE,), daemon=True).start()
            self._mounted.await_quiet()
            options = CommitOptions(message=message, produced_by=produced_by, parent_produced_by=parent_produced_by)
            published = self._published(self._mounted.session.commit(options))
            # What would still be written now is in no version.
            threading.Thread(target=self._mounted.cut_off, daemon=True).start()
            return published

    def _do_fork(self, name: str, produced_by: Any = None, parent_produced_by: Any = None) -> dict[str, Any]:
        """Another volume of the present state."""
        with self._publishing:
            self._mounted.settle()
            options = CommitOptions(produced_by=produced_by, parent_produced_by=parent_produced_by)
            version = self._mounted.session.branch(name, options)
        return {"locator": self._locator(version)}

    def _do_resize(self, limit_bytes: int, limit_inodes: int = 0) -> dict[str, Any]:
        """Sets what a volume with limits may hold, at once; refuses less than it holds."""
        if self._hosted is None:
            raise VolumeError("the limits of this mount are not kept by its daemon", hint="resize the named volume")
        return self._hosted.resize(limit_bytes, limit_inodes)

    def _do_usage(self) -> dict[str, Any]:
        """What the volume holds, exactly and at once."""
        used, inodes = self._mounted.session.files.usage()
        return {"used_bytes": used, "inodes": inodes, "changed_inodes": self._changed()}

    def _do_largest(self, count: int = 10) -> dict[str, Any]:
        """The directories that hold most, from the index."""
        found = largest_directories(self._mounted.session.files, count)
        return {
            "directories": [{"path": os.fsdecode(one.path), "bytes": one.size, "files": one.files} for one in found]
        }

    def _do_unmount(self) -> dict[str, Any]:
        """Takes the mount away, from programs that work in it too."""
        self._require_journal()
        threading.Thread(target=self._mounted.unmount, daemon=True).start()
        return {}

    def _do_unmount_unused(self) -> dict[str, Any]:
        """Takes the mount away unless programs work in it."""
        self._require_journal()
        end = time.monotonic() + _BUSY_PATIENCE
        while not self._mounted.unmount_if_unused():
            if time.monotonic() >= end:
                path = self._mounted.path
                raise VolumeError(
                    f"{path} is busy: programs have files open there, or are in it",
                    hint=f"`fuser -vm {path}` says which; `stowstore umount --lazy` takes it away from them",
                )
            time.sleep(0.05)
        return {}

    def _do_stats(self) -> dict[str, Any]:
        """Everything there is to know of the mount now."""
        session = self._mounted.session
        files = session.files
        used, inodes = files.usage()
        served = self._mounted.server.statistics
        memory = session.chunks.memory
        return {
            "path": str(self._mounted.path),
            "volume": f"{self._mounted.volume.bucket}#{self._mounted.volume.name}",
            "base": None if session.base is None else self._locator(session.base.name),
            "read_only": session.read_only,
            "pid": os.getpid(),
            "up_seconds": round(time.time() - self._mounted.since, 3),
            "used_bytes": used,
            "inodes": inodes,
            "changed_inodes": self._changed(),
            "open_handles": files.open_handles,
            "staged_bytes": files.content.staged_bytes,
            "requests": served.requests,
            "failures": served.failures,
            "handed_over": served.handed_over,
            "in_workers": served.in_workers,
            "read_bytes": served.read_bytes,
            "written_bytes": served.written_bytes,
            "reader": asdict(session.chunks.reader.stats),
            "read_ahead": self._mounted.read_ahead,
            "passthrough": asdict(self._mounted.passthrough),
            "memory_cache": None if memory is None else asdict(memory.stats),
        }

    def _do_warmup(self, paths: list[str] | None = None) -> dict[str, Any]:
        """Reads files into the caches of the daemon; without paths all of the volume."""
        counted = [0, 0]
        files = self._mounted.session.files
        for ino in self._found(paths or ["/"]):
            self._warm(files, ino, counted)
        return {"files": counted[0], "bytes": counted[1]}

    def _do_refresh(self) -> dict[str, Any]:
        """Moves a mount that only reads to the newest version of its volume, and tells the kernel what differs."""
        mounted = self._mounted
        session = mounted.session
        if not session.read_only or session.base is None:
            raise VolumeError("only a mount that reads can move to another version", hint="mount it with read_only")
        with self._publishing:
            head = session.root.head(session.volume)
            if head == session.base.name:
                return {"locator": self._locator(head), "changed": 0}
            newer = session.at(head)
            old, new = session.files.snapshot, newer.files.snapshot
            changed = list(diff_snapshots(old, new))
            mounted.replace(newer)
            notify = mounted.server.notify
            for key, _, _ in changed:
                if key[:1] == ENTRY:
                    notify.entry_changed(inode_of(key), name_of(key))
                elif key[:1] == INODE:
                    notify.inode_changed(inode_of(key))
        return {"locator": self._locator(head), "changed": len(changed)}

    def _changed(self) -> int:
        session = self._mounted.session
        return 0 if session.read_only else session.files.changed_inodes

    def _require_writable(self) -> None:
        if self._mounted.session.read_only:
            raise VolumeError(f"{self._mounted.path} is mounted for reading only", hint="fork it, and write the fork")

    def _require_journal(self) -> None:
        """Raises where what is not committed would end with the mount."""
        journal = self._mounted.session.files.journal
        if journal is None or self._changed() == 0:
            return
        try:
            journal.write()
        except (OSError, StoreError) as error:
            path = self._mounted.path
            raise VolumeError(
                f"{path} stays mounted: what is not committed cannot be written to its journal: {error}",
                hint=f"make room, or copy it elsewhere; `stowstore umount --force {path}` gives it up",
            ) from error

    def _published(self, manifest: Manifest) -> dict[str, Any]:
        return {"locator": self._locator(manifest.name)}

    def _locator(self, version: VersionName) -> str:
        return str(VolumeAddress.locator(self._mounted.volume.bucket, version.volume, version))

    def _found(self, paths: list[str]) -> list[int]:
        files = self._mounted.session.files
        found: list[int] = []
        for path in paths:
            ino = 1
            for name in os.fsencode(path).split(b"/"):
                if name:
                    at = files.find(ino, name)
                    if at is None:
                        raise FileNotFoundError(2, f"No such file or directory: {path}")
                    files.forget(at.ino)
                    ino = at.ino
            found.append(ino)
        return found

    def _warm(self, files: Any, ino: int, counted: list[int]) -> None:
        waiting = [ino]
        while waiting:
            ino = waiting.pop()
            about = files.getattr(ino)
            if stat.S_ISDIR(about.mode):
                handle = files.opendir(ino, ROOT)
                try:
                    cookie = 0
                    while entries := files.readdir(handle, cookie):
                        cookie = entries[-1].cookie
                        waiting += [entry.ino for entry in entries if entry.name not in (b".", b"..")]
                finally:
                    files.releasedir(handle)
            elif stat.S_ISREG(about.mode):
                counted[0] += 1
                counted[1] += about.size
                passthrough = self._mounted.server.passthrough
                if passthrough is not None and passthrough.keep(files, ino):
                    continue
                handle = files.open(ino, os.O_RDONLY, ROOT)
                try:
                    for offset in range(0, about.size, _WARM_BYTES):
                        files.read(handle, offset, _WARM_BYTES)
                finally:
                    files.release(handle)
