"""A view of what lies below one reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import evolve

from datastore.errors import InvalidReference, StoreError
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
from datastore.protocol import Reference, Store
from datastore.reference import DataReference
from datastore.source import Source, SourceLike
from datastore.stream import ReadStream
from datastore.wrappers.base import StoreWrapper, as_reference

__all__ = ["PrefixedStore"]

_ROOT = DataReference("")


class PrefixedStore(StoreWrapper):
    """The objects below ``base``, and no others.

    It takes keys (``runs/r1``: a reference without scheme and container) and answers in keys; cursors hold such keys
    too.  It also takes whole references and then answers in whole references, as long as they lie below ``base``,
    which is its ``base_container_fqn``; every other one is an `InvalidReference` with the reason ``outside``.

    Errors name the whole reference.  Nothing can escape: references have no dot segments.
    """

    def __init__(self, inner: Store, base: Reference) -> None:
        super().__init__(inner)
        self._base = as_reference(base)
        self._base.require_prefix()
        self._below = f"{self._base.key}/" if self._base.key else ""

    @property
    def base_container_fqn(self) -> DataReference:
        return self._base

    def capabilities(self, reference: Reference | None = None) -> Capabilities:
        ref = _ROOT if reference is None else as_reference(reference)
        able = self._inner.capabilities(self._whole(ref, prefix=True))
        if not _is_relative(ref):
            return able
        return evolve(able, max_key_bytes=max(0, able.max_key_bytes - len(self._below.encode())))

    def download_limit(self, reference: Reference) -> int | None:
        return self._inner.download_limit(self._whole(reference))

    def head(self, reference: Reference) -> Metadata:
        return self._inner.head(self._whole(reference))

    def list_page(
        self,
        prefix: Reference,
        max_items: int | None = None,
        cursor: Cursor | None = None,
        *,
        delimiter: str = "",
        directory: bool = False,
    ) -> ListPage:
        ref = as_reference(prefix)
        whole = self._whole(ref, prefix=True)
        relative = _is_relative(ref)
        if relative and cursor is not None and cursor.after:
            cursor = Cursor.after_key(self._below + cursor.after)
        # Without the slash, what merely starts like the base would be listed.
        directory = directory or whole.key == self._base.key
        page = self._inner.list_page(whole, max_items, cursor, delimiter=delimiter, directory=directory)
        return self._in_keys(page) if relative else page

    def read_raw(
        self,
        reference: Reference,
        start: int = 0,
        length: int | None = None,
        *,
        max_bytes: int | None = None,
        if_match: str | None = None,
    ) -> ReadStream:
        return self._inner.read_raw(self._whole(reference), start, length, max_bytes=max_bytes, if_match=if_match)

    def write_raw(
        self,
        reference: Reference,
        size: int | None,
        options: WriteOptions | None,
        stream: SourceLike | Source,
    ) -> Metadata:
        return self._inner.write_raw(self._whole(reference), size, options, stream)

    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        self._inner.delete(self._whole(reference), missing_ok=missing_ok)

    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        asked = {self._whole(ref): ref for ref in map(as_reference, references)}
        failed = self._inner.delete_many(asked)
        return {asked[whole]: error for whole, error in failed.items()}

    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        return self._inner.copy_raw(self._whole(source), self._whole(destination), options)

    def create_signed_url(self, reference: Reference, properties: SignedURLProperties) -> SignedURLResponse:
        return self._inner.create_signed_url(self._whole(reference), properties)

    def __repr__(self) -> str:
        return f"PrefixedStore({self._inner!r}, {str(self._base)!r})"

    def _whole(self, reference: Reference, *, prefix: bool = False) -> DataReference:
        ref = as_reference(reference)
        if ref.flaw is None:
            if _is_relative(ref):
                if ref.key:
                    return self._base.with_key(self._below + ref.key)
                if prefix:
                    return self._base
                raise InvalidReference("an empty key names no object", reason="empty_key", reference=str(self._base))
            base = self._base
            if (ref.scheme, ref.container, ref.account) == (base.scheme, base.container, base.account) and (
                ref.key.startswith(self._below) or (prefix and ref.key == base.key)
            ):
                return ref
        raise InvalidReference(
            f"the reference does not lie below {self._base}: outside",
            reason="outside",
            reference=str(ref),
            hint="name objects by their key below the base, or use the whole store",
        )

    def _in_keys(self, page: ListPage) -> ListPage:
        cut = len(self._below)
        # An empty segment just below the base (base//x) leaves a key with a slash at its edge, which no reference has.
        entries = [
            ObjectEntry(_ROOT.with_key(ref.key[cut:]), size, etag, modified)
            for ref, size, etag, modified in page.entries
            if ref.key[cut] != "/"
        ]
        prefixes = [_ROOT.with_key(ref.key[cut:]) for ref in page.prefixes if ref.key[cut:] and ref.key[cut] != "/"]
        lost = len(page.entries) - len(entries) + len(page.prefixes) - len(prefixes)
        cursor = page.cursor
        return evolve(
            page,
            entries=tuple(entries),
            prefixes=tuple(prefixes),
            cursor=Cursor.after_key(cursor.after[cut:]) if cursor.after else cursor,
            omitted=page.omitted + lost,
        )


def _is_relative(reference: DataReference) -> bool:
    return not reference.scheme and not reference.container
