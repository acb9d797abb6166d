"""A container of an Azure storage account."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import quote
from xml.sax.saxutils import escape

import obstore

from datastore.context import Limits, current_limits
from datastore.driver import Container, DriverPage
from datastore.errors import NoSuchContainer, NotSupported, PermissionDenied, StoreError
from datastore.model import SignedURLProperties, SignedURLResponse, WriteOptions, clean_etag
from datastore.source import Source
from stowstore.locations._obstore import call
from stowstore.locations._obstore_container import FOREIGN, ObstoreContainer
from stowstore.locations.azure.config import SharedKey
from stowstore.locations.azure.listing import Markers, list_page
from stowstore.locations.azure.names import check_key, incoming_name, outgoing_name
from stowstore.locations.azure.service import ERROR_CODES, AzureService
from stowstore.locations.azure.signing import sign_blob

__all__ = ["AzureContainer"]

#: What one bulk request may remove.
_BATCH = 256
_PART_ATTEMPTS = 5
_UNLIMITED = Limits(None, None, ())


class AzureContainer(ObstoreContainer):
    """A container; the data move through obstore, the rest through `AzureService`."""

    suffix_ranges: ClassVar[bool] = False
    smallest_part: ClassVar[int] = 8 << 20
    most_parts: ClassVar[int] = 45_000
    error_codes: ClassVar[Mapping[str, type[StoreError]]] = ERROR_CODES

    def __init__(self, name: str, single: Any, parts: Any, service: AzureService, markers: Markers) -> None:
        super().__init__(name, single, parts)
        self._service = service
        self._markers = markers

    def list(self, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage:
        return list_page(self._service, self._markers, self._name, prefix, after, limit, delimiter)

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        failed: dict[str, StoreError] = {}
        for start in range(0, len(keys), _BATCH):
            batch = list(keys[start : start + _BATCH])
            for key in batch:
                self._check_key(key)
            try:
                call(obstore.delete, obstore.delete_async, self._single, batch)
            except FOREIGN as error:
                translated = self._translate(error)
                if isinstance(translated, NoSuchContainer):
                    return failed
                # Of a batch only the first failure is told, and "not there" is one: ask for each.
                failed.update(self._delete_each(batch))
        return failed

    def copy(self, key: str, source: Container, source_key: str, options: WriteOptions | None) -> str:
        if not isinstance(source, AzureContainer) or source._service.account != self._service.account:
            raise NotSupported("only blobs of one account are copied in place")
        if options is not None:
            raise NotSupported("the service's copy carries everything over and changes nothing")
        self._check_key(key)
        headers = {"x-ms-copy-source": self._service.copy_source(source._path(source_key))}
        answer = self._service.blob("PUT", self._path(key), 202, headers=headers)
        pause = 0.05
        while answer.get("x-ms-copy-status") == "pending":
            (current_limits() or _UNLIMITED).sleep(pause)
            pause = min(pause * 2, 2.0)
            answer = self._service.blob("HEAD", self._path(key), 200)
        if (status := answer.get("x-ms-copy-status", "success")) != "success":
            raise StoreError(f"the service ended the copy as {status!r}")
        return clean_etag(answer.get("etag"))

    def sign(self, key: str, properties: SignedURLProperties) -> SignedURLResponse:
        self._check_key(key)
        credentials = self._service.credentials
        if not isinstance(credentials, SharedKey):
            raise NotSupported("URLs are signed with the account's key", hint="configure key; tokens cannot sign")
        account = self._service.account
        return sign_blob(
            properties,
            account=account.name,
            key=credentials.key,
            endpoint=account.endpoint,
            container=self._name,
            blob=key,
        )

    def _put_large_if(self, key: str, source: Source, options: WriteOptions) -> str:
        path = self._path(key)
        size = self._part_size(source.size)
        nonce = uuid.uuid4().hex[:8]
        blocks: list[str] = []
        while piece := _filled(source, size):
            block = base64.b64encode(f"{nonce}-{len(blocks):06}".encode()).decode()
            self._send_block(path, block, piece)
            blocks.append(block)
        headers = {
            _CONTENT_HEADERS.get(name, f"x-ms-meta-{name}"): v for name, v in (self._attributes(options) or {}).items()
        }
        if options.if_absent:
            headers["If-None-Match"] = "*"
        else:
            headers["If-Match"] = f'"{options.if_match}"'
        listed = "".join(f"<Latest>{escape(block)}</Latest>" for block in blocks)
        document = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()
        try:
            answer = self._service.blob("PUT", path, 201, {"comp": "blocklist"}, headers, document)
        except StoreError as error:
            raise self._translate_put(error, options) from error.__cause__
        return clean_etag(answer.get("etag"))

    def _send_block(self, path: str, block: str, piece: bytes) -> None:
        """Uploads one block; until the list of blocks is written nothing of it can be seen."""
        _persist(lambda: self._service.blob("PUT", path, 201, {"comp": "block", "blockid": block}, None, piece))

    def _require(self) -> None:
        try:
            if self._service.has_container(self._name):
                return
        except PermissionDenied:
            # Rights to write blobs need not include looking at their container.
            return
        raise NoSuchContainer(f"there is no container {self._name}", http_status=404)

    def _check_key(self, key: str) -> None:
        super()._check_key(key)
        check_key(key)

    def _outgoing_name(self, name: str) -> str:
        return outgoing_name(name)

    def _incoming_name(self, name: str) -> str:
        return incoming_name(name)

    def _path(self, key: str) -> str:
        return f"/{self._name}/{quote(key, safe='/-_.~')}"


_CONTENT_HEADERS = {
    "Content-Type": "x-ms-blob-content-type",
    "Cache-Control": "x-ms-blob-cache-control",
    "Content-Encoding": "x-ms-blob-content-encoding",
    "Content-Disposition": "x-ms-blob-content-disposition",
}


def _filled(source: Source, size: int) -> bytes:
    """The next ``size`` bytes, fewer only at the end."""
    pieces: list[bytes] = []
    wanted = size
    while wanted and (piece := source.read(wanted)):
        pieces.append(piece)
        wanted -= len(piece)
    return b"".join(pieces)


def _persist(send: Callable[[], object]) -> None:
    """Sends a part again while its errors may pass; it lies in memory, so nothing is lost by that."""
    for attempt in range(_PART_ATTEMPTS):
        try:
            send()
            return
        except StoreError as error:
            if not error.retryable or attempt + 1 == _PART_ATTEMPTS:
                raise
            (current_limits() or _UNLIMITED).sleep(error.retry_after or 0.1 * 2**attempt)
