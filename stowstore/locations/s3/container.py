"""One bucket."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import obstore

from datastore.context import current_limits
from datastore.driver import Container, DriverPage
from datastore.errors import NotFound, NotSupported, PermissionDenied, StoreError, Throttled
from datastore.model import Metadata, SignedURLProperties, SignedURLResponse, WriteOptions, clean_etag
from datastore.source import Source
from datastore.stream import ReadStream
from stowstore.locations.s3.deleting import delete_together
from stowstore.locations.s3.documents import element_text, parse
from stowstore.locations.s3.errors import FOREIGN, translate
from stowstore.locations.s3.headers import (
    attributes_of,
    bare_etag,
    conditions_of,
    metadata_of_answer,
    metadata_of_result,
    object_size,
    service_headers,
    signed_headers,
    write_headers,
)
from stowstore.locations.s3.listing import list_page
from stowstore.locations.s3.reading import empty_range, open_on_wire, open_with_obstore, past_the_end, stream_of
from stowstore.locations.s3.signing import signed_query
from stowstore.locations.s3.uploading import checked
from stowstore.locations.s3.writing import ONE_REQUEST, Writer, error_of_condition

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import S3Store

    from stowstore.locations.s3.location import S3Location

__all__ = ["S3Container"]

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
        self._writer = Writer(self._wire, self._settings, name)
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
            return self._writer.write_large(key, source, options)
        if store is None:
            return self._writer.write(key, content, len(content), options)
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
        # XML cannot carry control characters.
        failed = delete_together(self._wire, self._name, filter(str.isprintable, keys))
        for key in dict.fromkeys(keys):
            if not key.isprintable():
                try:
                    self.delete(key)
                except StoreError as error:
                    failed[key] = error
        return failed

    def list(self, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage:
        return list_page(self._wire, self._name, prefix, after, limit, delimiter)

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
            if error.http_status == 400 and source.head(source_key).size > ONE_REQUEST:
                raise NotSupported("the object is larger than 5 GiB, which is what S3 copies at once") from error
            raise
        return clean_etag(element_text(parse(answer.data), "ETag"))

    def sign(self, key: str, properties: SignedURLProperties) -> SignedURLResponse:
        if self._settings.anonymous:
            raise PermissionDenied("there are no credentials to sign with", hint="configure keys, not anonymous: true")
        method = properties.scope.method
        headers = signed_headers(properties, self._settings) if method == "PUT" else {}
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

    def forget_store(self) -> S3Store | None:
        """Has obstore's client made anew, or in a forked child none; returns the one there was."""
        forgotten, self._store = self._store, None
        return forgotten

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
            return self._writer.write(key, content, len(content), options)
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
                raise error_of_condition(meaning, options) from error
        if not more:
            self._plain = options
        return etag

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
