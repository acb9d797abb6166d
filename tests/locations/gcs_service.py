"""A small Google Cloud Storage that keeps the rules emulators do not: generations, conditions, pages and signatures.

It speaks what obstore asks of the XML API, and of the JSON API what containers, listing, copies and resumable uploads
need, by Google's documentation.  Only bearer tokens it gave out and signatures of the key it knows are accepted.
Objects live in memory.
"""

import base64
import hashlib
import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from attrs import define, field
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

__all__ = ["FakeService", "running"]

_KEPT = {
    "content-type": "contentType",
    "cache-control": "cacheControl",
    "content-encoding": "contentEncoding",
    "content-disposition": "contentDisposition",
}


@define
class _Object:
    content: bytes
    generation: int
    resource: dict[str, Any]
    updated: datetime


@define
class FakeService:
    """The state of a running service, and how to reach it."""

    endpoint: str
    account: dict[str, str]
    public_key: Any
    buckets: dict[str, dict[str, _Object]] = field(factory=dict)
    foreign: set[str] = field(factory=set)
    uploads: dict[str, dict[str, Any]] = field(factory=dict)
    tokens: set[str] = field(factory=set)
    #: Answers to give before anything is looked at: (method, start of the path, status, headers).
    faults: list[tuple[str, str, int, dict[str, str]]] = field(factory=list)
    #: Every request: method, path, query, headers in lower case.
    seen: list[tuple[str, str, dict[str, str], dict[str, str]]] = field(factory=list)
    lock: threading.RLock = field(factory=threading.RLock)
    generations: Iterator[int] = field(factory=lambda: count(1_700_000_000_000_001))

    def put(self, bucket: str, key: str, content: bytes, resource: dict[str, Any]) -> _Object:
        made = _Object(content, next(self.generations), resource, datetime.now(UTC))
        self.buckets[bucket][key] = made
        return made


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


