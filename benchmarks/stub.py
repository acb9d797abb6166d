"""A stand-in for an S3 service that costs its clients next to nothing to talk to.

It keeps small objects in memory, forgets the bytes of large ones and makes up zeros when they are read, checks no
signatures, and answers from one thread over raw sockets, so that what is measured is the client.  Run in a process of
its own: ``python -m benchmarks.stub`` prints its port and ends with its standard input.
"""

from __future__ import annotations

import re
import select
import socket
import sys
from functools import lru_cache
from hashlib import md5
from urllib.parse import parse_qsl, unquote

__all__ = ["StubObjects", "main"]

#: Objects up to this size are kept byte for byte, larger ones only by their size.
_KEPT = 8 << 20
_PIECE = 1 << 20
_ZEROS = bytes(_PIECE)
_ETAG = "9b2cf535f27731c974343645a3985328"
_TIME = "2026-01-01T00:00:00.000Z"
_HTTP_TIME = "Thu, 01 Jan 2026 00:00:00 GMT"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d*)", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect: *100-continue", re.IGNORECASE)
_HEADERS = f'Date: {_HTTP_TIME}\r\nLast-Modified: {_HTTP_TIME}\r\nETag: "{_ETAG}"\r\n'


class StubObjects:
    """What the service holds and how it answers."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes | int] = {}
        self._parts: dict[str, int] = {}
        self._pages: dict[tuple[str, ...], bytes] = {}

    def keeps(self, query: str, size: int) -> bool:
        """Whether the bytes of this upload will be wanted again."""
        return not query and size <= _KEPT

    def answer(
        self, method: str, path: str, query: str, body: bytes, size: int, bounds: tuple[int, int | None] | None
    ) -> tuple[bytes, bytes | int]:
        """Head and body of the answer; a body given as a number is so many zeros."""
        bucket, _, key = path.lstrip("/").partition("/")
        if method == "PUT" and not query and key:
            self._objects[path] = body if size <= _KEPT else size
            self._pages.clear()
            return _put_answer(body), b""
        if method in ("GET", "HEAD") and key and "uploadId" not in query:
            return self._read(method, path, bounds)
        if method == "GET":
            return self._list_or_describe(bucket, dict(parse_qsl(query, keep_blank_values=True)))
        if method == "DELETE":
            self._objects.pop(path, None)
            return b"HTTP/1.1 204 No Content\r\n\r\n", b""
        return self._write_in_parts(method, path, dict(parse_qsl(query, keep_blank_values=True)), size)

    def _read(self, method: str, path: str, bounds: tuple[int, int | None] | None) -> tuple[bytes, bytes | int]:
        found = self._objects.get(path)
        if found is None:
            return _whole("404 Not Found", b"<Error><Code>NoSuchKey</Code></Error>" if method == "GET" else b"")
        size = found if isinstance(found, int) else len(found)
        status, extra, content = "200 OK", "", found
        if bounds is not None:
            first = bounds[0]
            last = size - 1 if bounds[1] is None else min(bounds[1], size - 1)
            status, extra = "206 Partial Content", f"Content-Range: bytes {first}-{last}/{size}\r\n"
            content = last - first + 1 if isinstance(found, int) else found[first : last + 1]
        length = content if isinstance(content, int) else len(content)
        head = f"HTTP/1.1 {status}\r\n{_HEADERS}{extra}Content-Length: {length}\r\n\r\n".encode()
        return head, b"" if method == "HEAD" else content

    def _write_in_parts(self, method: str, path: str, query: dict[str, str], size: int) -> tuple[bytes, bytes | int]:
        if "uploads" in query:
            self._parts[path] = 0
            return _whole("200 OK", _document("InitiateMultipartUploadResult", "<UploadId>one</UploadId>"))
        if "uploadId" in query:
            if method == "PUT":
                self._parts[path] += size
                return _put_answer(b""), b""
            self._objects[path] = self._parts.pop(path)
            etag = f"<ETag>&quot;{_ETAG}-2&quot;</ETag>"
            return _whole("200 OK", _document("CompleteMultipartUploadResult", etag))
        return _whole("200 OK", b"")

    def _list_or_describe(self, bucket: str, query: dict[str, str]) -> tuple[bytes, bytes | int]:
        if "location" in query:
            return _whole("200 OK", b"<LocationConstraint>us-east-1</LocationConstraint>")
        after = query.get("continuation-token") or query.get("start-after") or query.get("marker") or ""
        asked = (bucket, query.get("prefix", ""), after, query.get("max-keys", "1000"))
        page = self._pages.get(asked)
        if page is None:
            page = self._pages[asked] = self._page(*asked)
        return _whole("200 OK", page)

    def _page(self, bucket: str, prefix: str, after: str, most: str) -> bytes:
        start = f"/{bucket}/"
        keys = sorted(path[len(start) :] for path in self._objects if path.startswith(start + prefix))
        keys = [key for key in keys if key > after]
        page, more = keys[: int(most)], len(keys) > int(most)
        entries = []
        for key in page:
            found = self._objects[start + key]
            size = found if isinstance(found, int) else len(found)
            entries.append(
                f"<Contents><Key>{key}</Key><LastModified>{_TIME}</LastModified><ETag>&quot;{_ETAG}&quot;</ETag>"
                f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
        following = f"<NextContinuationToken>{page[-1]}</NextContinuationToken><NextMarker>{page[-1]}</NextMarker>"
        return _document(
            "ListBucketResult",
            f"<Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{len(page)}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{following if more else ''}{''.join(entries)}",
        )


@lru_cache(maxsize=4)
def _put_answer(body: bytes) -> bytes:
    """libcloud compares the etag with the MD5 of what it sent; the same few bodies come again and again."""
    etag = md5(body, usedforsecurity=False).hexdigest()
    return f'HTTP/1.1 200 OK\r\nDate: {_HTTP_TIME}\r\nETag: "{etag}"\r\nContent-Length: 0\r\n\r\n'.encode()


def _document(name: str, content: str) -> bytes:
    namespace = "http://s3.amazonaws.com/doc/2006-03-01/"
    return f'<?xml version="1.0" encoding="UTF-8"?><{name} xmlns="{namespace}">{content}</{name}>'.encode()


def _whole(status: str, body: bytes) -> tuple[bytes, bytes]:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode(), body


class _Connection:
    """One client's connection: the request arriving, or the answer leaving."""

    def __init__(self, sock: socket.socket, objects: StubObjects) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._objects = objects
        self._in = b""
        self._out = b""
        #: Zeros still to be sent after ``_out``.
        self._zeros = 0
        self._request: tuple[str, str, str, int, tuple[int, int | None] | None] | None = None
        self._kept: list[bytes] | None = None
        self._missing = 0

    def readable(self, buffer: memoryview) -> bool:
        """Takes what arrived; False when the client has gone."""
        try:
            count = self.sock.recv_into(buffer)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        if count == 0:
            return False
        if self._missing > count:
            self._missing -= count
            if self._kept is not None:
                self._kept.append(bytes(buffer[:count]))
            return True
        self._in += bytes(buffer[:count])
        try:
            while self._in and self._step():
                pass
        except ConnectionError as error:
            print(f"stub: {error}", file=sys.stderr, flush=True)
            return False
        return True

    @property
    def has_output(self) -> bool:
        return bool(self._out or self._zeros)

    def writable(self) -> bool:
        """Sends what can be sent; False when the client has gone."""
        try:
            while self._out or self._zeros:
                if not self._out:
                    count = self.sock.send(_ZEROS if self._zeros >= _PIECE else _ZEROS[: self._zeros])
                    self._zeros -= count
                    continue
                self._out = self._out[self.sock.send(self._out) :]
        except BlockingIOError:
            pass
        except ConnectionError:
            return False
        return True

    def _step(self) -> bool:
        """Makes progress with the request at hand; False when more has to arrive."""
        if self._request is None:
            head, end, rest = self._in.partition(b"\r\n\r\n")
            if not end:
                return False
            self._in = rest
            line = head[: head.find(b"\r\n")].decode()
            method, _, target = line.removesuffix(" HTTP/1.1").partition(" ")
            if not target:
                raise ConnectionError(f"no request: {line[:100]!r}")
            path, _, query = target.partition("?")
            length = _LENGTH.search(head)
            size = int(length[1]) if length else 0
            found = _RANGE.search(head)
            bounds = (int(found[1]), int(found[2]) if found[2] else None) if found else None
            self._request = (method, unquote(path), query, size, bounds)
            self._missing = size
            self._kept = [] if self._objects.keeps(query, size) else None
            if size and _EXPECT.search(head):
                self._out += b"HTTP/1.1 100 Continue\r\n\r\n"
                self.writable()
        taken = self._in[: self._missing]
        self._in = self._in[len(taken) :]
        self._missing -= len(taken)
        if self._kept is not None and taken:
            self._kept.append(taken)
        if self._missing:
            return False
        method, path, query, size, bounds = self._request
        self._request = None
        body = b"" if self._kept is None else b"".join(self._kept)
        answer, content = self._objects.answer(method, path, query, body, size, bounds)
        if isinstance(content, int):
            self._out += answer
            self._zeros = content
        else:
            self._out += answer + content
        self.writable()
        return True


def main() -> None:
    """Serves on a free port of 127.0.0.1 until standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener.setblocking(False)
    print(listener.getsockname()[1], flush=True)
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    poll.register(sys.stdin.fileno(), select.EPOLLIN)
    objects = StubObjects()
    connections: dict[int, _Connection] = {}
    waiting: set[int] = set()
    buffer = memoryview(bytearray(_PIECE))
    while True:
        for fd, events in poll.poll():
            if fd == sys.stdin.fileno():
                return
            if fd == listener.fileno():
                sock, _ = listener.accept()
                connections[sock.fileno()] = _Connection(sock, objects)
                poll.register(sock.fileno(), select.EPOLLIN)
                continue
            connection = connections[fd]
            alive = connection.writable() if events & select.EPOLLOUT else True
            if alive and events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                alive = connection.readable(buffer)
            if not alive:
                poll.unregister(fd)
                connections.pop(fd).sock.close()
                waiting.discard(fd)
            elif connection.has_output != (fd in waiting):
                waiting ^= {fd}
                poll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if fd in waiting else 0))


if __name__ == "__main__":
    main()
