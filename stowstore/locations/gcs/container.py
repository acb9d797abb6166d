"""A bucket of Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, ClassVar

from datastore.driver import Container, DriverEntry, DriverPage
from datastore.errors import NoSuchContainer, NotSupported, PermissionDenied, PreconditionFailed, StoreError
from datastore.model import SignedURLProperties, SignedURLResponse, WriteOptions, clean_etag
from datastore.source import Source
from stowstore.locations._obstore_container import ObstoreContainer
from stowstore.locations.gcs.service import ERROR_CODES, GcsService, Json, persist
from stowstore.locations.gcs.signing import sign_object

__all__ = ["GcsContainer"]

#: The most the service puts on a page.
_PAGE = 1000
_FIELDS = "items(name,size,generation,etag,updated),prefixes,nextPageToken"

#: Pieces of a resumable upload are multiples of 256 KiB, the last one excepted.
_PIECE = 8 << 20


class GcsContainer(ObstoreContainer):
    """A bucket; the data move through obstore, the rest through `GcsService`."""

    suffix_ranges: ClassVar[bool] = True
    smallest_part: ClassVar[int] = 16 << 20
    most_parts: ClassVar[int] = 9_000
    error_codes: ClassVar[Mapping[str, type[StoreError]]] = ERROR_CODES

    def __init__(self, name: str, single: Any, parts: Any, service: GcsService) -> None:
        super().__init__(name, single, parts)
        self._service = service

    def list(self, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage:
        entries: list[DriverEntry] = []
        prefixes: set[str] = set()
        params = {"fields": _FIELDS}
        folded = bool(delimiter) and after.endswith(delimiter) and len(after) > len(prefix)
        start = _successor(after) if folded else after
        given = {"prefix": prefix, "delimiter": delimiter, "startOffset": start}
        params.update((name, text) for name, text in given.items() if text)
        while True:
            # One more than asked: the start is inclusive, and what follows tells whether there is more.
            params["maxResults"] = str(min(limit + 1 - len(entries) - len(prefixes) + 1, _PAGE))
            page = self._service.list_objects(self._name, params)
            entries += (_entry(item) for item in page.get("items", []) if item["name"] > after or not after)
            prefixes.update(text for text in page.get("prefixes", []) if text > after or not after)
            token = page.get("nextPageToken")
            if not token or len(entries) + len(prefixes) > limit:
                break
            params["pageToken"] = token
        names = sorted([*(entry.key for entry in entries), *prefixes])
        # Servers that know no start send everything: those names were left out above, and these are cut here.
        chosen = names[:limit]
        last = chosen[-1] if chosen else None
        return DriverPage(
            sorted(entry for entry in entries if last is not None and entry.key <= last),
            sorted(text for text in prefixes if last is not None and text <= last),
            more=len(names) > limit or bool(token),
            next_after=last,
        )

    def copy(self, key: str, source: Container, source_key: str, options: WriteOptions | None) -> str:
        if not isinstance(source, GcsContainer) or source._service.config != self._service.config:
            raise NotSupported("only objects of one service are copied in place")
        self._check_key(key)
        resource = {} if options is None else _resource(options)
        condition = {} if options is None else _condition(options)
        try:
            made = self._service.rewrite(source._name, source_key, self._name, key, resource, condition)
        except PreconditionFailed as error:
            raise self._translate_put(error, options or WriteOptions()) from error.__cause__
        return _generation(made)

    def sign(self, key: str, properties: SignedURLProperties) -> SignedURLResponse:
        self._check_key(key)
        config = self._service.config
        if config.signer is None:
            raise NotSupported("URLs are signed with a key", hint="configure service_account_key, or an HMAC key")
        return sign_object(properties, config.signer, endpoint=config.endpoint, bucket=self._name, key=key)

    def _put_large_if(self, key: str, source: Source, options: WriteOptions) -> str:
        """A resumable upload, which alone takes conditions: its parts go one after the other."""
        params = {"name": key, **_condition(options)}
        try:
            place = self._service.start_upload(self._name, _resource(options), params)
            done = False
            try:
                made = self._send_pieces(place, source)
                done = True
            finally:
                if not done:
                    self._cancel(place)
        except PreconditionFailed as error:
            raise self._translate_put(error, options) from error.__cause__
        return _generation(made)

    def _send_pieces(self, place: str, source: Source) -> Json:
        offset = 0
        piece = _filled(source)
        while True:
            following = _filled(source)
            total = "*" if following else str(offset + len(piece))
            answer = persist(partial(self._send_piece, place, offset, piece, total))
            if not following:
                return self._service.json(answer)
            offset += len(piece)
            piece = following

    def _send_piece(self, place: str, offset: int, piece: bytes, total: str) -> Any:
        """Sends one piece, or what the service lacks of it when it is sent again."""
        headers = {"Content-Type": "application/octet-stream"}
        span = f"bytes {offset}-{offset + len(piece) - 1}/{total}"
        answer = self._service.send("PUT", place, None, piece, {**headers, "Content-Range": span})
        if answer.status_code == 308 and total != "*":
            raise NotSupported("the service lost a part of the upload", retryable=False)
        self._service.expect(answer, *((308,) if total == "*" else (200, 201)))
        if answer.status_code == 308:
            kept = int(answer.headers.get("Range", "bytes=0--1").rpartition("-")[2]) + 1
            if kept < offset + len(piece) and kept > offset:
                return self._send_piece(place, kept, piece[kept - offset :], total)
        return answer

    def _cancel(self, place: str) -> None:
        """Tells the service to forget the upload; if that fails, it does so itself within a week."""
        try:
            self._service.send("DELETE", place)
        except StoreError:
            pass

    def _require(self) -> None:
        try:
            if self._service.has_container(self._name):
                return
        except PermissionDenied:
            # Rights to write objects need not include looking at their bucket.
            return
        raise NoSuchContainer(f"there is no container {self._name}", http_status=404)

    def _etag(self, told: Mapping[str, Any]) -> str:
        return told.get("version") or clean_etag(told["e_tag"])

    def _only_if(self, etag: str) -> dict[str, Any]:
        # The service compares its other etag; what comes back is compared with the generation instead.
        return {}

    def _mode_if(self, etag: str) -> Any:
        return {"version": _as_generation(etag)}


def _successor(text: str) -> str:
    """The smallest text that is larger than everything that starts with ``text``, which ends with a delimiter."""
    return text[:-1] + chr(ord(text[-1]) + 1)


def _entry(item: Json) -> DriverEntry:
    return DriverEntry(
        item["name"], int(item.get("size", 0)), _generation(item), datetime.fromisoformat(item["updated"])
    )


def _generation(item: Json) -> str:
    return str(item.get("generation") or clean_etag(item.get("etag")))


def _condition(options: WriteOptions) -> dict[str, str]:
    if options.if_absent:
        return {"ifGenerationMatch": "0"}
    if options.if_match is None:
        return {}
    return {"ifGenerationMatch": _as_generation(options.if_match)}


def _as_generation(etag: str) -> str:
    """An etag as a condition; text that is no generation becomes one that no object has."""
    return etag if etag.isdecimal() and etag.isascii() and int(etag) else "1"


def _resource(options: WriteOptions) -> Json:
    resource: Json = {
        name: value
        for name, value in (
            ("contentType", options.content_type),
            ("cacheControl", options.cache_control),
            ("contentEncoding", options.content_encoding),
            ("contentDisposition", options.content_disposition),
        )
        if value
    }
    if options.metadata:
        resource["metadata"] = dict(options.metadata)
    return resource


def _filled(source: Source) -> bytes:
    """The next piece, shorter only at the end."""
    pieces: list[bytes] = []
    wanted = _PIECE
    while wanted and (piece := source.read(wanted)):
        pieces.append(piece)
        wanted -= len(piece)
    return b"".join(pieces)