@contextmanager
def running() -> Iterator[FakeService]:
    """Serves on a free port until the block ends."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    handler = type("_Bound", (_Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    endpoint = f"http://127.0.0.1:{server.server_port}"
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    account = {
        "type": "service_account",
        "client_email": "tester@project.iam.gserviceaccount.com",
        "private_key": pem.decode(),
        "private_key_id": "1",
        "project_id": "project",
        "token_uri": f"{endpoint}/token",
    }
    service = handler.service = FakeService(endpoint=endpoint, account=account, public_key=key.public_key())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    service: FakeService

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *said: object) -> None:
        pass

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.route = parts.path
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.given = {name.lower(): value for name, value in self.headers.items()}
        self.body = self.rfile.read(int(self.given.get("content-length", 0)))
        with self.service.lock:
            self._decide()
        # Not under the lock: who reads slowly, or reads nothing for a while, makes nobody else wait.
        self._send()

    def _decide(self) -> None:
        service = self.service
        service.seen.append((self.command, self.route, self.query, self.given))
        try:
            for fault in service.faults:
                if fault[0] == self.command and self.path.startswith(fault[1]):
                    service.faults.remove(fault)
                    self._reply(fault[2], b"", fault[3])
                    return
            if self.route == "/token":
                self._give_token()
                return
            self._authorize()
            if self.route.startswith(("/storage/v1/", "/upload/storage/v1/")):
                self._json_api()
            else:
                self._xml_api()
        except _Refused as refused:
            self._refuse(refused)

    # -- who asks -----------------------------------------------------------------------------------------------

    def _give_token(self) -> None:
        claims = dict(parse_qsl(self.body.decode()))["assertion"].split(".")
        signature = base64.urlsafe_b64decode(claims[2] + "==")
        self._verify(signature, ".".join(claims[:2]).encode())
        token = secrets.token_hex(8)
        self.service.tokens.add(token)
        self._reply_json(200, {"access_token": token, "expires_in": 3600, "token_type": "Bearer"})

    def _authorize(self) -> None:
        if "X-Goog-Signature" in self.query:
            self._check_signature()
        elif self.given.get("authorization", "").removeprefix("Bearer ") not in self.service.tokens:
            raise _Refused(401, "AuthenticationRequired", "Authentication required.")

    def _check_signature(self) -> None:
        raw, _, signature = urlsplit(self.path).query.rpartition("&X-Goog-Signature=")
        names = self.query["X-Goog-SignedHeaders"].split(";")
        stamp = self.query["X-Goog-Date"]
        began = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if (datetime.now(UTC) - began).total_seconds() > int(self.query["X-Goog-Expires"]):
            raise _Refused(400, "ExpiredToken", "The provided token has expired.")
        # Extension headers and what changes the meaning of a request have to be signed when they are sent.
        for name in self.given:
            if (name.startswith("x-goog-") or name == "content-md5") and name not in names:
                raise _Refused(403, "MalformedSecurityHeader", f"{name} is not signed.")
        headers = "".join(f"{name}:{' '.join(self.given.get(name, '').split())}\n" for name in names)
        canonical = "\n".join((self.command, self.route, raw, headers, ";".join(names), "UNSIGNED-PAYLOAD"))
        scope = self.query["X-Goog-Credential"].partition("/")[2]
        text = "\n".join(("GOOG4-RSA-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        self._verify(bytes.fromhex(signature), text.encode())
        if "content-md5" in self.given:
            found = base64.b64encode(hashlib.md5(self.body, usedforsecurity=False).digest()).decode()
            if found != self.given["content-md5"]:
                raise _Refused(400, "BadDigest", "The Content-MD5 you specified did not match.")
        low, _, high = self.given.get("x-goog-content-length-range", "").partition(",")
        if low and not int(low) <= len(self.body) <= int(high):
            raise _Refused(400, "EntityTooLarge", "The content is outside the range.")

    def _verify(self, signature: bytes, text: bytes) -> None:
        try:
            self.service.public_key.verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            raise _Refused(403, "SignatureDoesNotMatch", "The request signature does not match.") from None

    # -- the XML API --------------------------------------------------------------------------------------------

    def _xml_api(self) -> None:
        name, _, key = self.route[1:].partition("/")
        name, key = unquote(name), unquote(key)
        bucket = self.service.buckets.get(name)
        if bucket is None:
            raise _Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
        if self.command in ("GET", "HEAD"):
            self._get(bucket, key)
        elif self.command == "DELETE" and "uploadId" in self.query:
            self.service.uploads.pop(self.query["uploadId"], None)
            self._reply(204)
        elif self.command == "DELETE":
            if bucket.pop(key, None) is None:
                raise _Refused(404, "NoSuchKey", "The specified key does not exist.")
            self._reply(204)
        elif self.command == "POST" and "uploads" in self.query:
            upload = secrets.token_hex(8)
            self.service.uploads[upload] = {"resource": self._resource(), "parts": {}}
            self._reply_xml(
                200, f"<InitiateMultipartUploadResult><UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            )
        elif self.command == "PUT" and "uploadId" in self.query:
            self.service.uploads[self.query["uploadId"]]["parts"][int(self.query["partNumber"])] = self.body
            self._reply(200, b"", {"ETag": f'"{len(self.body)}"'})
        elif self.command == "POST":
            upload = self.service.uploads.pop(self.query["uploadId"])
            content = b"".join(part for _, part in sorted(upload["parts"].items()))
            made = self.service.put(name, key, content, upload["resource"])
            document = "<CompleteMultipartUploadResult><ETag>&quot;x&quot;</ETag></CompleteMultipartUploadResult>"
            self._reply_xml(200, document, {"x-goog-generation": str(made.generation)})
        else:
            self._check_generation(bucket.get(key), self.given.get("x-goog-if-generation-match"))
            made = self.service.put(name, key, self.body, self._resource())
            self._reply(200, b"", {"ETag": _etag(made), "x-goog-generation": str(made.generation)})

    def _get(self, bucket: Mapping[str, _Object], key: str) -> None:
        found = bucket.get(key)
        if found is None:
            raise _Refused(404, "NoSuchKey", "The specified key does not exist.")
        headers = {header: found.resource[ours] for header, ours in _KEPT.items() if ours in found.resource}
        headers.update({f"x-goog-meta-{n}": v for n, v in found.resource.get("metadata", {}).items()})
        headers |= {
            "ETag": _etag(found),
            "x-goog-generation": str(found.generation),
            "Last-Modified": format_datetime(found.updated, usegmt=True),
        }
        content, status = found.content, 200
        span = self.given.get("range", "").removeprefix("bytes=")
        if span:
            first, _, last = span.partition("-")
            size = len(content)
            begin, end = (int(first), int(last or size) + 1) if first else (max(0, size - int(last)), size)
            if begin >= size or (not first and last == "0"):
                raise _Refused(416, "InvalidRange", "The requested range cannot be satisfied.")
            content, status = content[begin:end], 206
            headers["Content-Range"] = f"bytes {begin}-{begin + len(content) - 1}/{size}"
        self._reply(status, content, headers)

    def _resource(self) -> dict[str, Any]:
        found: dict[str, Any] = {ours: self.given[header] for header, ours in _KEPT.items() if header in self.given}
        prefix = "x-goog-meta-"
        found["metadata"] = {n.removeprefix(prefix): v for n, v in self.given.items() if n.startswith(prefix)}
        return found

    def _check_generation(self, known: _Object | None, wanted: str | None) -> None:
        if wanted is not None and int(wanted) != (known.generation if known else 0):
            raise _Refused(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")

    # -- the JSON API -------------------------------------------------------------------------------------------

    def _json_api(self) -> None:
        segments = [unquote(part) for part in self.route.split("/")]
        uploading = segments[1] == "upload"
        # /storage/v1/b/<bucket>/o/<object>/rewriteTo/b/<bucket>/o/<object>
        rest = segments[5 if uploading else 4 :]
        buckets = self.service.buckets
        if not rest:
            self._buckets()
            return
        name = rest[0]
        if name not in buckets:
            raise _Refused(404, "notFound", "The specified bucket does not exist.")
        if len(rest) == 1:
            if self.command == "DELETE":
                if buckets[name]:
                    raise _Refused(409, "conflict", "The bucket you tried to delete is not empty.")
                del buckets[name]
                self._reply(204)
            else:
                self._reply_json(200, {"name": name})
        elif uploading:
            self._resumable(name)
        elif len(rest) == 2:
            self._list(name)
        else:
            self._rewrite(name, rest[2], rest[5], rest[7])

    def _buckets(self) -> None:
        service = self.service
        if self.command == "GET":
            prefix = self.query.get("prefix", "")
            names = sorted(name for name in service.buckets if name.startswith(prefix))
            self._reply_json(200, {"items": [{"name": name} for name in names]})
            return
        asked = json.loads(self.body)
        if asked["name"] in service.foreign:
            raise _Refused(409, "conflict", "The requested bucket name is not available.")
        if asked["name"] in service.buckets:
            raise _Refused(
                409, "conflict", "Your previous request to create the named bucket succeeded and you already own it."
            )
        assert asked["iamConfiguration"]["publicAccessPrevention"] == "enforced"
        service.buckets[asked["name"]] = {}
        self._reply_json(200, {"name": asked["name"]})

    def _list(self, name: str) -> None:
        bucket = self.service.buckets[name]
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter", "")
        start, token = self.query.get("startOffset", ""), self.query.get("pageToken", "")
        limit = min(int(self.query.get("maxResults", 1000)), 1000)
        items: list[dict[str, Any]] = []
        prefixes: list[str] = []
        last = ""
        for key in sorted(bucket):
            if (
                not key.startswith(prefix)
                or key < start
                or (token and (key <= token or (token[-1:] == "/" and key.startswith(token))))
            ):
                continue
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            folded = key[: cut + 1] if cut >= 0 else ""
            if folded and prefixes[-1:] == [folded]:
                continue
            if len(items) + len(prefixes) == limit:
                self._reply_json(200, {"items": items, "prefixes": prefixes, "nextPageToken": last})
                return
            if folded:
                prefixes.append(folded)
            else:
                items.append(_item(key, bucket[key]))
            last = folded or key
        self._reply_json(200, {"items": items, "prefixes": prefixes})

    def _rewrite(self, name: str, key: str, to_name: str, to_key: str) -> None:
        found = self.service.buckets[name].get(key)
        if found is None:
            raise _Refused(404, "notFound", f"No such object: {name}/{key}")
        target = self.service.buckets.get(to_name)
        if target is None:
            raise _Refused(404, "notFound", "The specified bucket does not exist.")
        self._check_generation(target.get(to_key), self.query.get("ifGenerationMatch"))
        if "rewriteToken" not in self.query and len(found.content) > 100:
            self._reply_json(200, {"done": False, "rewriteToken": "more"})
            return
        made = self.service.put(to_name, to_key, found.content, json.loads(self.body) or found.resource)
        self._reply_json(200, {"done": True, "resource": _item(to_key, made)})

    def _resumable(self, name: str) -> None:
        service = self.service
        if "upload_id" not in self.query:
            key, wanted = self.query["name"], self.query.get("ifGenerationMatch")
            self._check_generation(service.buckets[name].get(key), wanted)
            upload = secrets.token_hex(8)
            service.uploads[upload] = {"key": key, "if": wanted, "resource": json.loads(self.body), "content": b""}
            place = f"{service.endpoint}{self.route}?uploadType=resumable&upload_id={upload}"
            self._reply(200, b"", {"Location": place})
            return
        state = service.uploads[self.query["upload_id"]]
        if self.command == "DELETE":
            del service.uploads[self.query["upload_id"]]
            self._reply(499)
            return
        span, _, total = self.given["content-range"].removeprefix("bytes ").partition("/")
        if int(span.partition("-")[0]) != len(state["content"]):
            raise _Refused(400, "invalid", "The piece does not start where the last one ended.")
        if total == "*" and len(self.body) % (256 << 10):
            raise _Refused(400, "invalid", "A piece is a multiple of 256 KiB.")
        state["content"] += self.body
        if total == "*":
            self._reply(308, b"", {"Range": f"bytes=0-{len(state['content']) - 1}"})
            return
        del service.uploads[self.query["upload_id"]]
        self._check_generation(service.buckets[name].get(state["key"]), state["if"])
        made = service.put(name, state["key"], state["content"], state["resource"])
        self._reply_json(200, _item(state["key"], made))

    # -- answers ------------------------------------------------------------------------------------------------

    def _refuse(self, refused: _Refused) -> None:
        if self.route.startswith(("/storage/", "/upload/", "/token")):
            error = {"code": refused.status, "message": refused.message, "errors": [{"reason": refused.code}]}
            self._reply_json(refused.status, {"error": error})
        else:
            document = f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message></Error>"
            self._reply_xml(refused.status, document)

    def _reply_json(self, status: int, body: dict[str, Any]) -> None:
        self._reply(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _reply_xml(self, status: int, document: str, headers: Mapping[str, str] | None = None) -> None:
        self._reply(status, document.encode(), {"Content-Type": "application/xml", **(headers or {})})

    def _reply(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.answer = (status, body, headers or {})

    def _send(self) -> None:
        status, body, headers = self.answer
        self.send_response(status, "OK")
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            # Who gave a download up has gone, and that is no fault of this service's.
            with suppress(ConnectionError):
                self.wfile.write(body)


def _etag(found: _Object) -> str:
    return f'"{hashlib.md5(found.content, usedforsecurity=False).hexdigest()}"'


def _item(key: str, found: _Object) -> dict[str, Any]:
    return {
        "name": key,
        "size": str(len(found.content)),
        "generation": str(found.generation),
        "etag": base64.b64encode(quote(key).encode()).decode(),
        "updated": found.updated.isoformat().replace("+00:00", "Z"),
        **found.resource,
    }
