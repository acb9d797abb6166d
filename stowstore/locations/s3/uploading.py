"""Uploads in parts: bounded memory, parts retried on their own, and nothing left behind when they fail."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

from datastore.context import Limits
from datastore.errors import LimitExceeded, NotFound, StoreError, TransientError
from datastore.model import clean_etag
from stowstore.locations.s3.documents import complete_body, element_text, parse
from stowstore.locations.s3.errors import answer_error
from stowstore.locations.s3.settings import Settings
from stowstore.locations.s3.wire import Answer, Wire

__all__ = ["MAX_PARTS", "Upload", "checked", "part_sizes"]

#: What S3 takes in one upload.
MAX_PARTS = 10_000
#: Memory for the parts of one upload that are under way, in bytes.
_IN_FLIGHT = 64 << 20
_ATTEMPTS = 5
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 10.0
#: S3 puts the parts together before it answers, which takes long for many.
_PUTTING_TOGETHER = 600.0
_MEBIBYTE = 1 << 20
_GROWING_FROM = 8 * _MEBIBYTE

_Result = TypeVar("_Result")


class Sized(Protocol):
    """What an upload reads: the caller's source, or something around it."""

    @property
    def size(self) -> int | None: ...

    @property
    def data(self) -> bytes | memoryview | None: ...

    def read(self, size: int = -1, /) -> bytes: ...


class Upload:
    """One object on its way in parts, from the caller's thread; ``headers`` describe the object."""

    def __init__(
        self,
        wire: Wire,
        settings: Settings,
        bucket: str,
        key: str,
        headers: Mapping[str, str],
        conditions: Mapping[str, str],
        limits: Limits | None,
    ) -> None:
        self._wire = wire
        self._settings = settings
        self._bucket = bucket
        self._key = key
        self._headers = headers
        self._conditions = conditions
        self._limits = limits
        self._id = ""

    def run(self, source: Sized) -> str:
        """Sends the source and returns the object's etag; whatever the source raises passes through.

        Nothing is visible before the last request, and nothing stays in the bucket when this raises.
        """
        answer = self._patiently(lambda: self._send("POST", {"uploads": ""}, headers=self._headers))
        self._id = element_text(parse(answer.data), "UploadId")
        try:
            etags = self._send_parts(source)
            return self._complete(etags)
        except BaseException:
            self._abort()
            raise

    def _send_parts(self, source: Sized) -> list[str]:
        sent: list[Future[str]] = []
        running: set[Future[str]] = set()
        with ThreadPoolExecutor(self._settings.upload_threads, thread_name_prefix="stowstore-part") as threads:
            for part in _parts(source, self._settings.part_size):
                most = max(1, min(self._settings.upload_threads, _IN_FLIGHT // len(part)))
                while len(running) >= most:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for each in done:
                        each.result()
                sent.append(threads.submit(self._send_part, len(sent) + 1, part))
                running.add(sent[-1])
            return [each.result() for each in sent]

    def _send_part(self, number: int, part: bytes | memoryview) -> str:
        query = {"partNumber": str(number), "uploadId": self._id}
        answer = self._patiently(lambda: self._send("PUT", query, body=part))
        return clean_etag(answer.headers.get("ETag"))

    def _complete(self, etags: list[str]) -> str:
        body = complete_body(etags)
        failed: list[StoreError] = []

        def complete() -> str:
            try:
                answer = checked(
                    self._send(
                        "POST",
                        {"uploadId": self._id},
                        headers={"Content-Type": "application/xml", **self._conditions},
                        body=body,
                        patience=_PUTTING_TOGETHER,
                    )
                )
            except NotFound:
                # Gone after a lost answer: it may have been completed.
                if failed and self._is_there(_etag_of_parts(etags)):
                    return _etag_of_parts(etags)
                raise
            except StoreError as error:
                failed.append(error)
                raise
            # Ceph leaves it empty.
            return clean_etag(element_text(parse(answer.data), "ETag")) or _etag_of_parts(etags)

        return self._patiently(complete)

    def _is_there(self, etag: str) -> bool:
        try:
            return clean_etag(self._send("HEAD", {}).headers.get("ETag")) == etag
        except StoreError:
            return False

    def _abort(self) -> None:
        """Removes the parts; it must not be stopped by what stopped the upload."""
        self._limits = None
        try:
            self._patiently(lambda: self._send("DELETE", {"uploadId": self._id}))
        except StoreError:
            # The caller's own error matters more; a lifecycle rule of the bucket removes what is left.
            pass

    def _send(
        self,
        method: str,
        query: Mapping[str, str],
        headers: Mapping[str, str] | None = None,
        body: bytes | memoryview = b"",
        patience: float | None = None,
    ) -> Answer:
        return self._wire.send(
            method,
            self._bucket,
            self._key,
            limits=self._limits,
            query=query,
            headers=headers,
            body=body,
            patience=patience,
        )

    def _patiently(self, request: Callable[[], _Result]) -> _Result:
        """Repeats what failed for a moment: starting the whole object over would cost more."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return request()
            except StoreError as error:
                if not error.retryable or attempt == _ATTEMPTS:
                    raise
                most = min(_LONGEST_WAIT, _FIRST_WAIT * 2**attempt)
                seconds = max(error.retry_after or 0.0, random.uniform(most / 2, most))
                if self._limits is None:
                    time.sleep(seconds)
                else:
                    self._limits.sleep(seconds)
        raise AssertionError("unreachable")


def checked(answer: Answer) -> Answer:
    """The same answer, unless it says 200 and then, having thought about it, reports an error.

    Raises:
        StoreError: it does; S3 begins its answer before it has done the work.
    """
    root = parse(answer.data)
    if root.tag.rpartition("}")[2] == "Error":
        error = answer_error(500, element_text(root, "Code"), element_text(root, "Message"), answer.headers)
        raise error
    return answer


def part_sizes(size: int | None, least: int) -> Iterator[int]:
    """Sizes of an upload's parts, so that the largest object fits into as many as S3 takes.

    Of unknown size they grow slowly: a long stream should not begin with parts for the longest one.
    """
    if size is not None:
        even = -(-size // MAX_PARTS)
        one = max(least, -(-even // _MEBIBYTE) * _MEBIBYTE)
        while True:
            yield one
    least = max(least, _GROWING_FROM)
    for number in range(MAX_PARTS):
        # 1,000 parts of each size, from 8 MiB to 4 GiB: more than 5 TiB in all.
        yield least << number // 1000
    raise LimitExceeded("the stream is longer than the largest object", hint="declare its size, or split it")


def _parts(source: Sized, least: int) -> Iterator[bytes | memoryview]:
    sizes = part_sizes(source.size, least)
    whole = source.data
    if whole is not None:
        view, position = memoryview(whole), 0
        while position < len(view):
            size = next(sizes)
            yield view[position : position + size]
            position += size
        return
    for size in sizes:
        part = _read_full(source, size)
        if part:
            yield part
        if len(part) < size:
            return


def _read_full(source: Sized, size: int) -> bytes:
    pieces: list[bytes] = []
    missing = size
    while missing and (piece := source.read(missing)):
        pieces.append(piece)
        missing -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _etag_of_parts(etags: list[str]) -> str:
    """The etag S3 gives an object of these parts."""
    try:
        joined = b"".join(bytes.fromhex(etag) for etag in etags)
    except ValueError as error:
        raise TransientError("whether the upload was completed is not known", retryable=False) from error
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(etags)}"
