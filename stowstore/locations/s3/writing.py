"""Writes that obstore cannot do as they are asked for."""

from __future__ import annotations

import tempfile

from datastore.context import current_limits
from datastore.errors import AlreadyExists, NoSuchContainer, NotFound, NotSupported, PreconditionFailed, StoreError
from datastore.model import WriteOptions
from datastore.source import Source
from stowstore.locations.s3.headers import bare_etag, conditions_of, write_headers
from stowstore.locations.s3.settings import Settings
from stowstore.locations.s3.uploading import Upload
from stowstore.locations.s3.wire import Wire

__all__ = ["ONE_REQUEST", "Writer", "error_of_condition"]

#: The largest object S3 takes, or copies, in one request.
ONE_REQUEST = 5 << 30


class Writer:
    """Writes to one bucket through requests of our own; every method returns the object's etag."""

    def __init__(self, wire: Wire, settings: Settings, bucket: str) -> None:
        self._wire = wire
        self._settings = settings
        self._bucket = bucket

    def write(self, key: str, content: bytes | memoryview | _Overheard, size: int, options: WriteOptions) -> str:
        """Writes an object in one request."""
        try:
            answer = self._wire.send(
                "PUT",
                self._bucket,
                key,
                limits=current_limits(),
                headers={**write_headers(options, self._settings), **conditions_of(options)},
                body=content,
                size=size,
            )
        except StoreError as error:
            meaning = error_of_condition(error, options)
            if meaning is error:
                raise
            raise meaning from error
        return bare_etag(answer.headers.get("ETag"))

    def write_large(self, key: str, source: Source, options: WriteOptions) -> str:
        """Writes an object in parts where the service can do so as asked; what the source raises passes through."""
        conditions = conditions_of(options)
        if (conditions or options.tags) and not self._wire.is_amazon:
            return self._write_at_once(key, source, options)
        headers = write_headers(options, self._settings)
        heard = _Overheard(source)
        upload = Upload(self._wire, self._settings, self._bucket, key, headers, conditions, current_limits())
        try:
            return upload.run(heard)
        except StoreError as error:
            if error is heard.error:
                raise
            raise error_of_condition(error, options) from error.__cause__

    def _write_at_once(self, key: str, source: Source, options: WriteOptions) -> str:
        """Sends a large object in one request: Ceph and others ignore conditions and tags of uploads in parts."""
        if source.size is None:
            with tempfile.TemporaryFile() as spool:
                for piece in source:
                    spool.write(piece)
                size = spool.tell()
                spool.seek(0)
                return self._write_at_once(key, Source(spool, size), options)
        if source.size > ONE_REQUEST:
            raise NotSupported(
                "this service takes neither conditions nor tags for objects larger than 5 GiB",
                hint="write without if_absent, if_match and tags, or smaller objects",
            )
        heard = _Overheard(source)
        try:
            return self.write(key, heard, source.size, options)
        except BaseException:
            if heard.error is not None:
                # The transport may have wrapped what the caller's own stream raised.
                raise heard.error from None
            raise


def error_of_condition(error: StoreError, options: WriteOptions) -> StoreError:
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
