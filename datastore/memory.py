"""The reference implementation: objects in memory, by the contract to the letter."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from attrs import frozen

from datastore.driver import Container, DriverEntry, DriverPage, resume_after
from datastore.errors import (
    AlreadyExists,
    ContainerNotEmpty,
    NoSuchContainer,
    NotFound,
    NotSupported,
    PreconditionFailed,
    StoreError,
)
from datastore.model import (
    Capabilities,
    Feature,
    Metadata,
    SignedURLProperties,
    SignedURLResponse,
    WriteOptions,
)
from datastore.portable import PortableStore
from datastore.protocol import Reference
from datastore.reference import DataReference
from datastore.source import Source
from datastore.stream import ReadStream

__all__ = ["MEMORY_CAPABILITIES", "MemoryContainer", "MemoryLocation", "MemoryStore", "resolve_range"]

MEMORY_CAPABILITIES = Capabilities(
    features={
        Feature.CREATE_IF_ABSENT,
        Feature.ATOMIC_CREATE,
        Feature.REPLACE_IF_MATCH,
        Feature.SERVER_SIDE_COPY,
        Feature.USER_METADATA,
        Feature.CONTENT_HEADERS,
        Feature.TAGS,
        Feature.CONTAINERS,
        Feature.EMPTY_SEGMENTS,
        Feature.NESTED_KEYS,
    }
)


@frozen
class _Object:
    content: bytes
    metadata: Metadata


class MemoryContainer:
    """Objects of one container in a dictionary, with their keys kept sorted by UTF-8 bytes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._objects: dict[str, _Object] = {}
        self._keys: list[bytes] = []
        self._exists = False

    @property
    def name(self) -> str:
        return self._name

    def head(self, key: str) -> Metadata:
        return self._get(key).metadata

    def open(self, key: str, start: int, length: int | None, if_match: str | None) -> ReadStream:
        found = self._get(key)
        if if_match is not None and if_match != found.metadata.etag:
            raise PreconditionFailed(f"the object has etag {found.metadata.etag}, not {if_match}")
        first, count = resolve_range(len(found.content), start, length)
        whole = count == len(found.content)
        return ReadStream(
            found.content if whole else memoryview(found.content)[first : first + count],
            count,
            found.metadata,
        )

    def put(self, key: str, source: Source, options: WriteOptions) -> str:
        # The caller's stream is read before the lock is taken: it may be slow, or use this very store.
        content = source.data
        content = bytes(source.read() if content is None else content)
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        made = _Object(content, _metadata_of(options, len(content), etag))
        with self._lock:
            self._require_container()
            known = self._objects.get(key)
            if options.if_absent and known is not None:
                raise AlreadyExists("there is an object of this key")
            if options.if_match is not None and (known is None or known.metadata.etag != options.if_match):
                raise PreconditionFailed(f"the object is not the one of etag {options.if_match}")
            if known is None:
                insort(self._keys, key.encode())
            self._objects[key] = made
        return etag

    def delete(self, key: str) -> None:
        with self._lock:
            if self._objects.pop(key, None) is not None:
                encoded = key.encode()
                del self._keys[bisect_right(self._keys, encoded) - 1]

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        for key in keys:
            self.delete(key)
        return {}

    def list(self, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage:
        with self._lock:
            self._require_container()
            return self._page(
                prefix.encode(), resume_after(after, delimiter, prefix).encode(), limit, delimiter.encode()
            )

    def copy(self, key: str, source: Container, source_key: str, options: WriteOptions | None) -> str:
        if not isinstance(source, MemoryContainer):
            raise NotSupported("only containers of this store are copied in place")
        found = source._get(source_key)
        wanted = options if options is not None else WriteOptions().merged_over(found.metadata)
        return self.put(key, Source(found.content, len(found.content)), wanted)

    def sign(self, key: str, properties: SignedURLProperties) -> SignedURLResponse:
        raise NotSupported("memory has no URLs to sign")

    def clear(self) -> None:
        """Removes every object."""
        with self._lock:
            self._objects.clear()
            self._keys.clear()

    @property
    def exists(self) -> bool:
        return self._exists

    def create(self) -> None:
        """Makes the container exist; handles handed out before see it too."""
        with self._lock:
            self._exists = True

    def remove(self) -> None:
        """Ends the container if it is empty."""
        with self._lock:
            self._require_container()
            if self._objects:
                raise ContainerNotEmpty(f"the container holds {len(self._objects)} objects", hint="delete them first")
            self._exists = False

    def _get(self, key: str) -> _Object:
        with self._lock:
            self._require_container()
            found = self._objects.get(key)
        if found is None:
            raise NotFound("there is no such object")
        return found

    def _require_container(self) -> None:
        if not self._exists:
            raise NoSuchContainer(f"there is no container {self._name}")

    def _page(self, prefix: bytes, after: bytes, limit: int, delimiter: bytes) -> DriverPage:
        index = bisect_right(self._keys, after) if after >= prefix else bisect_right(self._keys, prefix) - 1
        index = max(index, 0)
        entries: list[DriverEntry] = []
        prefixes: list[str] = []
        while index < len(self._keys):
            key = self._keys[index]
            if key < prefix or (key <= after and after):
                index += 1
                continue
            if not key.startswith(prefix):
                break
            if len(entries) + len(prefixes) == limit:
                return DriverPage(entries, prefixes, more=True)
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                common = key[: cut + len(delimiter)]
                prefixes.append(common.decode())
                index = bisect_right(self._keys, common + b"\xff")
            else:
                text = key.decode()
                known = self._objects[text].metadata
                entries.append(DriverEntry(text, known.size, known.etag, known.last_modified))
                index += 1
        return DriverPage(entries, prefixes)


class MemoryLocation:
    """Containers in memory, private to this object and gone with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._containers: dict[str, MemoryContainer] = {}

    kind = "mem"
    scheme = "mem"
    capabilities = MEMORY_CAPABILITIES

    def container(self, name: str) -> MemoryContainer:
        found = self._containers.get(name)
        if found is None:
            with self._lock:
                found = self._containers.setdefault(name, MemoryContainer(name))
        return found

    def has_container(self, name: str) -> bool:
        return self.container(name).exists

    def create_container(self, name: str) -> None:
        self.container(name).create()

    def delete_container(self, name: str) -> None:
        self.container(name).remove()

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        with self._lock:
            containers = list(self._containers.values())
        return iter(sorted(found.name for found in containers if found.exists and found.name.startswith(prefix)))

    def clear(self) -> None:
        """Removes every object of every container."""
        with self._lock:
            containers = list(self._containers.values())
        for container in containers:
            container.clear()

    def close(self) -> None:
        """Keeps everything: memory has no connections."""


class MemoryStore(PortableStore):
    """A store in memory that needs no configuration: containers come into being when written to.

    As upstream's, it takes references of any scheme, and schemeless ones; they differ by container and key alone.
    """

    def __init__(self, *, max_download_bytes: int = 0) -> None:
        super().__init__(max_download_bytes=max_download_bytes)
        self._location = MemoryLocation()

    @property
    def base_container_fqn(self) -> DataReference:
        return DataReference("")

    def capabilities(self, reference: Reference | None = None) -> Capabilities:
        return MEMORY_CAPABILITIES

    def clear(self) -> None:
        """Removes every object."""
        self._location.clear()

    def close(self) -> None:
        """Keeps everything: memory has no connections."""

    def _container(self, reference: DataReference) -> Container:
        return self._location.container(reference.container)

    def _write_container(self, reference: DataReference, source: Source) -> Container:
        container = self._location.container(reference.container)
        container.create()
        return container

    def _container_missing(self, reference: DataReference) -> Container | None:
        container = self._location.container(reference.container)
        container.create()
        return container

    def _object(self, reference: Reference) -> DataReference:
        ref = reference if isinstance(reference, DataReference) else DataReference(reference)
        if ref.flaw is not None or not ref.key:
            DataReference.require_object(ref)
        self._check_key(ref)
        return ref

    def _prefix(self, reference: Reference) -> DataReference:
        return reference if isinstance(reference, DataReference) else DataReference(reference)


def resolve_range(size: int, start: int, length: int | None) -> tuple[int, int]:
    """First byte and number of bytes of a range, clipped to an object of ``size`` bytes; negative starts count back."""
    first = max(0, size + start) if start < 0 else min(start, size)
    rest = size - first
    return first, rest if length is None else min(length, rest)


def _metadata_of(options: WriteOptions, size: int, etag: str) -> Metadata:
    return Metadata(
        exists=True,
        size=size,
        etag=etag,
        content_type=options.content_type,
        last_modified=datetime.now(UTC),
        user_metadata=options.metadata,
        cache_control=options.cache_control,
        content_encoding=options.content_encoding,
        content_disposition=options.content_disposition,
    )
