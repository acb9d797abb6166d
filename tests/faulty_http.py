"""A real HTTP proxy that passes requests on, byte for byte, and breaks those it is told to.

    with FaultyProxy(server.endpoint) as proxy:
        proxy.break_next(Answer(503, headers={"Retry-After": "2"}), method="PUT")
        ...  # talk to proxy.endpoint
        assert [request.method for request in proxy.requests] == ["PUT", "PUT"]

Signatures stay valid, since the Host header is passed on as it came. Without a server behind it only requests with a
fault are answered, which is all that a test of a client's patience needs.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Protocol, Self
from urllib.parse import urlsplit

from attrs import field, frozen

__all__ = ["Answer", "Fault", "FaultyProxy", "LoseAnswer", "Request", "Reset", "Stall", "Trickle", "Truncate"]

#: RST instead of FIN when closed.
_LINGER = struct.pack("ii", 1, 0)
_CHUNK = 1 << 16
#: Seconds a side may be silent; a test that needs more has gone wrong.
_PATIENCE = 60.0


class Request(NamedTuple):
    """A request the proxy saw; names of headers are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Fault(Protocol):
    """What happens to one request; ``forward`` passes it on and returns the head and the body of the answer."""

    def apply(self, client: socket.socket, forward: Callable[[], tuple[bytes, bytes]], ended: threading.Event) -> None:
        """Answers, badly; the connection is closed afterwards."""


@frozen
class Answer:
    """An answer of the proxy's own; the request goes nowhere."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(factory=dict, kw_only=True)

    def apply(self, client: socket.socket, forward: Callable[[], tuple[bytes, bytes]], ended: threading.Event) -> None:
        headers = {"Content-Length": str(len(self.body)), "Connection": "close", **self.headers}
        lines = [f"HTTP/1.1 {self.status} Broken", *(f"{name}: {value}" for name, value in headers.items())]
        client.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + self.body)


@frozen
class Reset:
    """The connection is reset; the request goes nowhere."""

    def apply(self, client: socket.socket, forward: Callable[[], tuple[bytes, bytes]], ended: threading.Event) -> None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)


@frozen
class LoseAnswer:
    """The request takes effect, and the connection is reset instead of its answer."""

    def apply(self, client: socket.socket, forward: Callable[[], tuple[bytes, bytes]], ended: threading.Event) -> None:
        forward()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)


@frozen
class Stall:
    """Nothing is said after ``after`` bytes of the answer's body, or at all (None), and nothing closed."""

    after: int | None = None

    def apply(self, client: socket.socket, forward: Callable[[], tuple[bytes, bytes]], ended: threading.Event) -> None:
        if self.after is not None:
            head, body = forward()
            client.sendall(head + body[: self.after])
        while not ended.is_set():
            client.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                if not client.recv(_CHUNK):
                    return


@frozen
class Trickle:
    """The answer's body comes a byte at a time, ``seconds`` apart."""

    seconds: float = 0.05

    def apply(self, client: socket.socket, forward: Callable[[], tuple[bytes, bytes]], ended: threading.Event) -> None:
        head, body = forward()
        client.sendall(head)
        for position in range(len(body)):
            if ended.wait(self.seconds):
                return
            client.sendall(body[position : position + 1])


@frozen
class Truncate:
    """The connection is closed after ``after`` bytes of the answer's body."""

    after: int

    def apply(self, client: socket.socket, forward: Callable[[], tuple[bytes, bytes]], ended: threading.Event) -> None:
        head, body = forward()
        client.sendall(head + body[: self.after])


class _Rule(NamedTuple):
    fault: Fault
    matches: Callable[[Request], bool]


