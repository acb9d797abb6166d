"""One bucket."""

from __future__ import annotations

import base64
import hashlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import obstore

from datastore.context import current_limits
from datastore.driver import Container, DriverEntry, DriverPage, resume_after
from datastore.errors import (
    AlreadyExists,
    NoSuchContainer,
    NotFound,
    NotSupported,
    PermissionDenied,
    PreconditionFailed,
    StoreError,
    Throttled,
)
from datastore.model import CONTENT_MD5_KEY, Metadata, SignedURLProperties, SignedURLResponse, WriteOptions, clean_etag
from datastore.source import Source
from datastore.stream import ReadStream
from stowstore.locations.s3.documents import delete_body, element_text, parse, parse_delete_errors, parse_listing
from stowstore.locations.s3.errors import FOREIGN, answer_error, translate
from stowstore.locations.s3.headers import (
    META,
    attributes_of,
    bare_etag,
    conditions_of,
    metadata_of_answer,
    metadata_of_result,
    object_size,
    service_headers,
    write_headers,
)
from stowstore.locations.s3.reading import empty_range, open_on_wire, open_with_obstore, past_the_end, stream_of
from stowstore.locations.s3.signing import signed_query
from stowstore.locations.s3.uploading import Upload, checked

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import S3Store

    from stowstore.locations.s3.location import S3Location

__all__ = ["S3Container"]

#: What S3 lists or removes in one request.
_PAGE = 1000
#: The largest object S3 takes, or copies, in one request.
_ONE_REQUEST = 5 << 30
#: Seconds during which requests take the way that shows how long a server asks to wait.
_BUSY = 30.0
#: Seconds a copy on the server may take; it says nothing meanwhile.
_COPYING = 600.0

_get = obstore.get
_put = obstore.put


