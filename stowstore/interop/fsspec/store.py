"""``stow://``: objects of any store as a file system of fsspec."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from datastore.errors import ConfigError, NotFound
from datastore.model import Cursor, Feature, SignedURLProperties, SignedURLScope, WriteOptions
from datastore.protocol import Store
from datastore.reference import DataReference
from stowstore.interop.fsspec.base import StowBase
from stowstore.interop.fsspec.infos import directories_above, directory_info, entry_info, name_of, object_info
from stowstore.interop.fsspec.reading import CACHE, RangedFile
from stowstore.interop.fsspec.stores import opened_store, require_container
from stowstore.interop.fsspec.urls import ObjectPath
from stowstore.interop.fsspec.writing import AtomicFile, SpooledSink
from stowstore.locations.base import nearest
from stowstore.locations.registry import known_schemes
from stowstore.store import StowStore

__all__ = ["StowFileSystem"]


class StowFileSystem(StowBase):
    """The objects of any store: ``stow://SCHEME/CONTAINER/KEY?OPTION=VALUE``.

    There are no directories but those that keys make; making one does nothing, and an empty one does not exist.
    A container is a directory that can be made and removed.  ``store`` is a store that is open already and serves every
    path; without it one is opened for each scheme, by the options of the URL and those given, and kept for the
    process.  Thread-safe.
    """

    protocol = "stow"

    def __init__(self, query: str = "", store: Store | None = None, **options: Any) -> None:
        super().__init__(query=query, **options)
        self._store = store

    @property
    def fsid(self) -> str:
        return f"stow_{self._fs_token}"

    def store_of(self, path: str) -> tuple[Store, DataReference]:
        """The store that serves a path, and what it calls the object, prefix or container there.

        Raises:
            ConfigError: the path names nothing in a container, no kind serves its scheme, or an option is wrong.
        """
        named = ObjectPath.parse(self._strip_protocol(path))
        reference = named.reference
        store = self._store or opened_store(named, self._query, self._options)
        return store, reference

    # -- looking -----------------------------------------------------------------------------------------------------

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        """What is known of an object, a directory or a container.

        Raises:
            FileNotFoundError: there is none.
        """
        path = self._strip_protocol(path)
        named = ObjectPath.parse(path)
        if not named.container:
            if named.scheme and named.scheme not in known_schemes(named.scheme):
                raise ConfigError(
                    f"no kind serves the scheme {named.scheme!r}", hint=nearest(named.scheme, known_schemes())
                )
            return directory_info(str(named))
        store, reference = self.store_of(path)
        if not named.key:
            require_container(store, reference)
            return directory_info(str(named))
        found = store.head(reference)
        if found.exists:
            return object_info(str(named), found)
        page = store.list_page(reference, 1, directory=True)
        if page.entries or page.prefixes:
            return directory_info(str(named))
        raise NotFound("there is no such object or directory", op="info", reference=str(reference))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        """What lies in a directory, or an object itself; ascending by name.

        Raises:
            FileNotFoundError: there is nothing.
        """
        path = self._strip_protocol(path)
        named = ObjectPath.parse(path)
        if not named.container:
            found = self._containers(named)
        else:
            found = self._listed(path)
        return found if detail else [one["name"] for one in found]

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **kwargs: Any
    ) -> Any:
        """Every object below a directory, by one listing however deep it is."""
        path = self._strip_protocol(path)
        if maxdepth is not None or not ObjectPath.parse(path).container:
            return super().find(path, maxdepth=maxdepth, withdirs=withdirs, detail=detail, **kwargs)
        store, reference = self.store_of(path)
        found = {str(ObjectPath.of(entry.reference)): entry for entry in store.walk(reference, directory=True)}
        infos = {name: entry_info(name, entry) for name, entry in found.items()}
        if not infos or ObjectPath.parse(path).key:
            with suppress(FileNotFoundError):
                here = self.info(path)
                if here["type"] == "file" or withdirs:
                    infos[path] = here
        if withdirs:
            for name in found:
                for above in directories_above(name, path):
                    infos.setdefault(above, directory_info(above))
        names = sorted(infos)
        return {name: infos[name] for name in names} if detail else names

    def modified(self, path: str) -> Any:
        """When an object was last written."""
        return self.info(path)["LastModified"]

    def checksum(self, path: str) -> str:
        """The etag of an object, which differs when it was written again."""
        return str(self.info(path).get("ETag", ""))

    def sign(self, path: str, expiration: int = 100, **kwargs: Any) -> str:
        """A URL that lets its holder read an object for so many seconds."""
        store, reference = self.store_of(path)
        return store.create_signed_url(
            reference, SignedURLProperties(scope=SignedURLScope.READ, expires_in=expiration)
        ).url

    # -- reading -----------------------------------------------------------------------------------------------------

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
        """An object or a range of it, by one request; negative positions count from its end."""
        store, reference = self.store_of(path)
        if end is not None and (end < 0 or (start is not None and start < 0)):
            size = self.info(path)["size"]
            start, end = (position + size if position and position < 0 else position for position in (start, end))
        length = None if end is None else max(0, end - (start or 0))
        with store.read_raw(reference, start or 0, length) as stream:
            return stream.read()

    # -- writing -----------------------------------------------------------------------------------------------------

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **kwargs: Any) -> None:
        """Writes an object from memory.

        Raises:
            FileExistsError: ``mode`` is ``create`` and it is there.
        """
        store, reference = self.store_of(path)
        self._write(store, reference, value, len(value), create=mode == "create")

    def put_file(self, lpath: Any, rpath: str, callback: Any = None, mode: str = "overwrite", **kwargs: Any) -> None:
        """Copies a file of the local disk to an object."""
        if os.path.isdir(lpath):
            self.makedirs(rpath, exist_ok=True)
            return
        store, reference = self.store_of(rpath)
        size = os.path.getsize(lpath)
        if callback is not None:
            callback.set_size(size)
        with open(lpath, "rb") as file:
            self._write(store, reference, file, size, create=mode == "create")
        if callback is not None:
            callback.relative_update(size)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        """Copies an object, inside a store without moving its bytes."""
        store, source = self.store_of(path1)
        other, target = self.store_of(path2)
        if other is not store:
            from datastore.copying import stream_copy

            stream_copy(store, source, other, target)
            return
        try:
            store.copy_raw(source, target)
        except NotFound:
            # A directory is nothing by itself, so there is nothing to copy.
            if not self.isdir(path1):
                raise

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Makes an empty object; one that is there is emptied unless ``truncate`` is False."""
        if truncate or not self.exists(path):
            self.pipe_file(path, b"")

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Makes a container; a directory in one needs no making.

        Raises:
            FileExistsError: the container is there.
        """
        named = ObjectPath.parse(self._strip_protocol(path))
        if named.container and not named.key:
            store, reference = self.store_of(path)
            if isinstance(store, StowStore):
                with suppress(NotFound):
                    require_container(store, reference)
                    raise FileExistsError(17, os.strerror(17), str(named))
                store.create_container(reference.container)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Makes a container if it is missing; a directory in one needs no making."""
        try:
            self.mkdir(path)
        except FileExistsError:
            if not exist_ok:
                raise

    def rmdir(self, path: str) -> None:
        """Removes an empty container."""
        named = ObjectPath.parse(self._strip_protocol(path))
        if named.container and not named.key:
            store, reference = self.store_of(path)
            if isinstance(store, StowStore):
                store.delete_container(reference.container)

    def rm_file(self, path: str) -> None:
        """Removes an object.

        Raises:
            FileNotFoundError: there is none.
        """
        store, reference = self.store_of(path)
        store.delete(reference, missing_ok=False)

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Removes objects, in as few requests as the store allows.

        Raises:
            FileNotFoundError: there is nothing to be removed.
            IsADirectoryError: a directory is to be removed and ``recursive`` is not set.
        """
        doomed: dict[int, tuple[Store, list[DataReference]]] = {}
        for name in self.expand_path(path, recursive=recursive, maxdepth=maxdepth):
            store, reference = self.store_of(name)
            if reference.key:
                doomed.setdefault(id(store), (store, []))[1].append(reference)
        if not recursive:
            for store, references in doomed.values():
                for reference in references:
                    if not store.exists(reference):
                        raise IsADirectoryError(21, "is a directory: remove it with recursive=True", str(reference))
        for store, references in doomed.values():
            for error in store.delete_many(references).values():
                raise error

    def created(self, path: str) -> Any:
        """When an object was made: stores keep the last writing alone, which made the object that is there."""
        return self.modified(path)

    # -- private -----------------------------------------------------------------------------------------------------

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        cache_type: str = CACHE,
        size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        store, reference = self.store_of(path)
        if mode == "rb":
            return self._reading(store, reference, path, block_size, cache_type, cache_options)
        if mode not in ("wb", "xb", "ab"):
            raise ValueError(f"mode {mode!r}: an object is read, written whole or appended to, not changed in place")
        before = store.head(reference)
        if mode == "xb" and before.exists:
            raise FileExistsError(17, os.strerror(17), path)
        begin, match = b"", None
        if mode == "ab" and before.exists:
            with store.read_raw(reference, if_match=before.etag or None) as stream:
                begin = stream.read()
            if Feature.REPLACE_IF_MATCH in store.capabilities(reference):
                match = before.etag

        def publish(file: Any, length: int) -> None:
            self._write(store, reference, file, length, create=mode == "xb", if_match=match)

        return AtomicFile(
            self, path, SpooledSink(publish, begin), mode=mode, autocommit=autocommit, begins_at=len(begin)
        )

    def _reading(
        self,
        store: Store,
        reference: DataReference,
        path: str,
        block_size: int | None,
        cache_type: str,
        cache_options: dict[str, Any] | None,
    ) -> RangedFile:
        found = store.head(reference)
        if not found.exists:
            raise NotFound("there is no such object", op="open", reference=str(reference))
        etag = found.etag or None

        def fetch(start: int, end: int) -> bytes:
            # All ranges are of one object, also when somebody replaces it meanwhile.
            with store.read_raw(reference, start, end - start, if_match=etag) as stream:
                return stream.read()

        return RangedFile(
            self,
            path,
            fetch,
            lambda: object_info(path, found),
            size=found.size,
            block_size=block_size,
            cache_type=cache_type,
            cache_options=cache_options,
        )

    def _write(
        self,
        store: Store,
        reference: DataReference,
        source: Any,
        size: int,
        *,
        create: bool = False,
        if_match: str | None = None,
    ) -> None:
        if create and Feature.CREATE_IF_ABSENT not in store.capabilities(reference):
            create = False
            if store.exists(reference):
                raise FileExistsError(17, os.strerror(17), str(reference))
        options = WriteOptions(if_absent=create, if_match=if_match) if create or if_match else None
        store.write_raw(reference, size, options, source)

    def _pieces(self, path: str) -> tuple[int, Iterator[bytes]]:
        store, reference = self.store_of(path)
        stream = store.read_raw(reference)

        def pieces() -> Iterator[bytes]:
            with stream:
                yield from stream

        return stream.size, pieces()

    def _listed(self, path: str) -> list[dict[str, Any]]:
        store, reference = self.store_of(path)
        head = str(ObjectPath.of(reference.container_reference))
        found: list[dict[str, Any]] = []
        cursor = Cursor.at_start()
        while not cursor.is_at_end:
            page = store.list_page(reference, None, cursor, delimiter="/", directory=True)
            found += [entry_info(f"{head}/{entry.reference.key}", entry) for entry in page.entries]
            found += [directory_info(f"{head}/{prefix.key}") for prefix in page.prefixes]
            cursor = page.cursor
        if not found:
            here = self.info(path)
            return [here] if here["type"] == "file" else []
        found.sort(key=name_of)
        return found

    def _containers(self, named: ObjectPath) -> list[dict[str, Any]]:
        if not named.scheme:
            return [directory_info(scheme) for scheme in sorted(known_schemes())]
        store = self._store or opened_store(named, self._query, self._options)
        if not isinstance(store, StowStore):
            raise ConfigError(f"stow://{named} names no container", hint="write stow://SCHEME/CONTAINER/KEY")
        return [directory_info(str(ObjectPath.of(one))) for one in store.list_containers()]
