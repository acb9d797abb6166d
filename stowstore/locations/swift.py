"""OpenStack Swift, over apache-libcloud's login and transport.

Swift's ``If-None-Match: *`` is looked at before the data arrive, so several of many concurrent creators can win: the
location declares `Feature.CREATE_IF_ABSENT` as a convenience and never `Feature.ATOMIC_CREATE`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from datastore.driver import Container, DriverEntry, DriverPage, Location, resume_after
from datastore.errors import (
    AlreadyExists,
    ConfigError,
    ContainerNotEmpty,
    DigestMismatch,
    InvalidReference,
    NoSuchContainer,
    NotFound,
    NotSupported,
    PreconditionFailed,
    StoreError,
)
from datastore.model import (
    Capabilities,
    Feature,
    Metadata,
    SignedURLProperties,
    SignedURLResponse,
    SignedURLScope,
    WriteOptions,
    clean_etag,
)
from datastore.source import Source
from datastore.stream import ReadStream
from stowstore.locations._packing import pack, unpack
from stowstore.locations.base import Dial, Kind, Option

if TYPE_CHECKING:
    import requests

    from stowstore.locations._swift_session import Session

__all__ = ["KIND", "SwiftContainer", "SwiftLocation"]

#: Swift's default for the largest object that is not put together from segments.
_MAX_OBJECT = (5 << 30) + 2
#: Bodies up to this size are sent whole, with their MD5 for Swift to check; larger ones are streamed.
_WHOLE = 4 << 20
#: The most Swift lists or deletes in one request by default.
_PAGE = 10000
_DELETE = 1000
_CONTENT_HEADERS = (
    ("content_type", "Content-Type"),
    ("cache_control", "Cache-Control"),
    ("content_encoding", "Content-Encoding"),
    ("content_disposition", "Content-Disposition"),
)
_FEATURES = frozenset(
    {
        Feature.CREATE_IF_ABSENT,
        Feature.SERVER_SIDE_COPY,
        Feature.USER_METADATA,
        Feature.CONTENT_HEADERS,
        Feature.CONTAINERS,
        Feature.EMPTY_SEGMENTS,
        Feature.NESTED_KEYS,
        Feature.PERSISTENT,
    }
)
_SIGNING = {Feature.SIGN_READ, Feature.SIGN_WRITE, Feature.SIGN_HEAD, Feature.SIGN_DELETE}


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
        return _metadata(response.headers, int(response.headers["Content-Length"]))

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
        return ReadStream(self._session.body(response), wanted, lambda: _metadata(known, size))

    def put(self, key: str, source: Source, options: WriteOptions) -> str:
        from stowstore.locations._swift_session import SizedUpload, Upload

        headers = _headers(options)
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
            limit = self._location.capabilities.max_object_bytes or _MAX_OBJECT
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
            asked = min(limit + 1 - len(entries) - len(prefixes), _PAGE)
            rows = self._rows(prefix, marker, asked, delimiter)
            for row in rows:
                if len(entries) + len(prefixes) == limit:
                    return DriverPage(entries, prefixes, more=True)
                if "subdir" in row:
                    prefixes.append(row["subdir"])
                    marker = resume_after(row["subdir"], delimiter)
                else:
                    entries.append(_entry(row))
                    marker = row["name"]
            if len(rows) < asked:
                return DriverPage(entries, prefixes)

    def copy(self, key: str, source: Container, source_key: str, options: WriteOptions | None) -> str:
        if not isinstance(source, SwiftContainer) or source._location is not self._location:
            raise NotSupported("only objects of the same account are copied in place")
        headers = {"X-Copy-From": source._object(source_key)}
        if options is not None:
            headers |= {**_headers(options), "X-Fresh-Metadata": "true"}
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
            required_request_headers=_upload_headers(properties),
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
        answer = _json(self._session.content(response)) if response.status_code == 200 else None
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


class SwiftLocation:
    """One Swift account."""

    kind = "sw"
    scheme = "sw"

    def __init__(
        self,
        session: Session,
        *,
        temp_url_key: str = "",
        set_temp_url_key: bool = False,
        max_object_bytes: int = _MAX_OBJECT,
    ) -> None:
        self.session = session
        #: Whether the cluster turned out to have no bulk operations.
        self.without_bulk = False
        self._temp_url_key = temp_url_key
        self._set_temp_url_key = set_temp_url_key
        signing = _SIGNING if temp_url_key or set_temp_url_key else set()
        self.capabilities = Capabilities(features=_FEATURES | signing, max_object_bytes=max_object_bytes)

    def container(self, name: str) -> SwiftContainer:
        if not name or "/" in name or name in (".", "..") or len(name.encode()) > 256:
            raise InvalidReference(
                f"{name!r} is no name of a Swift container: 1 to 256 bytes without a slash", reason="bad_container"
            )
        return SwiftContainer(self, name)

    def has_container(self, name: str) -> bool:
        response = self.session.request("HEAD", self.container(name)._path)
        if response.status_code not in (200, 204, 404):
            raise self.session.refused(response)
        self.session.finish(response)
        return response.status_code != 404

    def create_container(self, name: str) -> None:
        # Names belong to the account: what exists is ours, and private unless its owner opened it.
        response = self.session.request("PUT", self.container(name)._path)
        if response.status_code not in (201, 202):
            raise self.session.refused(response)
        self.session.finish(response)

    def delete_container(self, name: str) -> None:
        response = self.session.request("DELETE", self.container(name)._path)
        if response.status_code == 404:
            self.session.finish(response)
            raise NoSuchContainer(f"there is no container {name}")
        if response.status_code == 409:
            self.session.finish(response)
            raise ContainerNotEmpty("the container still holds objects", hint="delete them first")
        if response.status_code != 204:
            raise self.session.refused(response)
        self.session.finish(response)

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        marker = ""
        while rows := self.rows("", {"prefix": prefix, "marker": marker, "limit": str(_PAGE)}, ""):
            for row in rows:
                yield row["name"]
            if len(rows) < _PAGE:
                return
            marker = rows[-1]["name"]

    def rows(self, path: str, params: Mapping[str, str], container: str) -> Sequence[dict[str, Any]]:
        """One page of a listing, as Swift gives it: ascending by UTF-8 bytes (SQLite's BINARY collation)."""
        given = {name: value for name, value in params.items() if value}
        response = self.session.request("GET", path, params={"format": "json", **given})
        if response.status_code == 404:
            self.session.finish(response)
            raise NoSuchContainer(f"there is no container {container}")
        if response.status_code not in (200, 204):
            raise self.session.refused(response)
        found = _json(self.session.content(response) or b"[]")
        if not isinstance(found, list):
            raise StoreError("Swift's listing cannot be read", hint="is auth_url that of a Swift cluster?")
        return found

    def temp_url_key(self) -> str:
        """The key that signs temporary URLs: the configured one, or the account's, made when it has none."""
        if not self._temp_url_key:
            if not self._set_temp_url_key:
                raise ConfigError("no temp_url_key is configured", hint="give it, or set set_temp_url_key")
            header = "X-Account-Meta-Temp-URL-Key"
            response = self.session.request("HEAD", "")
            if response.status_code not in (200, 204):
                raise self.session.refused(response)
            self.session.finish(response)
            known = response.headers.get(header, "")
            if not known:
                known = secrets.token_hex(32)
                response = self.session.request("POST", "", headers={header: known})
                if response.status_code not in (200, 201, 202, 204):
                    raise self.session.refused(response)
                self.session.finish(response)
            self._temp_url_key = known
        return self._temp_url_key

    def close(self) -> None:
        self.session.close()

    def __repr__(self) -> str:
        return "<SwiftLocation>"


def _headers(options: WriteOptions) -> dict[str, str]:
    headers = {header: value for name, header in _CONTENT_HEADERS if (value := getattr(options, name))}
    # Without one Swift guesses by the key's ending.
    headers.setdefault("Content-Type", "application/octet-stream")
    return headers | _metadata_headers(options.metadata)


def _metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    return {f"X-Object-Meta-{name}": value for name, value in pack(metadata, _is_plain).items()}


def _is_plain(name: str, value: str) -> bool:
    """Whether Swift keeps it: it makes dashes of underscores, drops empty values and refuses long ones."""
    return "_" not in name and 0 < len(value) <= 250 and len(name) <= 120


def _user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    found = {name.lower(): value for name, value in headers.items()}
    start = "x-object-meta-"
    return unpack({name.removeprefix(start): value for name, value in found.items() if name.startswith(start)})


def _metadata(headers: Mapping[str, str], size: int) -> Metadata:
    stamp = headers.get("X-Timestamp")
    changed = datetime.fromtimestamp(float(stamp), UTC) if stamp else parsedate_to_datetime(headers["Last-Modified"])
    return Metadata(
        exists=True,
        size=size,
        etag=clean_etag(headers.get("Etag")),
        last_modified=changed,
        user_metadata=_user_metadata(headers),
        **{name: headers.get(header) for name, header in _CONTENT_HEADERS},
    )


def _entry(row: dict[str, Any]) -> DriverEntry:
    changed = datetime.fromisoformat(row["last_modified"]).replace(tzinfo=UTC)
    return DriverEntry(row["name"], int(row["bytes"]), clean_etag(row["hash"]), changed)


def _upload_headers(properties: SignedURLProperties) -> dict[str, str]:
    """What makes the upload as asked; a temporary URL cannot enforce it (no `Feature.SIGNED_HEADERS`)."""
    if properties.scope is not SignedURLScope.WRITE:
        return {}
    metadata = dict(properties.metadata)
    headers: dict[str, str] = {}
    if properties.content_md5:
        headers["ETag"] = base64.b64decode(properties.content_md5).hex()
        if properties.add_content_md5_metadata:
            metadata["flytecontentmd5"] = properties.content_md5
    if properties.content_type:
        headers["Content-Type"] = properties.content_type
    if properties.content_length is not None:
        headers["Content-Length"] = str(properties.content_length)
    if properties.if_absent:
        headers["If-None-Match"] = "*"
    return headers | _metadata_headers(metadata)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def _dial(dial: Dial) -> Location:
    from stowstore.locations._swift_session import Session, credentials_from

    options = dial.options
    return SwiftLocation(
        Session(credentials_from(options), dial.http),
        temp_url_key=options.text("temp_url_key"),
        set_temp_url_key=options.flag("set_temp_url_key"),
        max_object_bytes=options.integer("max_object_bytes", _MAX_OBJECT),
    )


KIND = Kind(
    name="sw",
    schemes=("sw",),
    aliases=("swift",),
    dial=_dial,
    summary="OpenStack Swift: Keystone v2 and v3, application credentials, and Swift's own login v1",
    options={
        "auth_url": Option(help="where to log in; else $OS_AUTH_URL", aliases=("tenant_auth_url",)),
        "auth_version": Option(
            help="how to log in; by default what auth_url says",
            choices=("1.0", "2.0_password", "3.x_password", "3.x_appcred"),
        ),
        "username": Option(help="the user, or the id of an application credential; else $OS_USERNAME"),
        "key": Option(help="the password; else $OS_PASSWORD", secret=True, aliases=("password",)),
        "tenant_name": Option(help="the project; else $OS_PROJECT_NAME", aliases=("project_name", "tenant")),
        "domain": Option(help="the user's domain; else $OS_USER_DOMAIN_NAME, else Default"),
        "tenant_domain": Option(help="the id of the project's domain; else $OS_PROJECT_DOMAIN_ID, else default"),
        "region": Option(help="which of the catalogue's endpoints; else $OS_REGION_NAME"),
        "storage_url": Option(help="with token: the account's URL, so that no login is needed; else $OS_STORAGE_URL"),
        "token": Option(help="with storage_url: the token; else $OS_AUTH_TOKEN", secret=True),
        "temp_url_key": Option(help="the account's or container's key for temporary URLs", secret=True),
        "set_temp_url_key": Option(
            help="take the account's key for temporary URLs, and set one where there is none", default="false"
        ),
        "max_object_bytes": Option(help="the largest object the cluster takes in one piece (default: 5 GiB)"),
    },
)
