"""What every volume is: a value that says where it lies and which version is meant, and travels as JSON."""

from __future__ import annotations

import json
import os
import secrets
import warnings
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from attrs import NOTHING, Factory, evolve, field, fields, frozen

from datastore.errors import ConfigError, StoreError
from stowstore.chunks.encryption import KeySource
from stowstore.locations.base import nearest
from stowstore.namespace.metastore import choose_kind
from stowstore.versions.address import VolumeAddress, normal_root
from stowstore.versions.errors import NotCommitted
from stowstore.versions.manifest import Manifest
from stowstore.versions.root import check_volume_name
from stowstore.volumes.blocking import BlockingVolume, BlockingVolumes, Blocks
from stowstore.volumes.files import Files
from stowstore.volumes.history import Change, LogEntry, VolumeUsage
from stowstore.volumes.lineage import Producer, checked_producer
from stowstore.volumes.registry import Key, registry
from stowstore.volumes.roots import ambient_region, default_root, storage_of
from stowstore.volumes.threads import in_thread

if TYPE_CHECKING:
    from stowstore.volumes.ro import ROVolume
    from stowstore.volumes.rw import RWVolume

__all__ = ["KIND", "Access", "Volume"]

KIND: Final = "flyte.volume/v1"

_ACCESS: Final = "access"


class Access(StrEnum):
    """What may be done with a volume."""

    RW = "rw"
    RO = "ro"


def _number(_: object, attribute: Any, value: object) -> None:
    if value is not None and (type(value) is not int or value < 0):
        raise ConfigError(f"{attribute.name} of a volume is no size: {value!r}")


