"""Signed requests to S3 that can be stopped: minio's addresses and signatures over connections of our own.

The minio client itself hashes what TLS already protects, waits for minutes, hides the server's headers and cannot be
stopped, so only its parts are used here; it keeps the administration of buckets, over the same connections.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import SplitResult, urlunsplit

import urllib3
from minio import Minio
from minio import time as amazon_time
from minio.signer import sign_v4_s3

from datastore.context import Limits
from datastore.errors import PermissionDenied, TransientError
from stowstore.locations.s3.connections import STEP, Call, Pool
from stowstore.locations.s3.credentials import Keys
from stowstore.locations.s3.errors import FOREIGN, answer_error
from stowstore.locations.s3.forking import abandon
from stowstore.locations.s3.settings import Settings

__all__ = ["Answer", "Sent", "Wire", "WireBody"]

#: How much of an answer that refuses is read for its reason.
_REASON = 1 << 16
_UNSIGNED = "UNSIGNED-PAYLOAD"


class Answer(NamedTuple):
    """A whole answer; header names are looked up without case."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class Sent(Protocol):
    """A body that is read while it is sent."""

    def read(self, size: int = -1, /) -> bytes: ...


class Wire:
    """Sends requests to one service with one set of keys; thread-safe, and usable in forked children once reset."""

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self._settings = settings
        self._keys = keys
        self._pool, self.minio = self._connect()

    def send(
        self,
        method: str,
        bucket: str,
        key: str = "",
        *,
        limits: Limits | None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | memoryview | Sent = b"",
        size: int | None = None,
        patience: float | None = None,
    ) -> Answer:
        """Sends a request and returns the whole answer; a body that is read while sent needs its ``size``.

        Raises:
            StoreError: the server refused, could not be reached, or the limits are over.
        """
        call, response = self._exchange(method, bucket, key, limits, query, headers, body, size, patience)
        try:
            return Answer(response.status, response.headers, call.read_all(response))
        finally:
            call.end()

    def fetch(
        self, bucket: str, key: str, *, limits: Limits | None, headers: Mapping[str, str]
    ) -> tuple[Answer, WireBody]:
        """Asks for an object; its content comes through the body, which must be closed."""
        call, response = self._exchange("GET", bucket, key, limits, None, headers, b"", None, None)
        return Answer(response.status, response.headers, b""), WireBody(call, response)

    def url(self, method: str, bucket: str, key: str) -> SplitResult:
        """Where an object is, quoted but otherwise as it is."""
        return self._address(method, bucket, key, None)

    @property
    def is_amazon(self) -> bool:
        """Whether this is Amazon's own service, which honours what others may ignore without a word."""
        return bool(self.minio._base_url.is_aws_host)

    def reset_after_fork(self) -> None:
        """Starts over: sockets and locks are shared with the parent."""
        abandon(self._pool, self.minio)
        self._pool, self.minio = self._connect()

    def close(self) -> None:
        self._pool.clear()

    def _connect(self) -> tuple[Pool, Minio]:
        settings = self._settings
        pool = Pool(settings)
        client = Minio(
            settings.host,
            secure=settings.secure,
            region=settings.region,
            credentials=None if settings.anonymous else self._keys,
            http_client=pool,
        )
        client._base_url.virtual_style_flag = not settings.path_style
        return pool, client

    def _exchange(
        self,
        method: str,
        bucket: str,
        key: str,
        limits: Limits | None,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: bytes | memoryview | Sent,
        size: int | None,
        patience: float | None,
    ) -> tuple[Call, urllib3.BaseHTTPResponse]:
        url = self._address(method, bucket, key, query)
        signed = self._sign(method, url, {} if headers is None else dict(headers), body, size)
        call = Call(limits, patience or self._settings.timeout)
        try:
            response = self._pool.urlopen(
                method, urlunsplit(url), call=call, body=body or None, headers=signed, preload_content=False
            )
            if response.status < 300:
                return call, response
            reason = b"" if method == "HEAD" else response.read(_REASON, decode_content=False)
            response.close()
        except FOREIGN as error:
            call.end()
            raise call.explain(error) from error
        except BaseException:
            # What the body's reader raised is the caller's own.
            call.end()
            raise
        call.end()
        refusal = answer_error(response.status, "", reason.decode("utf-8", "replace"), response.headers)
        if isinstance(refusal, PermissionDenied) and self._keys.refresh():
            refusal.retryable = True
        raise refusal

    def _address(self, method: str, bucket: str, key: str, query: Mapping[str, str] | None) -> SplitResult:
        url: SplitResult = self.minio._base_url.build(
            method=method,
            region=self._settings.region,
            bucket_name=bucket,
            object_name=key or None,
            query_params=dict(query) if query else None,
        )
        return url

    def _sign(
        self,
        method: str,
        url: SplitResult,
        headers: dict[str, str],
        body: bytes | memoryview | Sent,
        size: int | None,
    ) -> dict[str, str]:
        headers.update(self._settings.headers)
        headers["Host"] = url.netloc
        if size is not None:
            headers["Content-Length"] = str(size)
        if self._keys.anonymous:
            return headers
        credentials = self._keys.retrieve()
        if self._settings.unsigned_payload or not isinstance(body, (bytes, memoryview)):
            digest = _UNSIGNED
        else:
            digest = hashlib.sha256(body).hexdigest()
        now = amazon_time.utcnow()
        headers["x-amz-date"] = amazon_time.to_amz_date(now)
        headers["x-amz-content-sha256"] = digest
        if credentials.session_token:
            headers["x-amz-security-token"] = credentials.session_token
        sign_v4_s3(
            method=method,
            url=url,
            region=self._settings.region,
            # It adds to the mapping it is given.
            headers=cast(dict[str, Any], headers),
            credentials=credentials,
            content_sha256=digest,
            date=now,
        )
        return headers


class WireBody:
    """The content of an answer, read as it arrives; stopped by the limits it was asked for in."""

    def __init__(self, call: Call, response: urllib3.BaseHTTPResponse) -> None:
        self._call = call
        self._response = response

    def read(self, size: int, /) -> bytes:
        try:
            return self._call.read(self._response, min(size, STEP))
        except FOREIGN as error:
            raise self._call.explain(error) from error

    def read_exactly(self, count: int) -> bytes:
        """The next ``count`` bytes.

        Raises:
            TransientError: there are fewer.
        """
        pieces = []
        while count:
            piece = self.read(count)
            if not piece:
                raise TransientError("the answer ended early")
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def skip(self, count: int) -> None:
        """Reads over bytes that were not asked for."""
        while count:
            count -= len(self.read_exactly(min(count, STEP)))

    def close(self) -> None:
        self._call.end()
        response = self._response
        if response.length_remaining == 0:
            # Read to its end, though not beyond: the connection can serve others.
            response.drain_conn()
        response.close()
