"""Roots: where volumes live in a store, and how their versions, names and tags are kept there.

::

    <root>/format.json                      what the root is made of; written once
    <root>/packs/, <root>/index/            blocks of files, and of the index
    <root>/versions/<volume>/<version id>   manifests
    <root>/refs/<volume>/head               the newest version
    <root>/refs/<volume>/tags/<tag>         versions that have a name
    <root>/leases/<volume>                  who writes

Everything but references and leases is immutable; a reference is replaced whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from attrs import field, frozen

from datastore.errors import (
    AlreadyExists,
    InvalidReference,
    LimitExceeded,
    NoSuchContainer,
    NotFound,
    PreconditionFailed,
    StoreError,
)
from datastore.model import Feature, WriteOptions
from datastore.protocol import Store
from datastore.reference import DataReference
from stowstore.versions.errors import CorruptManifest, FormatTooNew, NoSuchVersion, NoSuchVolume, RootInUse
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.ulid import is_ulid

__all__ = ["FORMAT_VERSION", "HEAD", "MADE_ON_DEMAND", "Root", "RootFormat", "check_volume_name"]

FORMAT_VERSION: Final = 1

#: The reference every volume has once it was committed.
HEAD: Final = "head"

#: Schemes whose containers are made with the first root in them; a mistyped bucket of a cloud must not become one.
MADE_ON_DEMAND: Final = ("file", "mem")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SMALL = 1 << 20


def check_volume_name(name: str, what: str = "volume") -> str:
    """A name of a volume or tag, if it can be one: letters, digits, ``.``, ``-`` and ``_``, at most 100.

    Raises:
        InvalidReference: it cannot.
    """
    if not _NAME.fullmatch(name) or name.endswith("."):
        raise InvalidReference(
            f"{name!r} is no name of a {what}",
            reason="bad_name",
            hint="use up to 100 letters, digits, '.', '-' and '_', a letter or digit first",
        )
    return name


@frozen(kw_only=True)
class RootFormat:
    """What a root is made of; the same for all volumes in it, for good.  Holds no secret."""

    version: int = FORMAT_VERSION
    hash: str = "blake3"
    block_bytes: int = 4 << 20
    compression: str = "zstd"
    encryption: Mapping[str, Any] | None = field(default=None)

    def encode(self) -> bytes:
        data = {
            "format": "stowstore-volumes",
            "version": self.version,
            "hash": self.hash,
            "block_bytes": self.block_bytes,
            "compression": self.compression,
            "encryption": None if self.encryption is None else dict(self.encryption),
        }
        return json.dumps(data, sort_keys=True, indent=1).encode()

    @classmethod
    def decode(cls, raw: bytes) -> RootFormat:
        """Reads ``format.json``.

        Raises:
            FormatTooNew: a newer release made the root.
            CorruptManifest: it is damaged.
        """
        try:
            data = json.loads(raw)
            if data["format"] != "stowstore-volumes":
                raise CorruptManifest("format.json is not of a root of volumes")
            if int(data["version"]) > FORMAT_VERSION:
                raise FormatTooNew(
                    f"the root has format {data['version']}, this release reads up to {FORMAT_VERSION}",
                    hint="use a newer release of stowstore",
                )
            found = cls(
                version=int(data["version"]),
                hash=str(data["hash"]),
                block_bytes=int(data["block_bytes"]),
                compression=str(data["compression"]),
                encryption=data["encryption"],
            )
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise CorruptManifest("format.json is damaged") from error
        if found.hash != "blake3" or found.compression not in ("zstd", "none"):
            raise FormatTooNew(f"the root uses {found.hash} and {found.compression}, which this release does not know")
        return found


class Root:
    """A root of volumes in a store; thread-safe.

    ``base`` is the prefix everything lies below, or a container.  ``address`` is what errors and journals call the
    root: the base, unless there is a way to say more, as of a directory, whose base is only its last part.
    """

    def __init__(self, store: Store, base: DataReference, form: RootFormat, *, address: str | None = None) -> None:
        self.store = store
        self.base = base
        self.format = form
        self.address = address or str(base)
        #: Heads of new volumes that were sent and not answered: what lies there may be what this process has written.
        self._unanswered: dict[str, VersionName] = {}

    @classmethod
    def create(
        cls, store: Store, base: DataReference, form: RootFormat | None = None, *, address: str | None = None
    ) -> Root:
        """Makes a root at a prefix that holds nothing else.

        Raises:
            RootInUse: something lies there already, a root or anything else.
        """
        refs, _ = store.list(base, 1, directory=bool(base.key))
        if refs:
            raise RootInUse(
                f"{address or base} is not empty: {refs[0].key or refs[0]} lies there",
                hint="choose another prefix",
                reference=str(base),
            )
        form = form or RootFormat()
        content = form.encode()
        able = Feature.CREATE_IF_ABSENT in store.capabilities(base)
        try:
            store.write_raw(base.join("format.json"), len(content), WriteOptions(if_absent=able), content)
        except AlreadyExists as error:
            raise RootInUse(f"{address or base} has just become a root", reference=str(base)) from error
        return cls(store, base, form, address=address)

    @classmethod
    def open(cls, store: Store, base: DataReference, *, address: str | None = None) -> Root:
        """Opens the root at a prefix.

        Raises:
            NoSuchVolume: there is none.
            FormatTooNew: a newer release made it.
        """
        try:
            form = RootFormat.decode(_read(store, base.join("format.json")))
        except NotFound as error:
            if isinstance(error, NoSuchContainer) and base.scheme not in MADE_ON_DEMAND:
                raise NoSuchVolume(
                    f"{address or base} is no root of volumes: there is no container {base.container}",
                    hint=f"mend the name or the endpoint, or make it: stowstore mb {base.scheme}://{base.container}",
                ) from error
            raise NoSuchVolume(
                f"{address or base} is no root of volumes, it has no format.json", hint="create a volume there first"
            ) from error
        return cls(store, base, form, address=address)

    @classmethod
    def open_or_create(
        cls, store: Store, base: DataReference, form: RootFormat | None = None, *, address: str | None = None
    ) -> Root:
        """Opens the root at a prefix, or makes one where there is nothing."""
        try:
            return cls.open(store, base, address=address)
        except NoSuchVolume:
            try:
                return cls.create(store, base, form, address=address)
            except RootInUse as error:
                # Another process may have made it between the two looks.
                try:
                    return cls.open(store, base, address=address)
                except NoSuchVolume:
                    raise error from None

    def lease_reference(self, volume: str) -> DataReference:
        """Where the lease of a volume lies."""
        return self.base.join("leases", check_volume_name(volume))

    def volumes(self) -> list[str]:
        """The names of the volumes that have a version, ascending."""
        page = self.store.list_page(self.base.join("refs"), delimiter="/", directory=True)
        names = [prefix.name for prefix in page.prefixes]
        while not page.cursor.is_at_end:
            page = self.store.list_page(self.base.join("refs"), None, page.cursor, delimiter="/", directory=True)
            names += [prefix.name for prefix in page.prefixes]
        return names

    def has_volume(self, volume: str) -> bool:
        """Whether a volume has a version."""
        return self.store.head(self._ref(volume, HEAD)).exists

    def head(self, volume: str) -> VersionName:
        """The newest version of a volume.

        Raises:
            NoSuchVolume: there is no such volume.
        """
        try:
            return self._read_ref(volume, HEAD)
        except NotFound as error:
            raise NoSuchVolume(
                f"there is no volume {volume!r} in {self.address}", hint="list volumes to see which"
            ) from error

    def resolve(self, volume: str, version: str | None = None) -> VersionName:
        """The version a person means: an id, the beginning of one, a tag, or the head for None.

        Raises:
            NoSuchVolume, NoSuchVersion: there is none, or several begin so.
        """
        if version is None or version == HEAD:
            return self.head(volume)
        if is_ulid(version):
            return self.manifest(volume, version).name
        try:
            return self._read_ref(volume, f"tags/{check_volume_name(version, 'tag')}")
        except NotFound:
            pass
        found = [identity for identity in self.version_ids(volume) if identity.startswith(version.upper())]
        if len(found) == 1:
            return self.manifest(volume, found[0]).name
        self.head(volume)
        how = "several versions begin so" if found else "no version or tag is called so"
        raise NoSuchVersion(f"{volume}@{version}: {how}", hint="see the log of the volume")

    def manifest(self, volume: str, version: str, *, digest: str | None = None) -> Manifest:
        """Reads the manifest of a version, held against its digest where one is known.

        Raises:
            NoSuchVersion: there is none.
            CorruptManifest: it is damaged, or another one.
        """
        reference = self.base.join("versions", check_volume_name(volume), version)
        try:
            found = Manifest.decode(_read(self.store, reference), digest=digest)
        except NotFound as error:
            raise NoSuchVersion(f"{volume} has no version {version}", hint="it may have been pruned") from error
        except (CorruptManifest, LimitExceeded) as error:
            raise CorruptManifest(
                f"{volume}@{version}: {error.message}", hint=error.hint, reference=str(reference)
            ) from error
        if (found.volume, found.id) != (volume, version):
            raise CorruptManifest(f"the manifest of {volume}@{version} is that of {found.volume}@{found.id}")
        return found

    def load(self, name: VersionName) -> Manifest:
        """The manifest of a version whose digest is known."""
        return self.manifest(name.volume, name.id, digest=name.digest)

    def write_manifest(self, manifest: Manifest) -> VersionName:
        """Publishes a version; everything it names must be in the store already."""
        content = manifest.encode()
        reference = self.base.join("versions", check_volume_name(manifest.volume), manifest.id)
        able = Feature.CREATE_IF_ABSENT in self.store.capabilities(reference)
        self.store.write_raw(reference, len(content), WriteOptions(if_absent=able), content)
        return manifest.name

    def version_ids(self, volume: str) -> Iterator[str]:
        """The ids of a volume's versions, oldest first."""
        prefix = self.base.join("versions", check_volume_name(volume))
        for entry in self.store.walk(prefix, directory=True):
            if is_ulid(entry.reference.name):
                yield entry.reference.name

    def delete_version(self, volume: str, version: str) -> None:
        """Removes a manifest; what only it named becomes garbage."""
        self.store.delete(self.base.join("versions", check_volume_name(volume), version))

    def set_head(self, volume: str, name: VersionName, expected: VersionName | None) -> None:
        """Moves the head of a volume, or makes the volume where None is expected.

        The head of a fork names a version of the volume it came from until it is committed to: a fork is this one
        write.  Where the backend can, the head moves only if it still is the one expected.

        Raises:
            PreconditionFailed: it has moved meanwhile.
        """
        self._write_ref(volume, HEAD, name, expected)

    def require_free(self, volume: str) -> None:
        """Refuses a name that a new volume cannot have.

        Raises:
            RootInUse: there is a volume of that name, which this process has not just tried to make.
        """
        if self.has_volume(volume) and self._unanswered.get(volume) != self.head(volume):
            raise RootInUse(f"there is a volume {volume!r} already", hint="choose another name")

    def make_volume(self, volume: str, name: VersionName) -> None:
        """Makes a volume whose newest version is one that exists: one write, whatever it holds.

        When the write's answer is lost it is looked for, now or by the next try of this process.

        Raises:
            RootInUse: there is a volume of that name.
        """
        self.require_free(volume)
        # What an earlier try has left under the name is moved, as nobody was told of it.
        before = self.head(volume) if self.has_volume(volume) else None
        self._unanswered[volume] = name
        try:
            if before != name:
                self.set_head(volume, name, before)
        except PreconditionFailed as error:
            del self._unanswered[volume]
            raise RootInUse(f"there is a volume {volume!r} already", hint="choose another name") from error
        except StoreError:
            if not self._is_head(volume, name):
                raise
        del self._unanswered[volume]

    def pinned(self) -> dict[VersionName, list[str]]:
        """Every version that the head or a tag of some volume names, and by what: ``volume``, ``volume@tag``."""
        found: dict[VersionName, list[str]] = {}
        for volume in self.volumes():
            found.setdefault(self.head(volume), []).append(volume)
            for tag, name in self.tags(volume).items():
                found.setdefault(name, []).append(f"{volume}@{tag}")
        return found

    def tags(self, volume: str) -> dict[str, VersionName]:
        """The tags of a volume and the versions they name."""
        prefix = self._ref(volume, "tags")
        names = [entry.reference.name for entry in self.store.walk(prefix, directory=True)]
        return {name: self._read_ref(volume, f"tags/{name}") for name in names}

    def set_tag(self, volume: str, tag: str, name: VersionName) -> None:
        """Gives a version a name among the tags of a volume; a tag that exists moves."""
        content = json.dumps(name.to_data(), sort_keys=True).encode()
        reference = self._ref(volume, f"tags/{check_volume_name(tag, 'tag')}")
        self.store.write_raw(reference, len(content), None, content)

    def delete_tag(self, volume: str, tag: str) -> None:
        """Takes a name away.

        Raises:
            NoSuchVersion: there is no such tag.
        """
        try:
            self.store.delete(self._ref(volume, f"tags/{check_volume_name(tag, 'tag')}"), missing_ok=False)
        except NotFound as error:
            raise NoSuchVersion(f"{volume} has no tag {tag!r}") from error

    def delete_refs(self, volume: str) -> None:
        """Removes the head and the tags of a volume: it exists no longer, its versions become garbage."""
        refs = [entry.reference for entry in self.store.walk(self._ref(volume, ""), directory=True)]
        self.store.delete_many(refs)

    def _is_head(self, volume: str, name: VersionName) -> bool:
        """Whether a volume has this head, as far as can be found out."""
        try:
            return self._read_ref(volume, HEAD) == name
        except StoreError:
            return False

    def _ref(self, volume: str, name: str) -> DataReference:
        return self.base.join("refs", check_volume_name(volume), name)

    def _read_ref(self, volume: str, name: str) -> VersionName:
        raw = _read(self.store, self._ref(volume, name))
        try:
            return VersionName.from_data(json.loads(raw))
        except (ValueError, RecursionError) as error:
            raise CorruptManifest(f"the reference {name} of {volume} is damaged") from error

    def _write_ref(self, volume: str, name: str, value: VersionName, expected: VersionName | None) -> None:
        reference = self._ref(volume, name)
        content = json.dumps(value.to_data(), sort_keys=True).encode()
        able = self.store.capabilities(reference)
        options = None
        if expected is None:
            if Feature.CREATE_IF_ABSENT in able:
                options = WriteOptions(if_absent=True)
        elif Feature.REPLACE_IF_MATCH in able:
            etag = self.store.head(reference).etag
            if self._read_ref(volume, name) != expected:
                raise PreconditionFailed(f"{name} of {volume} has moved meanwhile", reference=str(reference))
            options = WriteOptions(if_match=etag)
        try:
            self.store.write_raw(reference, len(content), options, content)
        except AlreadyExists as error:
            raise PreconditionFailed(f"{volume} has been made meanwhile", reference=str(reference)) from error


def _read(store: Store, reference: DataReference) -> bytes:
    with store.read_raw(reference, max_bytes=_SMALL) as stream:
        return stream.read()