class S3Container:
    """Objects of one bucket.

    Plain requests go through obstore.  Requests of our own take over where it cannot go: within limits, since it
    cannot be stopped; in forked children, where it hangs; for keys with control characters or empty segments, which it
    refuses; and for a while after the server asked for patience, since it does not tell how much.
    """

    def __init__(self, location: S3Location, name: str) -> None:
        self._location = location
        self._name = name
        self._wire = location.wire
        self._settings = location.settings
        self._part_size = location.settings.part_size
        self._store: S3Store | None = None
        self._busy_until = 0.0
        # Comparing with the options seen last costs less than looking at each of them again.
        self._plain: WriteOptions | None = None

    @property
    def name(self) -> str:
        return self._name

    def head(self, key: str) -> Metadata:
        store = self._fast(key)
        if store is None:
            answer = self._wire.send("HEAD", self._name, key, limits=current_limits())
            return metadata_of_answer(answer.headers, object_size(answer.headers))
        try:
            # `obstore.head` leaves out user metadata.
            return metadata_of_result(_get(store, key, options={"head": True}))
        except FOREIGN as error:
            self._raise(error)

    def open(self, key: str, start: int, length: int | None, if_match: str | None) -> ReadStream:
        store = self._fast(key)
        if store is not None and start == 0 and length is None and if_match is None:
            try:
                return stream_of(_get(store, key))
            except FOREIGN as error:
                self._raise(error)
        if length == 0:
            return empty_range(self.head(key), if_match)
        try:
            if start < 0 and length is not None and length < -start:
                # S3 has no range that begins so far from the end and stops before it.
                known = self.head(key)
                start, if_match = max(0, known.size + start), if_match or known.etag
            if store is None:
                return open_on_wire(self._wire, self._name, key, start, length, if_match, current_limits())
            try:
                return open_with_obstore(store, key, start, length, if_match)
            except FOREIGN as error:
                self._raise(error)
        except StoreError as error:
            if not past_the_end(error):
                raise
        return empty_range(self.head(key), if_match)

    def put(self, key: str, source: Source, options: WriteOptions) -> str:
        store = self._fast(key)
        content = source.data
        if content is None or len(content) > self._part_size:
            content = source.buffered(self._part_size)
        if content is None:
            return self._put_large(key, source, options)
        if store is None:
            return self._send_object(key, content, len(content), options)
        if options is not self._plain:
            return self._put_described(store, key, content, options)
        try:
            return bare_etag(_put(store, key, content, use_multipart=False)["e_tag"])
        except FOREIGN as error:
            self._raise(error)

    def delete(self, key: str) -> None:
        store = self._fast(key)
        try:
            if store is None:
                self._wire.send("DELETE", self._name, key, limits=current_limits())
            else:
                try:
                    obstore.delete(store, key)
                except FOREIGN as error:
                    self._raise(error)
        except NotFound:
            pass

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        failed: dict[str, StoreError] = {}
        # XML cannot carry control characters.
        bulk = [key for key in keys if key.isprintable()]
        for start in range(0, len(bulk), _PAGE):
            body = delete_body(bulk[start : start + _PAGE])
            digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
            answer = self._wire.send(
                "POST",
                self._name,
                limits=current_limits(),
                query={"delete": ""},
                headers={"Content-MD5": digest, "Content-Type": "application/xml"},
                body=body,
            )
            for key, code, message in parse_delete_errors(answer.data):
                error = answer_error(200, code or "InternalError", message)
                if not isinstance(error, NotFound):
                    failed[key] = error
        for key in keys:
            if not key.isprintable():
                try:
                    self.delete(key)
                except StoreError as error:
                    failed[key] = error
        return failed

    def list(self, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage:
        entries: list[DriverEntry] = []
        prefixes: list[str] = []
        omitted = 0
        query = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
        if delimiter:
            query["delimiter"] = delimiter
        if after:
            after = resume_after(after, delimiter, prefix)
            folded = _folded(prefix, after, delimiter)
            if folded:
                past = resume_after(folded, delimiter, prefix)
                # Services disagree whether a prefix they start inside of is still to come: look, and start behind it.
                if after != past and self.list(folded, after, 1, "").entries:
                    prefixes.append(folded)
                after = past
            query["start-after"] = after
        while True:
            missing = limit - len(entries) - len(prefixes)
            query["max-keys"] = str(min(missing, _PAGE) or 1)
            answer = self._wire.send("GET", self._name, limits=current_limits(), query=query)
            page = parse_listing(answer.data)
            if not missing:
                return DriverPage(entries, prefixes, bool(page.entries or page.prefixes), omitted)
            entries += page.entries
            prefixes += page.prefixes
            omitted += page.omitted
            if not page.token or len(entries) + len(prefixes) >= limit:
                return DriverPage(entries, prefixes, bool(page.token), omitted)
            query["continuation-token"] = page.token

    def copy(self, key: str, source: Container, source_key: str, options: WriteOptions | None) -> str:
        if not isinstance(source, S3Container) or source._location is not self._location:
            raise NotSupported("only objects of one location are copied on the server")
        headers = {"x-amz-copy-source": quote(f"/{source.name}/{source_key}", safe="/-_.~")}
        if options is None:
            headers.update(service_headers(self._settings))
        elif conditions_of(options):
            raise NotSupported("few services check conditions of a copy: the bytes have to be moved")
        else:
            headers.update(write_headers(options, self._settings))
            headers["x-amz-metadata-directive"] = "REPLACE"
            if options.tags:
                headers["x-amz-tagging-directive"] = "REPLACE"
        try:
            answer = checked(
                self._wire.send("PUT", self._name, key, limits=current_limits(), headers=headers, patience=_COPYING)
            )
        except StoreError as error:
            if error.http_status == 400 and source.head(source_key).size > _ONE_REQUEST:
                raise NotSupported("the object is larger than 5 GiB, which is what S3 copies at once") from error
            raise
        return clean_etag(element_text(parse(answer.data), "ETag"))

    def sign(self, key: str, properties: SignedURLProperties) -> SignedURLResponse:
        if self._settings.anonymous:
            raise PermissionDenied("there are no credentials to sign with", hint="configure keys, not anonymous: true")
        method = properties.scope.method
        headers = self._signed_headers(properties) if method == "PUT" else {}
        url = self._wire.url(method, self._name, key)
        keys = self._location.keys.retrieve()
        query = signed_query(
            method=method,
            host=url.netloc,
            path=url.path,
            headers=headers,
            region=self._settings.region,
            access_key=keys.access_key,
            secret_key=keys.secret_key,
            token=keys.session_token,
            expires_in=int(properties.expires_in),
            now=datetime.now(UTC),
        )
        return SignedURLResponse(
            url=url._replace(query=query).geturl(), required_request_headers=headers, method=method
        )

    def forget_store(self) -> None:
        """Makes obstore's client anew, or in a forked child none."""
        self._store = None

    def _fast(self, key: str) -> S3Store | None:
        """obstore's client, if this request may go through it."""
        # Cheaper than a search for control characters, and it errs to the side that always works.
        if current_limits() is not None or not key.isprintable() or "//" in key:
            return None
        store = self._store
        if store is not None:
            return store
        if time.monotonic() < self._busy_until:
            return None
        self._store = self._location.obstore_client(self._name)
        return self._store

    def _put_described(self, store: S3Store, key: str, content: bytes | memoryview, options: WriteOptions) -> str:
        attributes = attributes_of(options, self._settings.storage_class)
        if attributes is None or options.tags:
            # obstore writes a space in a tag as "+", which Ceph takes for a plus.
            return self._send_object(key, content, len(content), options)
        more: dict[str, Any] = {}
        if attributes:
            more["attributes"] = attributes
        if options.if_absent or options.if_match is not None:
            mode: PutMode = "create" if options.if_absent else {"e_tag": options.if_match}
            more["mode"] = mode
        try:
            etag = bare_etag(_put(store, key, content, use_multipart=False, **more)["e_tag"])
        except FOREIGN as error:
            try:
                self._raise(error)
            except StoreError as meaning:
                raise _of_condition(meaning, options) from error
        if not more:
            self._plain = options
        return etag

    def _send_object(self, key: str, content: bytes | memoryview | _Overheard, size: int, options: WriteOptions) -> str:
        """Writes an object in one request of our own."""
        try:
            answer = self._wire.send(
                "PUT",
                self._name,
                key,
                limits=current_limits(),
                headers={**write_headers(options, self._settings), **conditions_of(options)},
                body=content,
                size=size,
            )
        except StoreError as error:
            meaning = _of_condition(error, options)
            if meaning is error:
                raise
            raise meaning from error
        return bare_etag(answer.headers.get("ETag"))

    def _put_large(self, key: str, source: Source, options: WriteOptions) -> str:
        conditions = conditions_of(options)
        if (conditions or options.tags) and not self._wire.is_amazon:
            return self._put_in_one(key, source, options)
        headers = write_headers(options, self._settings)
        heard = _Overheard(source)
        try:
            return Upload(self._wire, self._settings, self._name, key, headers, conditions, current_limits()).run(heard)
        except StoreError as error:
            if error is heard.error:
                raise
            raise _of_condition(error, options) from error.__cause__

    def _put_in_one(self, key: str, source: Source, options: WriteOptions) -> str:
        """Sends a large object in one request: Ceph and others ignore conditions and tags of uploads in parts."""
        if source.size is None:
            with tempfile.TemporaryFile() as spool:
                for piece in source:
                    spool.write(piece)
                size = spool.tell()
                spool.seek(0)
                return self._put_in_one(key, Source(spool, size), options)
        if source.size > _ONE_REQUEST:
            raise NotSupported(
                "this service takes neither conditions nor tags for objects larger than 5 GiB",
                hint="write without if_absent, if_match and tags, or smaller objects",
            )
        heard = _Overheard(source)
        try:
            return self._send_object(key, heard, source.size, options)
        except BaseException:
            if heard.error is not None:
                # The transport may have wrapped what the caller's own stream raised.
                raise heard.error from None
            raise

    def _signed_headers(self, properties: SignedURLProperties) -> dict[str, str]:
        headers = {f"{META}{name}": value for name, value in properties.metadata.items()}
        headers.update(service_headers(self._settings))
        if properties.content_md5 is not None:
            headers["Content-MD5"] = properties.content_md5
            if properties.add_content_md5_metadata:
                headers[f"{META}{CONTENT_MD5_KEY}".lower()] = properties.content_md5
        if properties.content_type:
            headers["Content-Type"] = properties.content_type
        if properties.content_length is not None:
            headers["Content-Length"] = str(properties.content_length)
        if properties.if_absent:
            headers["If-None-Match"] = "*"
        return headers

    def _raise(self, error: BaseException) -> NoReturn:
        """Raises what obstore's error means, and takes the other way for a while where that helps."""
        meaning = translate(error)
        if isinstance(meaning, Throttled):
            self._busy_until = time.monotonic() + _BUSY
            self._store = None
        elif isinstance(meaning, PermissionDenied) and self._location.found_other_keys():
            meaning.retryable = True
        if meaning is error:
            raise meaning
        raise meaning from error


def _folded(prefix: str, after: str, delimiter: str) -> str:
    """The common prefix that ``after`` lies in, "" if it lies in none."""
    if not delimiter or not after.startswith(prefix):
        return ""
    cut = after.find(delimiter, len(prefix))
    return after[: cut + 1] if cut >= 0 else ""


def _of_condition(error: StoreError, options: WriteOptions) -> StoreError:
    """What a refused write means where it was conditional."""
    if options.if_absent and isinstance(error, PreconditionFailed):
        return AlreadyExists("there is an object of this key", http_status=error.http_status)
    if options.if_match is not None and isinstance(error, NotFound) and not isinstance(error, NoSuchContainer):
        # Some services say that there is nothing to compare with, others that it does not match.
        return PreconditionFailed("there is no object of this key", http_status=error.http_status)
    return error


class _Overheard:
    """A source that keeps what it raised, to tell the caller's errors from the service's."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.error: BaseException | None = None
        self.size = source.size
        self.data = source.data

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._source.read(size)
        except BaseException as error:
            self.error = error
            raise