class FaultyProxy:
    """Stands before the server at ``upstream`` (an http URL), on a port of its own; ends with its `with` block.

    With ``tls`` it speaks TLS to its clients.
    """

    def __init__(self, upstream: str | None = None, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._upstream = urlsplit(upstream) if upstream else None
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._requests: list[Request] = []
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._ended = threading.Event()
        #: How many connections were made to it.
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        #: What to talk to instead of the server.
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def requests(self) -> list[Request]:
        """The requests so far, in the order they came."""
        with self._lock:
            return list(self._requests)

    def break_next(self, *faults: Fault, method: str = "", target: str = "") -> None:
        """Breaks the next requests of a method whose target contains a text, one by each fault."""

        def matches(request: Request) -> bool:
            return request.method == (method or request.method) and target in request.target

        with self._lock:
            self._rules += [_Rule(fault, matches) for fault in faults]

    @property
    def pending(self) -> int:
        """How many faults still wait for their request."""
        with self._lock:
            return len(self._rules)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections, threads = list(self._connections), list(self._threads)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)

    def _start(self, work: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=work, args=args, name="faulty-proxy", daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._connections.add(client)
                self.accepted += 1
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(_PATIENCE)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            with client:
                rest = b""
                while not self._ended.is_set():
                    head, rest = _read_head(client, rest)
                    if not head:
                        return
                    request, rest = _read_request(client, head, rest)
                    if not self._handle(client, head, request):
                        return
        except OSError:
            # The client went away, or the proxy ends: both are what tests do.
            pass
        finally:
            with self._lock:
                self._connections.discard(client)

    def _handle(self, client: socket.socket, head: bytes, request: Request) -> bool:
        with self._lock:
            self._requests.append(request)
            rule = next((rule for rule in self._rules if rule.matches(request)), None)
            if rule is not None:
                self._rules.remove(rule)

        def forward() -> tuple[bytes, bytes]:
            return self._forward(head, request)

        if rule is not None:
            rule.fault.apply(client, forward, self._ended)
            return False
        client.sendall(b"".join(forward()))
        return True

    def _forward(self, head: bytes, request: Request) -> tuple[bytes, bytes]:
        if self._upstream is None:
            body = f"nothing behind the proxy for {request.method} {request.target}".encode()
            return f"HTTP/1.1 502 Bad Gateway\r\nContent-Length: {len(body)}\r\n\r\n".encode(), body
        address = (self._upstream.hostname or "", self._upstream.port or 80)
        with socket.create_connection(address, timeout=_PATIENCE) as server:
            server.sendall(head + request.body)
            answer, rest = _read_head(server, b"")
            while answer.startswith(b"HTTP/1.1 100"):
                answer, rest = _read_head(server, rest)
            headers = _headers(answer)
            status = int(answer.split(None, 2)[1])
            if request.method == "HEAD" or status in (204, 304):
                return answer, b""
            if "chunked" in headers.get("transfer-encoding", ""):
                return answer, _read_chunked(server, rest)[0]
            return answer, _read_exactly(server, rest, int(headers.get("content-length", "0")))[0]


def _read_head(sock: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    """The bytes up to the empty line, and what was read beyond; nothing when the other side closed before."""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(_CHUNK)
        if not piece:
            return b"", b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _read_request(sock: socket.socket, head: bytes, rest: bytes) -> tuple[Request, bytes]:
    method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    headers = _headers(head)
    if headers.get("expect", "").lower() == "100-continue":
        sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in headers.get("transfer-encoding", ""):
        body, rest = _read_chunked(sock, rest)
    else:
        body, rest = _read_exactly(sock, rest, int(headers.get("content-length", "0")))
    return Request(method, target, headers, body), rest


def _read_exactly(sock: socket.socket, data: bytes, size: int) -> tuple[bytes, bytes]:
    pieces = [data]
    missing = size - len(data)
    while missing > 0:
        piece = sock.recv(min(missing, 1 << 20))
        if not piece:
            raise ConnectionError("the other side closed early")
        pieces.append(piece)
        missing -= len(piece)
    whole = b"".join(pieces)
    return whole[:size], whole[size:]


def _read_chunked(sock: socket.socket, data: bytes) -> tuple[bytes, bytes]:
    """A chunked body as it stands on the line."""
    whole = b""
    while True:
        while b"\r\n" not in data:
            data += sock.recv(_CHUNK)
        line, _, data = data.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        chunk, data = _read_exactly(sock, data, size + 2)
        whole += line + b"\r\n" + chunk
        if size == 0:
            return whole, data


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
