"""The objects of one Swift container: the requests for them, and what their answers mean."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from datastore.driver import Container, DriverEntry, DriverPage, resume_after
from datastore.errors import (
    AlreadyExists,
    DigestMismatch,
    NoSuchContainer,
    NotFound,
    NotSupported,
    PreconditionFailed,
    StoreError,
)
from datastore.model import Metadata, SignedURLProperties, SignedURLResponse, WriteOptions, clean_etag
from datastore.source import Source
from datastore.stream import ReadStream
from stowstore.locations._swift_headers import entry_from, metadata_from, object_headers, signed_headers

if TYPE_CHECKING:
    import requests

    from stowstore.locations.swift import SwiftLocation

__all__ = ["MAX_OBJECT", "PAGE", "SwiftContainer", "parsed"]

#: Swift's default for the largest object that is not put together from segments.
MAX_OBJECT = (5 << 30) + 2
#: Bodies up to this size are sent whole, with their MD5 for Swift to check; larger ones are streamed.
_WHOLE = 4 << 20
#: The most Swift lists or deletes in one request by default.
PAGE = 10000
_DELETE = 1000


class SwiftContainer:
    """One container of a Swift account."""

    def __init__(self, location: SwiftLocation, name: str) -> None:
        self._location = location
        self._session = location.session
        self._name = name
        self._path = f"/{quote(name, safe='')}"

    @property
    def name(self) -> str:
        return self._name

    def head(self, key: str) -> Metadata:
        response = self._session.request("HEAD", self._object(key))
        if response.status_code == 404:
            self._session.finish(response)
            raise NotFound("there is no such object")
        if response.status_code != 200:
            raise self._session.refused(response)
        self._session.finish(response)
        return metadata_from(response.headers, int(response.headers["Content-Length"]))

    def open(self, key: str, start: int, length: int | None, if_match: str | None) -> ReadStream:
        headers: dict[str, str] = {}
        if if_match is not None:
            headers["If-Match"] = f'"{if_match}"'
        if start or length is not None:
            last = "" if length is None or start < 0 else str(start + max(length, 1) - 1)
            headers["Range"] = f"bytes={start}" if start < 0 else f"bytes={start}-{last}"
        response = self._session.request("GET", self._object(key), headers=headers)
        status = response.status_code
        if status == 416:
            self._session.finish(response)
            return self._past_the_end(key, if_match)
        if status == 404:
            self._session.finish(response)
            self._require_container()
            raise NotFound("there is no such object")
        if status == 412:
            self._session.finish(response)
            raise PreconditionFailed(f"the object is not the one of etag {if_match}")
        if status not in (200, 206):
            raise self._session.refused(response)
        sent = int(response.headers["Content-Length"])
        size = int(response.headers["Content-Range"].rpartition("/")[2]) if status == 206 else sent
        known = response.headers
        wanted = sent if length is None else min(length, sent)
        return ReadStream(self._session.body(response), wanted, lambda: metadata_from(known, size))

    def put(self, key: str, source: Source, options: WriteOptions) -> str:
        from stowstore.locations._swift_session import SizedUpload, Upload

        headers = object_headers(options)
        if options.if_absent:
            headers["If-None-Match"] = "*"
        body: bytes | Upload
        content = source.buffered(_WHOLE)
        if content is not None:
            body = bytes(content)
            headers["ETag"] = hashlib.md5(body, usedforsecurity=False).hexdigest()
        else:
            # Swift answers a missing container or an existing object only after a body is on its way.
            self._check_before_upload(key, options)
            if options.content_md5:
                headers["ETag"] = base64.b64decode(options.content_md5).hex()
            limit = self._location.capabilities.max_object_bytes or MAX_OBJECT
            body = Upload(source, limit) if source.size is None else SizedUpload(source, limit, source.size)
        return self._written(self._session.request("PUT", self._object(key), headers=headers, body=body))

    def delete(self, key: str) -> None:
        response = self._session.request("DELETE", self._object(key))
        if response.status_code not in (204, 200, 404):
            raise self._session.refused(response)
        self._session.finish(response)

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        failed: dict[str, StoreError] = {}
        for first in range(0, len(keys), _DELETE):
            some = keys[first : first + _DELETE]
            if not self._delete_bulk(some, failed):
                for key in some:
                    try:
                        self.delete(key)
                    except StoreError as error:
                        failed[key] = error
        return failed

    def list(self, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage:
        entries: list[DriverEntry] = []
        prefixes: list[str] = []
        marker = resume_after(after, delimiter, prefix)
        while True:
            # One more than wanted tells whether anything follows.
            asked = min(limit + 1 - len(entries) - len(prefixes), PAGE)
            rows = self._rows(prefix, marker, asked, delimiter)
            for row in rows:
                if len(entries) + len(prefixes) == limit:
                    return DriverPage(entries, prefixes, more=True)
                if "subdir" in row:
                    prefixes.append(row["subdir"])
                    marker = resume_after(row["subdir"], delimiter)
                else:
                    entries.append(entry_from(row))
                    marker = row["name"]
            if len(rows) < asked:
                return DriverPage(entries, prefixes)

    def copy(self, key: str, source: Container, source_key: str, options: WriteOptions | None) -> str:
        if not isinstance(source, SwiftContainer) or source._location is not self._location:
            raise NotSupported("only objects of the same account are copied in place")
        headers = {"X-Copy-From": source._object(source_key)}
        if options is not None:
            headers |= {**object_headers(options), "X-Fresh-Metadata": "true"}
            if options.if_absent:
                self._check_before_upload(key, options)
        response = self._session.request("PUT", self._object(key), headers=headers)
        if response.status_code == 404:
            self._session.finish(response)
            self._require_container()
            raise NotFound("there is no such object to copy")
        if response.status_code == 413:
            self._session.finish(response)
            raise NotSupported("Swift does not copy an object this large")
        return self._written(response)

    def sign(self, key: str, properties: SignedURLProperties) -> SignedURLResponse:
        from stowstore.locations._swift_session import account_of

        root, account = account_of(self._session.account_url)
        path = f"{account}/{self._name}/{key}"
        expires = int(time.time() + properties.expires_in)
        method = properties.scope.method
        signed = f"{method}\n{expires}\n{path}".encode()
        signature = hmac.new(self._location.temp_url_key().encode(), signed, hashlib.sha256).hexdigest()
        return SignedURLResponse(
            url=f"{root}{quote(path)}?temp_url_sig={signature}&temp_url_expires={expires}",
            required_request_headers=signed_headers(properties),
            method=method,
        )

    def _object(self, key: str) -> str:
        return f"{self._path}/{quote(key)}"

    def _past_the_end(self, key: str, if_match: str | None) -> ReadStream:
        metadata = self.head(key)
        if if_match is not None and metadata.etag != if_match:
            raise PreconditionFailed(f"the object is not the one of etag {if_match}")
        return ReadStream(b"", 0, metadata)

    def _require_container(self) -> None:
        """Swift's 404 does not say whether the object or its container is missing."""
        if not self._location.has_container(self._name):
            raise NoSuchContainer(f"there is no container {self._name}")

    def _check_before_upload(self, key: str, options: WriteOptions) -> None:
        self._require_container()
        if options.if_absent:
            try:
                self.head(key)
            except NotFound:
                return
            raise AlreadyExists("there is an object of this key")

    def _written(self, response: requests.Response) -> str:
        status = response.status_code
        if status == 201:
            self._session.finish(response)
            return clean_etag(response.headers.get("Etag"))
        if status == 404:
            self._session.finish(response)
            raise NoSuchContainer(f"there is no container {self._name}")
        if status == 412:
            self._session.finish(response)
            raise AlreadyExists("there is an object of this key")
        if status == 422:
            self._session.finish(response)
            raise DigestMismatch("Swift received other bytes than were sent", retryable=True)
        raise self._session.refused(response)

    def _delete_bulk(self, keys: Sequence[str], failed: dict[str, StoreError]) -> bool:
        """Deletes in one request; False where the cluster has no bulk operations."""
        paths = {self._object(key): key for key in keys}
        if len(paths) < 2 or self._location.without_bulk:
            return False
        response = self._session.request(
            "POST",
            "",
            params={"bulk-delete": "true"},
            headers={"Content-Type": "text/plain", "Accept": "application/json"},
            body="\n".join(paths).encode(),
        )
        answer = parsed(self._session.content(response)) if response.status_code == 200 else None
        if not isinstance(answer, dict) or "Number Deleted" not in answer:
            if response.status_code in (401, 403) or response.status_code >= 500:
                raise self._session.refused(response)
            self._session.finish(response)
            self._location.without_bulk = True
            return False
        for path, reason in answer.get("Errors", ()):
            key = paths.get(path) or unquote(path).removeprefix(f"/{self._name}/")
            try:
                # A second look with a status of its own beats reading one out of a text.
                self.delete(key)
            except StoreError as error:
                error.hint = error.hint or str(reason)
                failed[key] = error
        return True

    def _rows(self, prefix: str, marker: str, limit: int, delimiter: str) -> Sequence[dict[str, Any]]:
        params = {"prefix": prefix, "marker": marker, "limit": str(limit), "delimiter": delimiter}
        return self._location.rows(self._path, params, self._name)


def parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None
