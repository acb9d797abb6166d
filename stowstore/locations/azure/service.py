"""Azure's own requests, where obstore has none: containers, listing, copies, conditional block uploads.

They go over apache-libcloud's signed transport, and none of its storage verbs is used.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import Any

import requests
from libcloud.storage.drivers.azure_blobs import AzureBlobsConnection, AzureBlobsStorageDriver

from datastore.errors import (
    AlreadyExists,
    ContainerNotEmpty,
    DigestMismatch,
    InvalidReference,
    LimitExceeded,
    NoSuchContainer,
    NotFound,
    NotSupported,
    PermissionDenied,
    PreconditionFailed,
    StoreError,
    Throttled,
    TransientError,
    from_status,
)
from stowstore.locations._libcloud_transport import PerThread, RawReply, Transport, retry_after, translate
from stowstore.locations.azure import xml
from stowstore.locations.azure.config import Account, BearerToken, SharedAccessSignature, SharedKey
from stowstore.locations.base import HttpSettings

__all__ = ["ERROR_CODES", "AzureService"]

_CONTAINER = {"restype": "container"}

#: What the service calls its errors, where the HTTP status says less.
ERROR_CODES: Mapping[str, type[StoreError]] = {
    "AccountIsDisabled": PermissionDenied,
    "AuthenticationFailed": PermissionDenied,
    "AuthorizationFailure": PermissionDenied,
    "BlobAlreadyExists": AlreadyExists,
    "BlobArchived": NotSupported,
    "BlobNotFound": NotFound,
    "CannotVerifyCopySource": NotFound,
    "ConditionNotMet": PreconditionFailed,
    "ContainerAlreadyExists": AlreadyExists,
    "ContainerBeingDeleted": TransientError,
    "ContainerNotFound": NoSuchContainer,
    "InternalError": TransientError,
    "InvalidResourceName": InvalidReference,
    "Md5Mismatch": DigestMismatch,
    "OperationTimedOut": TransientError,
    "OutOfRangeInput": InvalidReference,
    "RequestBodyTooLarge": LimitExceeded,
    "ServerBusy": Throttled,
    "UnauthorizedBlobOverwrite": AlreadyExists,
}


class AzureService:
    """One account, as one set of credentials sees it; thread-safe."""

    def __init__(
        self,
        account: Account,
        credentials: SharedKey | SharedAccessSignature | BearerToken,
        settings: HttpSettings,
    ) -> None:
        self.account = account
        self.credentials = credentials
        self._transport = Transport(settings)
        self._drivers = PerThread(self._new_driver)

    def has_container(self, name: str) -> bool:
        answer = self._send("HEAD", f"/{name}", _CONTAINER)
        if answer.status_code == 404:
            return False
        self._expect(answer, 200)
        return True

    def create_container(self, name: str) -> None:
        # No x-ms-blob-public-access: nobody reads it without credentials.
        answer = self._send("PUT", f"/{name}", _CONTAINER)
        # Accounts share no container names, so one that exists is ours.
        if answer.headers.get("x-ms-error-code") != "ContainerAlreadyExists":
            self._expect(answer, 201)

    def delete_container(self, name: str) -> None:
        """The service removes full containers as readily; what is written between our look and its end is lost."""
        if xml.parse(self.list_blobs(name, {"maxresults": "1"})).find("Blobs/*") is not None:
            raise ContainerNotEmpty(f"container {name} still holds objects", hint="delete them first")
        self._expect(self._send("DELETE", f"/{name}", _CONTAINER), 202)

    def list_containers(self, prefix: str) -> Iterator[str]:
        marker = ""
        while True:
            params = {"comp": "list"}
            if prefix:
                params["prefix"] = prefix
            if marker:
                params["marker"] = marker
            page = xml.parse(self._expect(self._send("GET", "/", params), 200).content)
            yield from (xml.name_of(found) for found in page.iterfind("Containers/Container"))
            marker = xml.text_of(page, "NextMarker")
            if not marker:
                return

    def list_blobs(self, container: str, params: Mapping[str, str]) -> bytes:
        """One page of a container, as XML."""
        answer = self._send("GET", f"/{container}", {**_CONTAINER, "comp": "list", **params})
        return self._expect(answer, 200).content

    def blob(
        self,
        method: str,
        path: str,
        expected: int,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes = b"",
    ) -> Mapping[str, str]:
        """A request about one blob (``path``: container and quoted key); returns the answer's headers."""
        return self._expect(self._send(method, path, params, headers, data), expected).headers

    def copy_source(self, path: str) -> str:
        """A URL the service itself may read a blob of this account by."""
        url = f"{self.account.endpoint}{path}"
        if isinstance(self.credentials, SharedAccessSignature):
            return f"{url}?{self.credentials.token}"
        return url

    def close(self) -> None:
        self._transport.close()
        self._drivers.renew()

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes = b"",
    ) -> requests.Response:
        sent = dict(headers or {})
        if data:
            # Signed, so it must be known before requests would add it.
            sent["Content-Length"] = str(len(data))
        try:
            reply = self._drivers.get().connection.request(
                path, params=dict(params or {}), headers=sent, data=data, method=method
            )
        except Exception as error:
            raise translate(error, self._transport.settings) from error
        response: requests.Response = reply.http
        return response

    def _expect(self, answer: requests.Response, status: int) -> requests.Response:
        if answer.status_code == status:
            return answer
        code = answer.headers.get("x-ms-error-code", "")
        message = ""
        if answer.content and b"<Error>" in answer.content:
            body = xml.parse(answer.content.lstrip(b"\xef\xbb\xbf"))
            code = code or xml.text_of(body, "Code")
            message = xml.text_of(body, "Message").partition("\n")[0].strip().rstrip(".")
        said = ": ".join(part for part in (code, message) if part)
        text = f"the service answered {answer.status_code}{f' {said}' if said else ''}"
        kind = ERROR_CODES.get(code)
        if kind is None:
            raise from_status(answer.status_code, text, retry_after=retry_after(answer.headers))
        raise kind(text, http_status=answer.status_code, retry_after=retry_after(answer.headers))

    def _new_driver(self) -> Any:
        account, credentials = self.account, self.credentials
        driver = _Driver(
            credentials,
            key=account.name,
            secret=base64.b64encode(credentials.key if isinstance(credentials, SharedKey) else b"").decode(),
            secure=account.secure,
            host=account.host,
            port=account.port,
        )
        connection: Any = driver.connection
        connection.account_prefix = account.path or None
        self._transport.equip(connection)
        return driver


