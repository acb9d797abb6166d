"""The portable half of every store: it checks once what callers pass, so that drivers need not.

`PortableStore` turns references into containers and keys, enforces limits and features, resolves ranges, listings and
copies, and puts the operation and the reference on every error.  A concrete store says where containers come from.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from datastore.context import check, current_limits
from datastore.copying import stream_copy
from datastore.driver import Container, DriverEntry, DriverPage
from datastore.errors import (
    BadCursor,
    InvalidReference,
    LimitExceeded,
    NoSuchContainer,
    NotFound,
    NotSupported,
    StoreError,
)
from datastore.model import (
    Cursor,
    Feature,
    ListPage,
    Metadata,
    ObjectEntry,
    SignedURLProperties,
    SignedURLResponse,
    WriteOptions,
    clean_etag,
)
from datastore.protocol import Reference, Store
from datastore.reference import DataReference
from datastore.source import Source, SourceLike
from datastore.stream import ReadStream

__all__ = ["DEFAULT_PAGE", "PortableStore"]

#: Entries of one listing page when the caller names no number.
DEFAULT_PAGE = 1000

_PLAIN_WRITE = WriteOptions()


class PortableStore(Store):
    """A store over containers of one backend.

    ``max_download_bytes`` bounds what one `read_raw` may transfer; 0 is no bound.
    """

    def __init__(self, *, max_download_bytes: int = 0) -> None:
        self._max_download_bytes = max_download_bytes

    @abstractmethod
    def _container(self, reference: DataReference) -> Container:
        """The container of a reference, by the store's policy.

        Raises:
            ContainerNotAllowed: the policy forbids it.
            NoSuchContainer: it is not there.
        """

    @abstractmethod
    def _write_container(self, reference: DataReference, source: Source) -> Container:
        """The same for a write: made when it is missing, if the policy says so."""

    def _container_missing(self, reference: DataReference) -> Container | None:
        """Told when a write met a missing container; returns a new one to write to once more, or None to give up."""
        return None

    # -- operations ---------------------------------------------------------------------------------------------

    def download_limit(self, reference: Reference) -> int | None:
        return self._max_download_bytes

    def head(self, reference: Reference) -> Metadata:
        ref = self._object(reference)
        try:
            check()
            return self._container(ref).head(ref.key)
        except NotFound:
            return Metadata()
        except StoreError as error:
            error.about("head", ref)
            raise

    def read_raw(
        self,
        reference: Reference,
        start: int = 0,
        length: int | None = None,
        *,
        max_bytes: int | None = None,
        if_match: str | None = None,
    ) -> ReadStream:
        ref = self._object(reference)
        if length is not None and length < 0:
            raise ValueError(f"length is a number of bytes or None, not {length}")
        limit = self._max_download_bytes if max_bytes is None else max_bytes
        if limit < 0:
            raise ValueError(f"max_bytes is a number of bytes, 0 for no limit, not {limit}")
        try:
            limits = current_limits()
            if limits is not None:
                limits.check()
            stream = self._container(ref).open(
                ref.key, start, length, None if if_match is None else clean_etag(if_match)
            )
        except StoreError as error:
            error.about("read", ref)
            raise
        if limit and stream.size > limit:
            stream.close()
            self._refuse_download(ref, stream.size, limit)
        return stream

    def write_raw(
        self,
        reference: Reference,
        size: int | None,
        options: WriteOptions | None,
        stream: SourceLike | Source,
    ) -> Metadata:
        ref = self._object(reference)
        if options is None:
            options = _PLAIN_WRITE
        try:
            limits = current_limits()
            if limits is not None:
                limits.check()
            if options is not _PLAIN_WRITE:
                self._require_features(ref, options)
            source = stream if isinstance(stream, Source) else Source(stream, size, content_md5=options.content_md5)
            limit = self.capabilities(ref).max_object_bytes
            if limit is not None and source.size is not None and source.size > limit:
                raise LimitExceeded(f"{source.size} bytes are declared, the backend takes at most {limit} an object")
            try:
                etag = self._write_container(ref, source).put(ref.key, source, options)
            except NoSuchContainer as missing:
                etag = self._write_again(ref, source, options, missing)
        except StoreError as error:
            error.about("write", ref)
            raise
        return Metadata(exists=True, size=source.size or 0, etag=etag)

    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        ref = self._object(reference)
        try:
            check()
            container = self._container(ref)
            if not missing_ok:
                container.head(ref.key)
            container.delete(ref.key)
        except NoSuchContainer as error:
            if not missing_ok:
                error.about("delete", ref)
                raise
        except StoreError as error:
            error.about("delete", ref)
            raise

    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        groups: dict[DataReference, list[DataReference]] = {}
        for reference in references:
            ref = self._object(reference)
            groups.setdefault(ref.container_reference, []).append(ref)
        failed: dict[DataReference, StoreError] = {}
        for container_ref, refs in groups.items():
            try:
                check()
                errors = self._container(container_ref).delete_many([ref.key for ref in refs])
            except NoSuchContainer:
                continue
            except StoreError as error:
                error.about("delete", container_ref)
                raise
            for ref in refs:
                if (failure := errors.get(ref.key)) is not None:
                    failed[ref] = failure.about("delete", ref)
        return failed

    def list_page(
        self,
        prefix: Reference,
        max_items: int | None = None,
        cursor: Cursor | None = None,
        *,
        delimiter: str = "",
        directory: bool = False,
    ) -> ListPage:
        ref = self._prefix(prefix)
        limit = _page_size(max_items)
        if delimiter not in ("", "/"):
            raise ValueError(f"the delimiter is '' or '/', not {delimiter!r}")
        cursor = cursor or Cursor.at_start()
        if cursor.is_at_end:
            raise BadCursor("the cursor is at the end", op="list", reference=str(ref), hint="stop, or start anew")
        text = f"{ref.key}/" if directory and ref.key else ref.key
        try:
            check()
            page = self._container(ref).list(text, cursor.after, limit, delimiter)
        except NoSuchContainer:
            return ListPage()
        except StoreError as error:
            error.about("list", ref)
            raise
        return _public_page(ref, page)

    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        src, dst = self._object(source), self._object(destination)
        try:
            check()
            known = self._container(src).head(src.key)
        except StoreError as error:
            error.about("copy", src)
            raise
        try:
            if options is not None:
                self._require_features(dst, options)
            if src == dst and (options is None or not options.changes_metadata):
                return known
            return self._copy(src, dst, options, known)
        except NoSuchContainer as error:
            # The source's container was there a moment ago.
            error.about("copy", dst)
            raise
        except NotFound as error:
            error.about("copy", src)
            raise
        except StoreError as error:
            error.about("copy", dst)
            raise

    def create_signed_url(self, reference: Reference, properties: SignedURLProperties) -> SignedURLResponse:
        ref = self._object(reference)
        able = self.capabilities(ref)
        try:
            check()
            if able.sign_feature(properties.scope) not in able:
                raise NotSupported(
                    f"this store cannot sign URLs for {properties.scope.value}",
                    hint="serve the object yourself, or keep it in a backend that signs (s3, gs, abfs, sw)",
                )
            if properties.expires_in > able.max_sign_seconds:
                raise LimitExceeded(
                    f"a URL can be valid for {able.max_sign_seconds:g} s, {properties.expires_in:g} s are asked for"
                )
            return self._sign(ref, properties)
        except StoreError as error:
            error.about("sign", ref)
            raise

    # -- what a concrete store may change -----------------------------------------------------------------------

    def _sign(self, reference: DataReference, properties: SignedURLProperties) -> SignedURLResponse:
        return self._container(reference).sign(reference.key, properties)

    def _copy(self, src: DataReference, dst: DataReference, options: WriteOptions | None, known: Metadata) -> Metadata:
        if Feature.SERVER_SIDE_COPY in self.capabilities(dst):
            merged = None if options is None else options.merged_over(known)
            try:
                etag = self._server_copy(src, dst, merged)
                return Metadata(exists=True, size=known.size, etag=etag)
            except NotSupported:
                # Some pairs cannot be copied on the server (too large, two accounts): move the bytes.
                pass
        return stream_copy(self, src, self, dst, options)

    def _server_copy(self, src: DataReference, dst: DataReference, merged: WriteOptions | None) -> str:
        source = self._container(src)
        try:
            return self._container(dst).copy(dst.key, source, src.key, merged)
        except NoSuchContainer:
            container = self._container_missing(dst)
            if container is None:
                raise
            return container.copy(dst.key, source, src.key, merged)

    def _write_again(self, ref: DataReference, source: Source, options: WriteOptions, missing: NoSuchContainer) -> str:
        container = self._container_missing(ref)
        if container is None:
            raise missing
        if not source.rewind():
            missing.hint = "the container exists now, but the stream cannot be read again: write once more"
            raise missing
        return container.put(ref.key, source, options)

    def _object(self, reference: Reference) -> DataReference:
        ref = reference if reference.__class__ is DataReference else DataReference(reference)  # type: ignore[arg-type]
        if ref.flaw is not None or not ref.key or not ref.container or not ref.scheme:
            ref.require_object()
        self._check_key(ref)
        return ref

    def _prefix(self, reference: Reference) -> DataReference:
        ref = reference if isinstance(reference, DataReference) else DataReference(reference)
        ref.require_prefix()
        if ref.key:
            self._check_key(ref)
        return ref

    def _check_key(self, ref: DataReference) -> None:
        key = ref.key
        able = self.capabilities(ref)
        if len(key) * 4 > able.max_key_bytes and len(key.encode()) > able.max_key_bytes:
            raise InvalidReference(
                f"the key has {len(key.encode())} bytes, the backend takes {able.max_key_bytes}",
                reason="key_too_long",
                reference=str(ref),
            )
        if "//" in key and Feature.EMPTY_SEGMENTS not in able:
            raise InvalidReference(
                "the key has an empty segment, which a path cannot express: empty_segment",
                reason="empty_segment",
                reference=str(ref),
            )

    def _require_features(self, ref: DataReference, options: WriteOptions) -> None:
        able = self.capabilities(ref)
        for asked, feature in (
            (options.if_absent, Feature.CREATE_IF_ABSENT),
            (options.if_match is not None, Feature.REPLACE_IF_MATCH),
            (options.metadata, Feature.USER_METADATA),
            (options.tags, Feature.TAGS),
            (options.content_type or options.cache_control, Feature.CONTENT_HEADERS),
            (options.content_encoding or options.content_disposition, Feature.CONTENT_HEADERS),
        ):
            if asked and feature not in able:
                raise NotSupported(f"the backend does not support {feature.value}", hint="see store.capabilities()")

    def _refuse_download(self, ref: DataReference, size: int, limit: int) -> NoReturn:
        raise LimitExceeded(
            f"{size} bytes exceed the download limit of {limit} bytes",
            op="read",
            reference=str(ref),
            hint="raise limits.maxDownloadMBs, or pass max_bytes (0: no limit), or read a range",
        )


def _page_size(max_items: int | None) -> int:
    if max_items is None or max_items == 0:
        return DEFAULT_PAGE
    if max_items < 0:
        raise ValueError(f"max_items is a number of items or None, not {max_items}")
    return max_items


def _public_page(ref: DataReference, page: DriverPage) -> ListPage:
    entries, omitted = _public_entries(ref, page.entries)
    prefixes: list[DataReference] = []
    for prefix in page.prefixes:
        try:
            prefixes.append(ref.with_key(prefix.removesuffix("/")))
        except InvalidReference:
            omitted += 1
    cursor = Cursor.at_end()
    if page.more:
        last = max(
            [names[-1] for names in ([entry.key for entry in page.entries[-1:]], page.prefixes) if names],
            key=str.encode,
            default="",
        )
        cursor = Cursor.after_key(page.next_after or last)
    return ListPage(entries=tuple(entries), prefixes=tuple(prefixes), cursor=cursor, omitted=page.omitted + omitted)


def _public_entries(ref: DataReference, found: Sequence[DriverEntry]) -> tuple[list[ObjectEntry], int]:
    entries: list[ObjectEntry] = []
    omitted = 0
    with_key = ref.with_key
    for key, size, etag, last_modified in found:
        try:
            if not key:
                raise InvalidReference("an object without a name", reason="empty_key")
            entries.append(ObjectEntry(with_key(key), size, etag, last_modified))
        except InvalidReference:
            omitted += 1
    return entries, omitted
