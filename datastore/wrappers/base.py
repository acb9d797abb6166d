"""A wrapper that changes nothing: the others derive from it and override what they change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from datastore.errors import StoreError
from datastore.model import (
    Capabilities,
    Cursor,
    ListPage,
    Metadata,
    SignedURLProperties,
    SignedURLResponse,
    WriteOptions,
)
from datastore.protocol import Reference, Store
from datastore.reference import DataReference
from datastore.source import Source, SourceLike
from datastore.stream import ReadStream

__all__ = ["StoreWrapper", "as_reference"]


class StoreWrapper(Store):
    """A store that passes every operation on to ``inner``.

    The conveniences of `Store` (``walk``, ``read_bytes``, ...) run on the wrapper's own operations, so whatever it
    changes holds for them too.  Closing a wrapper closes what it wraps.  A wrapper can be pickled if ``inner`` can.
    """

    #: Attributes that stay behind when a wrapper is pickled (locks, connections, caches), and what makes them anew.
    _of_this_process: ClassVar[Mapping[str, Callable[[], Any]]] = MappingProxyType({})

    def __init__(self, inner: Store) -> None:
        self._inner = inner

    @property
    def inner(self) -> Store:
        """The wrapped store."""
        return self._inner

    @property
    def base_container_fqn(self) -> DataReference:
        return self._inner.base_container_fqn

    def capabilities(self, reference: Reference | None = None) -> Capabilities:
        return self._inner.capabilities(reference)

    def download_limit(self, reference: Reference) -> int | None:
        return self._inner.download_limit(reference)

    def head(self, reference: Reference) -> Metadata:
        return self._inner.head(reference)

    def list_page(
        self,
        prefix: Reference,
        max_items: int | None = None,
        cursor: Cursor | None = None,
        *,
        delimiter: str = "",
        directory: bool = False,
    ) -> ListPage:
        return self._inner.list_page(prefix, max_items, cursor, delimiter=delimiter, directory=directory)

    def read_raw(
        self,
        reference: Reference,
        start: int = 0,
        length: int | None = None,
        *,
        max_bytes: int | None = None,
        if_match: str | None = None,
    ) -> ReadStream:
        return self._inner.read_raw(reference, start, length, max_bytes=max_bytes, if_match=if_match)

    def write_raw(
        self,
        reference: Reference,
        size: int | None,
        options: WriteOptions | None,
        stream: SourceLike | Source,
    ) -> Metadata:
        return self._inner.write_raw(reference, size, options, stream)

    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        self._inner.delete(reference, missing_ok=missing_ok)

    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        return self._inner.delete_many(references)

    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        return self._inner.copy_raw(source, destination, options)

    def create_signed_url(self, reference: Reference, properties: SignedURLProperties) -> SignedURLResponse:
        return self._inner.create_signed_url(reference, properties)

    def close(self) -> None:
        self._inner.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in self._of_this_process}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        for name, make in self._of_this_process.items():
            setattr(self, name, make())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._inner!r})"


def as_reference(reference: Reference) -> DataReference:
    """The reference a caller gave, parsed if it is text.

    Raises:
        InvalidReference: the text is none.
    """
    return reference if reference.__class__ is DataReference else DataReference(reference)  # type: ignore[arg-type]