class _Connection(AzureBlobsConnection):
    """libcloud's, with the credentials it does not know; answers are left to us."""

    #: The first in which names XML cannot express come quoted, instead of making the answer unreadable.
    API_VERSION = "2021-12-02"
    responseCls: Any = RawReply  # noqa: N815
    rawResponseCls: Any = RawReply  # noqa: N815
    driver: Any

    def pre_connect_hook(self, params: dict[str, str], headers: dict[str, str]) -> Any:
        credentials = self.driver.credentials
        if isinstance(credentials, SharedKey):
            return super().pre_connect_hook(params, headers)  # type: ignore[no-untyped-call]
        headers = {**headers, "x-ms-version": self.API_VERSION}
        headers.pop("Host", None)
        if isinstance(credentials, BearerToken):
            return params, {**headers, "Authorization": f"Bearer {credentials.text()}"}
        return {**params, **credentials.parameters()}, headers

    def _get_azure_auth_signature(
        self,
        method: str,
        headers: dict[str, str],
        params: dict[str, str],
        account: str,
        secret_key: bytes,
        path: str = "/",
    ) -> str:
        # libcloud's strips parameters, so that it cannot sign a listing of a prefix with a space at its edge.
        known = {name.lower(): str(value).strip() for name, value in headers.items()}
        text = "\n".join(
            (
                method,
                *self._format_special_header_values(known, method),  # type: ignore[no-untyped-call]
                *(f"{name}:{known[name]}" for name in sorted(known) if name.startswith("x-ms-")),
                f"/{account}{path}",
                *(f"{name}:{params[name]}" for name in sorted(params)),
            )
        )
        digest = hmac.new(secret_key, text.encode(), hashlib.sha256).digest()
        return f"SharedKey {account}:{base64.b64encode(digest).decode()}"


class _Driver(AzureBlobsStorageDriver):
    connectionCls = _Connection  # noqa: N815

    def __init__(self, credentials: object, **settings: Any) -> None:
        self.credentials = credentials
        super().__init__(**settings)  # type: ignore[no-untyped-call]

    def _ex_connection_class_kwargs(self) -> dict[str, Any]:
        # Its guesses about hosts are not wanted: the endpoint is known.
        return {}
