"""The JSON API, where obstore has no verb: containers, listing, copies, conditional uploads of any size.

It goes over apache-libcloud's transport, and none of its storage verbs is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from libcloud.common.base import ConnectionUserAndKey
from libcloud.storage.drivers.google_storage import GoogleStorageJSONConnection

from datastore.context import Limits, current_limits
from datastore.errors import (
    ConfigError,
    ContainerNotEmpty,
    ContainerTaken,
    DigestMismatch,
    LimitExceeded,
    NoSuchContainer,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    StoreError,
    Throttled,
    TransientError,
    from_status,
)
from stowstore.locations._libcloud_transport import PerThread, RawReply, Transport, retry_after, translate
from stowstore.locations.base import HttpSettings
from stowstore.locations.gcs.config import GcsConfig, Tokens

__all__ = ["ERROR_CODES", "GcsService", "Json", "persist"]

Json = dict[str, Any]

#: What the XML API, which obstore uses, calls its errors.
ERROR_CODES: Mapping[str, type[StoreError]] = {
    "AccessDenied": PermissionDenied,
    "AuthenticationRequired": PermissionDenied,
    "BadDigest": DigestMismatch,
    "EntityTooLarge": LimitExceeded,
    "ExpiredToken": PermissionDenied,
    "InternalError": TransientError,
    "InvalidAccessKey": PermissionDenied,
    "NoSuchBucket": NoSuchContainer,
    "NoSuchKey": NotFound,
    "PreconditionFailed": PreconditionFailed,
    "RequestTimeout": TransientError,
    "ServiceUnavailable": Throttled,
    "SignatureDoesNotMatch": PermissionDenied,
    "SlowDown": Throttled,
}
_ATTEMPTS = 5
_UNLIMITED = Limits(None, None, ())


class GcsService:
    """The service, as one set of credentials sees it; thread-safe."""

    def __init__(self, config: GcsConfig, settings: HttpSettings) -> None:
        self.config = config
        self._transport = Transport(settings)
        self._connections = PerThread(self._new_connection)

    def has_container(self, name: str) -> bool:
        answer = self.send("GET", _bucket(name), {"fields": "name"})
        if answer.status_code == 404:
            return False
        self.expect(answer, 200)
        return True

    def create_container(self, name: str) -> None:
        private = {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "enforced"}
        body = json.dumps({"name": name, "iamConfiguration": private}).encode()
        answer = self.send("POST", "/storage/v1/b", {"project": self._project()}, body)
        if answer.status_code != 409:
            self.expect(answer, 200)
        elif "already own" not in _message(answer) and name not in self.list_containers(name):
            raise ContainerTaken(f"the name {name!r} belongs to somebody else", http_status=409)

    def delete_container(self, name: str) -> None:
        answer = self.send("DELETE", _bucket(name))
        if answer.status_code == 409:
            raise ContainerNotEmpty(f"container {name} still holds objects", http_status=409, hint="delete them first")
        if answer.status_code != 204:
            self.expect(answer, 200, missing=NoSuchContainer)

    def list_containers(self, prefix: str) -> Iterator[str]:
        params = {"project": self._project(), "fields": "items/name,nextPageToken"}
        if prefix:
            params["prefix"] = prefix
        while True:
            page = self.json(self.send("GET", "/storage/v1/b", params))
            # Not every server knows the prefix.
            yield from (item["name"] for item in page.get("items", []) if item["name"].startswith(prefix))
            if not (token := page.get("nextPageToken")):
                return
            params["pageToken"] = token

    def list_objects(self, bucket: str, params: Mapping[str, str]) -> Json:
        """One page of a bucket."""
        return self.json(self.send("GET", f"{_bucket(bucket)}/o", params), missing=NoSuchContainer)

    def rewrite(
        self, bucket: str, key: str, to_bucket: str, to_key: str, resource: Json, params: Mapping[str, str]
    ) -> Json:
        """Copies an object, in as many steps as the service wants; returns what it made."""
        path = f"{_object(bucket, key)}/rewriteTo{_object(to_bucket, to_key).removeprefix('/storage/v1')}"
        body = json.dumps(resource).encode()
        token: dict[str, str] = {}
        while True:
            answer = self.json(self.send("POST", path, {**params, **token}, body))
            if answer["done"]:
                made: Json = answer["resource"]
                return made
            token = {"rewriteToken": answer["rewriteToken"]}

    def start_upload(self, bucket: str, resource: Json, params: Mapping[str, str]) -> str:
        """Opens a resumable upload; returns the path to send it to."""
        path = f"/upload/storage/v1/b/{quote(bucket, safe='')}/o"
        answer = self.send("POST", path, {"uploadType": "resumable", **params}, json.dumps(resource).encode())
        self.expect(answer, 200, missing=NoSuchContainer)
        place = urlsplit(answer.headers["Location"])
        return f"{place.path}?{place.query}"

    def send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        data: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """One request; any answer is returned."""
        try:
            connection = self._connections.get()
            reply = connection.request(
                path, params=dict(params or {}), headers=dict(headers or {}), data=data, method=method
            )
        except Exception as error:
            raise translate(error, self._transport.settings) from error
        response: requests.Response = reply.http
        return response

    def json(self, answer: requests.Response, *, missing: type[StoreError] = NotFound) -> Json:
        """The body of a successful answer."""
        self.expect(answer, 200, missing=missing)
        try:
            body: Json = answer.json()
        except ValueError as error:
            raise TransientError("the service's answer is not JSON") from error
        return body

    def expect(self, answer: requests.Response, *statuses: int, missing: type[StoreError] = NotFound) -> None:
        """Raises what any other status means; ``missing`` is what 404 says is not there."""
        status = answer.status_code
        if status in statuses:
            return
        message = _message(answer)
        text = f"the service answered {status}{f' {message}' if message else ''}"
        if status == 404:
            kind = NoSuchContainer if "bucket does not exist" in message.lower() else missing
            raise kind(text, http_status=404)
        raise from_status(status, text, retry_after=retry_after(answer.headers))

    def close(self) -> None:
        self._transport.close()
        self._connections.renew()

    def _project(self) -> str:
        if not self.config.project:
            raise ConfigError("missing project_id config: containers are made and listed within a project")
        return self.config.project

    def _new_connection(self) -> Any:
        place = urlsplit(self.config.endpoint)
        connection = _Connection(
            self.config.tokens, self.config.secure, place.hostname or "", place.port, place.path.rstrip("/")
        )
        self._transport.equip(connection)
        return connection


class _Connection(GoogleStorageJSONConnection):
    """libcloud's, but for its tokens: those would be kept in a file in the user's home."""

    responseCls: Any = RawReply  # noqa: N815
    rawResponseCls: Any = RawReply  # noqa: N815

    def __init__(self, tokens: Tokens | None, secure: bool, host: str, port: int | None, path: str) -> None:
        ConnectionUserAndKey.__init__(self, "", "", secure=secure, host=host, port=port)
        self.tokens = tokens
        self.request_path = path

    def add_default_headers(self, headers: dict[str, str]) -> dict[str, str]:
        return {"Content-Type": "application/json", **headers}

    def pre_connect_hook(self, params: dict[str, str], headers: dict[str, str]) -> Any:
        if self.tokens is not None:
            headers["Authorization"] = f"Bearer {self.tokens.text()}"
        return params, headers


def persist(send: Callable[[], Any]) -> Any:
    """Makes a request that may be repeated until it succeeds or its error will not pass."""
    for attempt in range(_ATTEMPTS):
        try:
            return send()
        except StoreError as error:
            if not error.retryable or attempt + 1 == _ATTEMPTS:
                raise
            (current_limits() or _UNLIMITED).sleep(error.retry_after or 0.1 * 2**attempt)
    raise AssertionError("unreachable")


def _message(answer: requests.Response) -> str:
    try:
        found = answer.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return str(found).partition("\n")[0].rstrip(".")[:300]


def _bucket(name: str) -> str:
    return f"/storage/v1/b/{quote(name, safe='')}"


def _object(bucket: str, key: str) -> str:
    return f"{_bucket(bucket)}/o/{quote(key, safe='')}"