def _text(_: object, attribute: Any, value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{attribute.name} of a volume is no text: {value!r}")


def _root(bucket: object) -> str:
    if not isinstance(bucket, str):
        raise ConfigError(f"bucket of a volume is no text: {bucket!r}", hint="give the URL of its root")
    return normal_root(bucket)


#: The class of volumes of each access.
_classes: dict[Access, type[Volume]] = {}


def _make(access: Access, **values: Any) -> Any:
    return _classes[access](**values)


@frozen(kw_only=True)
class Volume:
    """A volume or one of its versions, as a value: comparable, picklable, and JSON with `to_json` and `from_json`.

    ``bucket`` is the URL of the root it lies in, ``storage`` the backend that makes, ``index`` the locator of the
    version that is meant, or that a working copy began with.  ``used_bytes``, ``inode_count`` and ``index_bytes`` say
    how large that version is, ``message`` and ``produced_by`` what was said of it.  Credentials are never part of it:
    they come from the environment or from `configure`.

    Made by `new` and `empty`, by forks and commits, and by `from_locator`; these are an `RWVolume` or an `ROVolume`.
    Methods are coroutines; ``volume.blocking`` has the same for plain scripts.
    """

    access: ClassVar[Access | None] = None

    kind: str = KIND
    name: str = field()
    bucket: str = field(converter=_root)
    storage: str = field(default=Factory(lambda volume: storage_of(volume.bucket), takes_self=True))
    region: str | None = field(default=None, validator=_text)
    index: str | None = field(default=None, validator=_text)
    metadata_store_type: str | None = field(default=None, validator=_text)
    used_bytes: int | None = field(default=None, validator=_number)
    inode_count: int | None = field(default=None, validator=_number)
    index_bytes: int | None = field(default=None, validator=_number)
    message: str | None = field(default=None, validator=_text)
    produced_by: Producer = field(default=None, hash=False, converter=checked_producer)
    parent_produced_by: Producer = field(default=None, hash=False, converter=checked_producer)

    blocking: ClassVar[Blocks[BlockingVolume[Any]]] = Blocks(BlockingVolume)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.access is not None:
            # attrs makes the class twice; the second, with slots, is the one that stays.
            _classes[cls.access] = cls

    def __attrs_post_init__(self) -> None:
        if self.access is None:
            raise TypeError("a Volume is made by Volume.new(), Volume.empty() or Volume.from_locator()")
        if self.kind != KIND:
            raise ConfigError(f"a volume of kind {self.kind!r} is not known here", hint=f"this release reads {KIND!r}")
        if not isinstance(self.name, str):
            raise ConfigError(f"name of a volume is no text: {self.name!r}")
        check_volume_name(self.name)
        served = storage_of(self.bucket)
        if self.storage != served:
            raise ConfigError(
                f"storage {self.storage!r} cannot serve {self.bucket}",
                hint=f"leave it out, or say {served!r}",
            )
        if self.region is not None and served != "s3":
            raise ConfigError(f"region {self.region!r} is given, but {self.bucket} has none", hint="leave it out")
        if self.metadata_store_type is not None:
            choose_kind(self.metadata_store_type)
        if self.index is not None:
            address = VolumeAddress.parse(self.index)
            if address.digest is None or address.root != self.bucket:
                raise ConfigError(
                    f"index {self.index!r} is no locator of a version in {self.bucket}",
                    hint="use the locator of a version as it is",
                )

    # -- making ------------------------------------------------------------------------------------------------------

    @classmethod
    def new(
        cls,
        name: str | None = None,
        bucket: str | None = None,
        storage: str | None = None,
        region: str | None = None,
        metadata_store_type: str | None = None,
        *,
        options: Mapping[str, str] | None = None,
    ) -> RWVolume:
        """Declares a volume that is still empty; it exists once it is first committed.

        ``name`` None makes one up.  ``bucket`` is the URL of the root, None is ``$STOWSTORE_VOLUME_ROOT``, else a
        directory of the user.  ``storage`` follows from it, and is checked against it when given.  ``region`` pins the
        region of S3; without it `open` takes ``$AWS_REGION`` or ``$AWS_DEFAULT_REGION``.  ``metadata_store_type`` is
        ``sqlite``, ``redis`` or ``memory``; None is ``$STOWSTORE_VOLUME_METADATA_STORE``,
        ``$UNION_VOLUME_METADATA_STORE`` or ``sqlite``, and the choice stays with the volume.  ``options`` are those of
        `configure`.  Touches no store: `open` refuses a prefix that holds something else, and the name of a volume
        that exists.

        Raises:
            ConfigError, InvalidReference: an argument cannot be; the message names it.
        """
        root = normal_root(default_root() if bucket is None else bucket)
        if options is not None:
            registry.configure(root, options, None)
        made: RWVolume = _make(
            Access.RW,
            name=_made_up() if name is None else name,
            bucket=root,
            storage=storage_of(root) if storage is None else storage,
            region=region,
            metadata_store_type=choose_kind(metadata_store_type),
        )
        return made

    @classmethod
    def empty(
        cls,
        name: str,
        bucket: str | None = None,
        storage: str | None = None,
        region: str | None = None,
        metadata_store_type: str | None = None,
        *,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """Declares a volume that is still empty, by name; see `new`."""
        return cls.new(name, bucket, storage, region, metadata_store_type, options=options)

    @classmethod
    async def from_locator(cls, text: str) -> ROVolume:
        """The version a locator names; reads its manifest and holds it against the digest in the locator.

        Raises:
            ConfigError: it is no locator.
            NoSuchVersion: the version is gone.
            CorruptManifest: it is not the one that was meant.
        """
        return await in_thread(BlockingVolumes(cls).from_locator, text)

    @classmethod
    async def at(cls, address: str) -> Volume:
        """The volume at ``ROOT#NAME``, to go on writing it, or the version at ``ROOT#NAME@VERSION-or-TAG``.

        Raises:
            NoSuchVolume, NoSuchVersion: there is none.
        """
        return await in_thread(BlockingVolumes(cls).at, address)

    @staticmethod
    def configure(root: str, *, options: Mapping[str, str] | None = None, key: KeySource | None = None) -> None:
        """Says what this process needs to use a root and its URL must not hold; replaces what was said before.

        ``options`` are those of the kind of store, credentials among them; ``key`` encrypts a root that is still to
        be made, and opens one that is encrypted.  Neither is ever part of a volume, its JSON or its pickle.
        """
        registry.configure(root, options, key)

    # -- as data -----------------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which `from_dict` reads."""
        assert self.access is not None
        data: dict[str, Any] = {"kind": self.kind, _ACCESS: self.access.value}
        data.update((attribute.name, getattr(self, attribute.name)) for attribute in fields(Volume)[1:])
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Reads `to_dict`: what is said to be, or what this class is where nothing is said.

        Raises:
            ConfigError: it is something else; the message names the field.
        """
        given = dict(data)
        known = {attribute.name: attribute for attribute in fields(Volume)}
        said = given.pop(_ACCESS, None)
        for key in given:
            if key not in known:
                raise ConfigError(f"a volume has no {key!r}", hint=nearest(str(key), known))
        for key, attribute in known.items():
            if attribute.default is NOTHING and given.get(key) is None:
                raise ConfigError(f"{key!r} of the volume is missing")
        if given.get("storage", "") is None:
            del given["storage"]
        if said is not None and said not in tuple(Access):
            raise ConfigError(f"access {said!r} of a volume is neither 'rw' nor 'ro'")
        access = Access(said) if said is not None else cls.access
        if access is None:
            access = Access.RW if given.get("index") is None else Access.RO
        if cls.access is not None and access is not cls.access:
            raise ConfigError(
                f"an {cls.__name__} is asked for, and volume {given['name']!r} is {access.value!r}",
                hint="fork a version to write it" if access is Access.RO else "commit it, and use the version",
            )
        made: Self = _make(access, **given)
        return made

    def to_json(self) -> str:
        """`to_dict` as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Reads `to_json`.

        Raises:
            ConfigError: it is something else.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"a volume is JSON, and this is not: {error}") from error
        if not isinstance(data, dict):
            raise ConfigError(f"a volume is a JSON object, not {type(data).__name__}")
        return cls.from_dict(data)

    @classmethod
    def validated(cls, value: object) -> Self:
        """A volume of whatever says which: itself, `to_dict`, `to_json`, or the text of a locator (nothing is read).

        Raises:
            ValueError: it says none, or one of the other kind.
        """
        try:
            if isinstance(value, Volume):
                if isinstance(value, cls):
                    return value
                return cls.from_dict(value.to_dict())
            if isinstance(value, Mapping):
                return cls.from_dict(value)
            if isinstance(value, (str, bytes)):
                text = value.decode() if isinstance(value, bytes) else value
                if text.lstrip().startswith("{"):
                    return cls.from_json(text)
                address = VolumeAddress.parse(text)
                return cls.from_dict({"name": address.volume, "bucket": address.root, "index": text, _ACCESS: "ro"})
        except (StoreError, TypeError) as error:
            raise ValueError(str(error)) from error
        raise ValueError(f"a volume is a Volume, a mapping, JSON or a locator, not {type(value).__name__}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.validated, serialization=core_schema.plain_serializer_function_ser_schema(Volume.to_dict)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: object, handler: object) -> dict[str, Any]:
        text, size = {"type": ["string", "null"]}, {"type": ["integer", "null"], "minimum": 0}
        kinds = {"used_bytes": size, "inode_count": size, "index_bytes": size, "produced_by": {}}
        kinds |= {"parent_produced_by": {}, "name": {"type": "string"}, "bucket": {"type": "string"}}
        access = list(Access) if cls.access is None else [cls.access]
        properties: dict[str, Any] = {attribute.name: kinds.get(attribute.name, text) for attribute in fields(Volume)}
        properties |= {"kind": {"const": KIND}, _ACCESS: {"enum": [one.value for one in access]}}
        return {"type": "object", "title": cls.__name__, "properties": properties, "required": ["name", "bucket"]}

    # -- using -------------------------------------------------------------------------------------------------------

    @property
    def locator(self) -> str | None:
        """The text that names the newest version known here and verifies it; None until something is committed."""
        return self.index

    @property
    def files(self) -> Files:
        """The files by path, in this process; see `stowstore.volumes.files`."""
        files: Files = self._blocking().files
        return files

    @property
    def mount_path(self) -> Path | None:
        """Where this process has mounted the volume, for writing where it is; None while it is not."""
        found: Path | None = self._blocking().mount_path
        return found

    async def unmount(
        self, mount_path: str | os.PathLike[str] | None = None, *, timeout: float | None = None, force: bool = False
    ) -> None:
        """Unmounts what `mount` has mounted, at one path or everywhere; what is not committed stays in the journal.

        A daemon that does not end within ``timeout`` seconds (30) is cut off, at once with ``force``.

        Raises:
            VolumeError: this process has not mounted it.
        """
        await in_thread(self._blocking().unmount, mount_path, timeout=timeout, force=force)

    async def close(self) -> None:
        """Closes it in this process; what is not committed stays in the journal.  Closing again does nothing."""
        await in_thread(self._blocking().close)

    async def commit(
        self,
        message: str | None = None,
        *,
        meta_dir: str | os.PathLike[str] | None = None,
        timeout: float | None = None,
    ) -> Volume:
        """Deprecated spelling of `RWVolume.finalize`; a version is committed already and returned as it is."""
        warnings.warn(
            "Volume.commit is deprecated: use commit() or finalize() of an RWVolume; a version needs neither",
            DeprecationWarning,
            stacklevel=2,
        )
        if self.access is Access.RO:
            return self
        made: Volume = await in_thread(self._blocking().finalize, message, meta_dir=meta_dir, timeout=timeout)
        return made

    async def log(self, limit: int | None = None) -> list[LogEntry]:
        """The versions it came from, newest first, across forks and merges."""
        return await in_thread(self._blocking().log, limit)

    async def diff(self, other: Volume | str | None = None) -> list[Change]:
        """What is different here from another version, ascending by path; from the version before where none is given.

        ``other`` is a volume, a locator or address, or a version or tag of this volume.  Costs what is different.  Of a
        working copy the newest version is compared: what is not committed is not seen.

        Raises:
            NoSuchVersion, NoSuchVolume: there is no such version.
        """
        return await in_thread(self._blocking().diff, other)

    async def tag(self, tag: str, version: str | None = None) -> None:
        """Gives a version a name among the tags of the volume: this one, the newest, or the one said; moves a tag."""
        await in_thread(self._blocking().tag, tag, version)

    async def untag(self, tag: str) -> None:
        """Takes a tag away.

        Raises:
            NoSuchVersion: there is none.
        """
        await in_thread(self._blocking().untag, tag)

    async def tags(self) -> dict[str, str]:
        """The tags of the volume and the locators of what they name."""
        return await in_thread(self._blocking().tags)

    async def usage(self) -> VolumeUsage:
        """How much the volume holds, and its root stores."""
        return await in_thread(self._blocking().usage)

    async def migrate_metadata_store_type(
        self,
        new_metadata_store_type: str,
        meta_dir: str | os.PathLike[str] | None = None,
        new_meta_dir: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Moves to another metadata store; data and index stay as they are.

        The journal in ``meta_dir``, uncommitted changes included, moves to ``new_meta_dir`` (both the volume's own
        where not given), and the old one is removed.  A version that says so is published over the newest; it is the
        ``index`` of what is returned, whose ``parent_produced_by`` is the former ``produced_by``.  Inode numbers go on
        from a random distance, so that a forgotten user of the old store cannot meet them.

        Raises:
            ConfigError: that is the present store, or there is no such one.
            VolumeError: the volume is open.
        """
        moved: Self = await in_thread(
            self._blocking().migrate_metadata_store_type, new_metadata_store_type, meta_dir, new_meta_dir
        )
        return moved

    def _blocking(self) -> Any:
        return BlockingVolume(self)

    def _key(self) -> Key:
        return Key(self.bucket, self.name)

    def _evolved(self, **changes: Any) -> Self:
        return evolve(self, **changes)

    def _version(self, manifest: Manifest, name: str | None = None) -> ROVolume:
        """The version a manifest describes, known by the name of this volume or another one."""
        made: ROVolume = _make(Access.RO, **self._described(manifest, name))
        return made

    def _working_copy(self, manifest: Manifest, name: str | None = None) -> RWVolume:
        """The volume that goes on from a version."""
        described = self._described(manifest, name)
        if name is not None and name != self.name:
            described |= {"message": None, "produced_by": None, "parent_produced_by": manifest.produced_by}
        made: RWVolume = _make(Access.RW, **described)
        return made

    def _described(self, manifest: Manifest, name: str | None) -> dict[str, Any]:
        return {
            "name": name or self.name,
            "bucket": self.bucket,
            "storage": self.storage,
            "region": self.region if self.storage != "s3" else self.region or ambient_region(self.bucket),
            "index": str(VolumeAddress.locator(self.bucket, manifest.volume, manifest.name)),
            "metadata_store_type": manifest.metadata_store_type or self.metadata_store_type,
            "used_bytes": manifest.statistics.used_bytes,
            "inode_count": manifest.statistics.inode_count,
            "index_bytes": manifest.statistics.index_bytes,
            "message": manifest.message,
            "produced_by": manifest.produced_by,
            "parent_produced_by": manifest.parent_produced_by,
        }

    def _require_index(self) -> str:
        if self.index is None:
            raise NotCommitted(f"volume {self.name!r} has no version yet", hint="commit first")
        return self.index


def _made_up() -> str:
    return f"volume-{secrets.token_hex(6)}"
