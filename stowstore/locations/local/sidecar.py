"""What a file cannot keep: user metadata and content headers, in small files beside the containers.

A sidecar holds, for one key, what belongs to each of the versions it may meet: the one being written and the one it
replaces.  It is written first and every version carries its own identity, so whichever of the two a reader finds, or
a crash leaves, it finds what belongs to it; and a file another program wrote in its place finds nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import field, frozen

from datastore.model import Metadata, WriteOptions
from stowstore.locations.local.area import AREA, Identity, WriteArea, etag_of, identity_of
from stowstore.locations.local.paths import DIRECTORY, READ, READABLE_DIRECTORY, Root, split_path

__all__ = ["Description", "Sidecars", "describe"]


@frozen(kw_only=True)
class Description:
    """What is kept of an object beside its bytes."""

    user_metadata: Mapping[str, str] = field(factory=dict)
    content_type: str | None = None
    cache_control: str | None = None
    content_encoding: str | None = None
    content_disposition: str | None = None

    @classmethod
    def of(cls, options: WriteOptions) -> Description | None:
        """What these options ask to keep, or None when it is nothing."""
        made = cls(
            user_metadata=dict(options.metadata),
            content_type=options.content_type,
            cache_control=options.cache_control,
            content_encoding=options.content_encoding,
            content_disposition=options.content_disposition,
        )
        return made if made != _NOTHING else None


_NOTHING = Description()
_HEADERS = ("content_type", "cache_control", "content_encoding", "content_disposition")


def describe(status: os.stat_result, kept: Description | None = None) -> Metadata:
    """The metadata of a file and what is kept beside it."""
    kept = kept or _NOTHING
    return Metadata(
        exists=True,
        size=status.st_size,
        etag=etag_of(identity_of(status)),
        last_modified=datetime.fromtimestamp(status.st_mtime, UTC),
        user_metadata=kept.user_metadata,
        content_type=kept.content_type,
        cache_control=kept.cache_control,
        content_encoding=kept.content_encoding,
        content_disposition=kept.content_disposition,
    )


class Sidecars:
    """The sidecars of one container; thread-safe, writers hold the exclusive lock of the key."""

    def __init__(self, container: bytes) -> None:
        self._container = container
        self._directory = AREA + b"/meta/" + container
        self._known = False

    def any(self, root: Root) -> bool:
        """Whether anything was ever kept in this container; cheap, as every read asks."""
        if not self._known:
            self._known = os.access(self._directory, os.F_OK, dir_fd=root.fd)
        return self._known

    def load(self, root: Root, key: bytes, identity: Identity) -> Description | None:
        """What belongs to this very version."""
        return self._versions(root, key).get(identity)

    def save(
        self,
        root: Root,
        area: WriteArea,
        key: bytes,
        added: tuple[Identity, Description],
        *,
        kept: Identity | None,
        sync: bool,
    ) -> None:
        """Keeps a description for the version about to appear, beside that of the version there is."""
        versions = {}
        if kept is not None and (known := self._versions(root, key).get(kept)) is not None:
            versions[kept] = known
        versions[added[0]] = added[1]
        path = self._path(key)
        directory, name = split_path(path)
        draft = area.draft()
        try:
            draft.write(_encode(key, versions))
            draft.finish(sync=sync)
            try:
                fd = root.open(directory, READABLE_DIRECTORY)
            except FileNotFoundError:
                area.make_directory(directory.removeprefix(AREA + b"/"))
                fd = root.open(directory, READABLE_DIRECTORY)
            try:
                os.rename(draft.name, name, src_dir_fd=draft.directory_fd, dst_dir_fd=fd)
                if sync:
                    os.fsync(fd)
            finally:
                os.close(fd)
        except BaseException:
            draft.discard()
            raise

    def remove(self, root: Root, key: bytes) -> None:
        """Forgets everything about a key."""
        if self.any(root):
            directory, name = split_path(self._path(key))
            try:
                fd = root.open(directory, DIRECTORY)
                try:
                    os.unlink(name, dir_fd=fd)
                finally:
                    os.close(fd)
            except FileNotFoundError:
                pass

    def remove_all(self, root: Root) -> None:
        """Forgets everything about the container."""
        if not os.access(self._directory, os.F_OK, dir_fd=root.fd):
            return
        top = root.open(self._directory, READABLE_DIRECTORY)
        try:
            for _, directories, files, fd in os.fwalk(b".", topdown=False, dir_fd=top):
                for name in files:
                    os.unlink(name, dir_fd=fd)
                for name in directories:
                    os.rmdir(name, dir_fd=fd)
        finally:
            os.close(top)
        os.rmdir(self._directory, dir_fd=root.fd)
        self._known = False

    def _path(self, key: bytes) -> bytes:
        digest = hashlib.blake2b(key, digest_size=20).hexdigest().encode()
        return b"%s/%s/%s" % (self._directory, digest[:2], digest[2:])

    def _versions(self, root: Root, key: bytes) -> dict[Identity, Description]:
        try:
            fd = root.open(self._path(key), READ)
        except FileNotFoundError:
            return {}
        with open(fd, "rb") as file:
            return _decode(key, file.read())


def _encode(key: bytes, versions: Mapping[Identity, Description]) -> bytes:
    listed = []
    for identity, kept in versions.items():
        entry: dict[str, Any] = {name: text for name in _HEADERS if (text := getattr(kept, name)) is not None}
        if kept.user_metadata:
            entry["metadata"] = dict(kept.user_metadata)
        listed.append({"file": identity, **entry})
    return json.dumps({"key": key.decode(), "versions": listed}).encode()


def _decode(key: bytes, text: bytes) -> dict[Identity, Description]:
    """The versions in a sidecar; one that a crash of the machine damaged holds none, the objects stay readable."""
    found: dict[Identity, Description] = {}
    try:
        content = json.loads(text)
        if content["key"] != key.decode():
            return {}
        for entry in content["versions"]:
            inode, modified, size = (int(number) for number in entry["file"])
            found[inode, modified, size] = Description(
                user_metadata={str(name): str(value) for name, value in entry.get("metadata", {}).items()},
                **{name: str(entry[name]) for name in _HEADERS if name in entry},
            )
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return found
