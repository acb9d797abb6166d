"""What a data store is.

`DataStore` is the protocol: small, complete, thread-safe.  `Store` adds the conveniences that every
implementation and wrapper
shares and that nobody needs to implement.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Protocol, Self, TypeAlias, runtime_checkable

from datastore.errors import StoreError
from datastore.model import (
    Capabilities,
    Cursor,
    ListPage,
    Metadata,
    ObjectEntry,
    SignedURLProperties,
    SignedURLResponse,
    WriteOptions,
)
from datastore.reference import DataReference, construct_reference
from datastore.source import Source, SourceLike
from datastore.stream import ReadStream

__all__ = ["DataStore", "Reference", "Store"]

Reference: TypeAlias = DataReference | str
"""Every operation takes a reference or its text."""


@runtime_checkable
class DataStore(Protocol):
    """Objects under references, over any backend; every method may be called from many threads at once.

    All of them raise `datastore.errors` and honour the deadline and the tokens of the calling context.
    """

    @property
    def base_container_fqn(self) -> DataReference:
        """The reference of the base container of the primary backend."""
        ...

    def capabilities(self, reference: Reference | None = None) -> Capabilities:
        """What the backend of a reference can do; of the primary backend for None."""
        ...

    def head(self, reference: Reference) -> Metadata:
        """What is known of an object; ``exists`` is False when the object or its container is missing.

        Every other failure raises: not allowed, permission, transport.
        """
        ...

    def list_page(
        self,
        prefix: Reference,
        max_items: int | None = None,
        cursor: Cursor | None = None,
        *,
        delimiter: str = "",
        directory: bool = False,
    ) -> ListPage:
        """Objects whose keys start with the key of ``prefix``, ascending by UTF-8 bytes, from ``cursor`` on.

        ``prefix`` is raw text (``a`` matches ``ab``) unless ``directory`` adds the slash.  ``delimiter="/"``
        folds what
        lies deeper into common prefixes.  ``max_items`` None or 0 means the page size of the store (1000).
        Nothing found,
        a missing container included, is an empty page at the end.

        Raises:
            BadCursor: the cursor is at the end.
            ValueError: ``max_items`` is negative, or the delimiter neither "" nor "/".
        """
        ...

    def read_raw(
        self,
        reference: Reference,
        start: int = 0,
        length: int | None = None,
        *,
        max_bytes: int | None = None,
        if_match: str | None = None,
    ) -> ReadStream:
        """Opens an object, or a range of it, for reading; the caller closes the stream.

        A negative ``start`` counts from the end; ranges are clipped to the object, so a range past the end is empty.
        ``max_bytes`` replaces the store's download limit for this call (0: none).

        Raises:
            NotFound: no such object.
            LimitExceeded: more bytes than the limit would be transferred; nothing was.
            PreconditionFailed: the object is not the one of etag ``if_match``.
        """
        ...

    def write_raw(
        self,
        reference: Reference,
        size: int | None,
        options: WriteOptions | None,
        stream: SourceLike | Source,
    ) -> Metadata:
        """Writes an object atomically: readers see the old one or the new one, never a part.

        ``size`` None means unknown.  The stream is read once and need not be seekable; errors it raises pass
        through, with
        nothing written.  Returns size and etag of what was written.

        Raises:
            SizeMismatch: the stream has more or fewer bytes than declared; nothing was written.
            DigestMismatch: the data are not those of ``options.content_md5``; nothing was written.
            AlreadyExists, PreconditionFailed: a condition in the options did not hold.
        """
        ...

    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        """Removes an object; idempotent unless ``missing_ok`` is False.

        Raises:
            NotFound: nothing was there and ``missing_ok`` is False.
        """
        ...

    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        """Removes objects in as few requests as the backend allows; returns the errors of those that failed."""
        ...

    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        """Copies an object with its metadata, which ``options`` override; inside one backend, without moving
        the bytes.

        Copying an object onto itself changes nothing unless metadata change.  Download limits do not apply.

        Raises:
            NotFound: there is no source object.
        """
        ...

    def create_signed_url(self, reference: Reference, properties: SignedURLProperties) -> SignedURLResponse:
        """Signs a URL that lets its holder do one thing with one object for a while; the object need not exist.

        Raises:
            NotSupported: the backend cannot sign this.
        """
        ...

    def close(self) -> None:
        """Frees connections; the store is not to be used afterwards."""
        ...


class Store(ABC):
    """A `DataStore` with everything that follows from its core; implementations and wrappers derive from it."""

    @property
    @abstractmethod
    def base_container_fqn(self) -> DataReference: ...

    @abstractmethod
    def capabilities(self, reference: Reference | None = None) -> Capabilities: ...

    @abstractmethod
    def head(self, reference: Reference) -> Metadata: ...

    @abstractmethod
    def list_page(
        self,
        prefix: Reference,
        max_items: int | None = None,
        cursor: Cursor | None = None,
        *,
        delimiter: str = "",
        directory: bool = False,
    ) -> ListPage: ...

    @abstractmethod
    def read_raw(
        self,
        reference: Reference,
        start: int = 0,
        length: int | None = None,
        *,
        max_bytes: int | None = None,
        if_match: str | None = None,
    ) -> ReadStream: ...

    @abstractmethod
    def write_raw(
        self,
        reference: Reference,
        size: int | None,
        options: WriteOptions | None,
        stream: SourceLike | Source,
    ) -> Metadata: ...

    @abstractmethod
    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None: ...

    @abstractmethod
    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]: ...

    @abstractmethod
    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata: ...

    @abstractmethod
    def create_signed_url(self, reference: Reference, properties: SignedURLProperties) -> SignedURLResponse: ...

    @abstractmethod
    def close(self) -> None: ...

    def download_limit(self, reference: Reference) -> int | None:
        """Bytes a read that names no limit may transfer: 0 for any number, None when the store does not say."""
        return None

    def list(
        self,
        prefix: Reference,
        max_items: int | None = None,
        cursor: Cursor | None = None,
        *,
        directory: bool = False,
    ) -> tuple[list[DataReference], Cursor]:
        """One page of references below a prefix, and where the next one starts; see `DataStore.list_page`."""
        page = self.list_page(prefix, max_items, cursor, directory=directory)
        return [entry.reference for entry in page.entries], page.cursor

    def walk(
        self, prefix: Reference, *, directory: bool = False, page_size: int | None = None
    ) -> Iterator[ObjectEntry]:
        """Every object below a prefix, page by page, ascending by the UTF-8 bytes of the keys."""
        cursor = Cursor.at_start()
        while not cursor.is_at_end:
            page = self.list_page(prefix, page_size, cursor, directory=directory)
            yield from page.entries
            cursor = page.cursor

    def read_bytes(self, reference: Reference, start: int = 0, length: int | None = None) -> bytes:
        """The content of an object, or of a range of it, in memory."""
        with self.read_raw(reference, start, length) as stream:
            return stream.read()

    def write_bytes(self, reference: Reference, data: bytes, options: WriteOptions | None = None) -> Metadata:
        """Writes an object from memory."""
        return self.write_raw(reference, len(data), options, data)

    def exists(self, reference: Reference) -> bool:
        """Whether there is such an object."""
        return self.head(reference).exists

    def construct_reference(self, reference: Reference, *keys: str) -> DataReference:
        """The reference below another one, of URL text; see `datastore.reference.construct_reference`."""
        return DataReference(construct_reference(reference, *keys))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
