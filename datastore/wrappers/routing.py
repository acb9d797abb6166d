"""One store for references of many schemes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Container, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from datastore.copying import stream_copy
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
from datastore.wrappers._flight import Flight
from datastore.wrappers.base import StoreWrapper, as_reference

__all__ = ["LAZY_SCHEMES", "SCHEME_ALIASES", "DialStore", "RoutingStore", "account_name"]

#: Makes the store of a scheme; given the scheme, the account (Azure alone) and the reference that asked first.
DialStore = Callable[[str, str | None, DataReference], Store]

#: Schemes that mean the same objects as another one.
SCHEME_ALIASES: Final[Mapping[str, str]] = {
    "abfss": "abfs",
    "minio": "s3",
    "s3a": "s3",
    "wasb": "abfs",
    "wasbs": "abfs",
}

#: What is dialled on first use when the caller does not say.
LAZY_SCHEMES: Final = frozenset({"abfs", "file", "gs", "mem", "os", "redis", "s3", "sw"})

_AZURE_HOST = re.compile(r"([a-z0-9-]+)\.(?:blob|dfs)\.(.+)")
_PUBLIC_AZURE = "core.windows.net"


class RoutingStore(StoreWrapper):
    """A primary store, and others by scheme that are dialled when a reference first needs them.

    References without scheme, or of a scheme that is not in ``schemes``, go to the primary untouched.  ``abfss``,
    ``wasb`` and ``wasbs`` are ``abfs``, one store an account; schemes in ``per_host`` get one store a host.  A store is
    dialled once, however many threads ask at the same time; a failure is not remembered.  Copies between two stores
    move the bytes through here.  Closing closes every store dialled.

    ``primary_scheme`` is by default that of the primary's base container, ``mem`` where it has none.  With
    ``primary_account``, references to other accounts are never served by the primary.
    """

    _of_this_process = MappingProxyType({"_lock": threading.Lock, "_dialled": dict, "_dialling": dict})

    def __init__(
        self,
        primary: Store,
        dial: DialStore,
        *,
        primary_scheme: str | None = None,
        primary_account: str | None = None,
        schemes: Container[str] = LAZY_SCHEMES,
        per_host: Container[str] = (),
    ) -> None:
        super().__init__(primary)
        self._dial_store = dial
        self._schemes = schemes
        self._per_host = per_host
        self._lock = threading.Lock()
        self._dialled: dict[tuple[str, str], Store] = {}
        self._dialling: dict[tuple[str, str], Flight[Store]] = {}
        self.replace_primary(primary, scheme=primary_scheme, account=primary_account)

    def replace_primary(self, primary: Store, *, scheme: str | None = None, account: str | None = None) -> None:
        """Puts another primary in place; lazily dialled stores are dialled anew, the old ones are closed.

        ``scheme`` and ``account`` are those of the new primary, by default its base container's.
        """
        base = primary.base_container_fqn
        with self._lock:
            old, dialled = self._inner, self._dialled
            self._inner, self._dialled, self._dialling = primary, {}, {}
            scheme = scheme or base.scheme or "mem"
            self._own_scheme = SCHEME_ALIASES.get(scheme, scheme)
            self._own_account = account_name(account or base.account)
        for store in {id(store): store for store in (old, *dialled.values()) if store is not primary}.values():
            store.close()

    def store_of(self, reference: Reference) -> Store:
        """The store that serves a reference, dialled if need be.

        Raises:
            StoreError: it cannot be dialled; whatever the dial function raised.
        """
        return self._route(as_reference(reference))

    def capabilities(self, reference: Reference | None = None) -> Capabilities:
        if reference is None:
            return self._inner.capabilities()
        ref = as_reference(reference)
        return self._route(ref).capabilities(ref)

    def download_limit(self, reference: Reference) -> int | None:
        ref = as_reference(reference)
        return self._route(ref).download_limit(ref)

    def head(self, reference: Reference) -> Metadata:
        ref = as_reference(reference)
        return self._route(ref).head(ref)

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
        return self._route(ref).list_page(ref, max_items, cursor, delimiter=delimiter, directory=directory)

    def read_raw(
        self,
        reference: Reference,
        start: int = 0,
        length: int | None = None,
        *,
        max_bytes: int | None = None,
        if_match: str | None = None,
    ) -> ReadStream:
        ref = reference if reference.__class__ is DataReference else DataReference(reference)  # type: ignore[arg-type]
        store = self._inner if ref.scheme == self._own_scheme and ref.account is None else self._route(ref)
        return store.read_raw(ref, start, length, max_bytes=max_bytes, if_match=if_match)

    def write_raw(
        self,
        reference: Reference,
        size: int | None,
        options: WriteOptions | None,
        stream: SourceLike | Source,
    ) -> Metadata:
        # As `_route` and `as_reference` do, for the common case: two frames are a tenth of what all layers cost.
        ref = reference if reference.__class__ is DataReference else DataReference(reference)  # type: ignore[arg-type]
        store = self._inner if ref.scheme == self._own_scheme and ref.account is None else self._route(ref)
        return store.write_raw(ref, size, options, stream)

    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        ref = as_reference(reference)
        self._route(ref).delete(ref, missing_ok=missing_ok)

    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        groups: dict[int, tuple[Store, list[DataReference]]] = {}
        for ref in map(as_reference, references):
            store = self._route(ref)
            groups.setdefault(id(store), (store, []))[1].append(ref)
        failed: dict[DataReference, StoreError] = {}
        for store, refs in groups.values():
            failed.update(store.delete_many(refs))
        return failed

    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        src, dst = as_reference(source), as_reference(destination)
        from_store, to_store = self._route(src), self._route(dst)
        if from_store is to_store:
            return to_store.copy_raw(src, dst, options)
        src.require_object()
        dst.require_object()
        return stream_copy(from_store, src, to_store, dst, options)

    def create_signed_url(self, reference: Reference, properties: SignedURLProperties) -> SignedURLResponse:
        ref = as_reference(reference)
        return self._route(ref).create_signed_url(ref, properties)

    def close(self) -> None:
        with self._lock:
            dialled, self._dialled, self._dialling = self._dialled, {}, {}
        try:
            for store in dialled.values():
                store.close()
        finally:
            self._inner.close()

    def _route(self, ref: DataReference) -> Store:
        scheme = ref.scheme
        if scheme == self._own_scheme and ref.account is None:
            return self._inner
        scheme = SCHEME_ALIASES.get(scheme, scheme)
        account = account_name(ref.account)
        if scheme == self._own_scheme:
            if account in ("", self._own_account):
                return self._inner
        elif not scheme or scheme not in self._schemes:
            return self._inner
        key = (scheme, account or (ref.container if scheme in self._per_host else ""))
        store = self._dialled.get(key)
        return self._first_use(key, account or None, ref) if store is None else store

    def _first_use(self, key: tuple[str, str], account: str | None, ref: DataReference) -> Store:
        while True:
            with self._lock:
                store = self._dialled.get(key)
                if store is not None:
                    return store
                flight = self._dialling.get(key)
                leads = flight is None
                if flight is None:
                    flight = self._dialling[key] = Flight()
            if not leads:
                if (result := flight.join()) is not None:
                    return result
                if (failure := flight.failure) is not None:
                    raise failure
                continue
            with flight:
                try:
                    store = self._dial_store(key[0], account, ref)
                except BaseException:
                    self._settle(key, flight, None)
                    raise
                self._settle(key, flight, store)
                flight.land(store)
                return store

    def _settle(self, key: tuple[str, str], flight: Flight[Store], store: Store | None) -> None:
        with self._lock:
            # Closed or reconfigured meanwhile: who asked gets the store, nobody after.
            if self._dialling.get(key) is flight:
                del self._dialling[key]
                if store is not None:
                    self._dialled[key] = store


def account_name(host: str | None) -> str:
    """The account an Azure host names: ``acct`` for the public cloud, ``acct.<suffix>`` elsewhere, "" for None."""
    text = (host or "").lower()
    match = _AZURE_HOST.fullmatch(text)
    if match is None:
        return text
    return match[1] if match[2] == _PUBLIC_AZURE else f"{match[1]}.{match[2]}"
