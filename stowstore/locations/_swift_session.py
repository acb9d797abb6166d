"""Logging in to OpenStack and sending authenticated requests to Swift, over libcloud's transport."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from attrs import field, frozen
from libcloud.common.base import Connection
from libcloud.common.openstack_identity import (
    OpenStackIdentityTokenScope,
    OpenStackServiceCatalog,
    get_class_for_auth_version,
)
from libcloud.storage.providers import get_driver

from datastore.context import current_limits
from datastore.errors import ConfigError, LimitExceeded, PermissionDenied, StoreError, TransientError, from_status
from datastore.source import Source
from stowstore.locations._libcloud_transport import (
    PerThread,
    RawReply,
    ResponseBody,
    Transport,
    finish,
    retry_after,
    translate,
)
from stowstore.locations.base import HttpSettings, Options

__all__ = ["Credentials", "Session", "SizedUpload", "Upload", "account_of", "credentials_from"]

#: How much of a large body is sent at once.
_PIECE = 256 << 10
#: libcloud adds these itself; users give either form.
_VERSION_IN_URL = re.compile(r"/(v1(\.0)?|v2\.0(/tokens)?|v3(/auth/tokens)?)/*$")


@frozen(kw_only=True)
class Credentials:
    """How to log in; ``token`` with ``storage_url`` skips it."""

    auth_url: str = ""
    auth_version: str = "1.0"
    username: str = ""
    key: str = field(default="", repr=False)
    tenant: str = ""
    domain: str = "Default"
    tenant_domain: str = "default"
    region: str = ""
    token: str = field(default="", repr=False)
    storage_url: str = ""


@frozen(kw_only=True)
class _Account:
    """Where the account's containers are, and the token that opens them."""

    url: str
    token: str = field(repr=False)


class Upload:
    """A source as the body of a request: sent in pieces, never longer than ``limit``, its errors kept as they are."""

    def __init__(self, source: Source, limit: int) -> None:
        self.error: BaseException | None = None
        self._source = source
        self._limit = limit

    def rewind(self) -> bool:
        return self._source.rewind()

    def __iter__(self) -> Any:
        sent = 0
        try:
            while piece := self._source.read(_PIECE):
                sent += len(piece)
                if sent > self._limit:
                    raise LimitExceeded(
                        f"the data are longer than the {self._limit} bytes the backend takes an object",
                        hint="split them, or raise max_object_bytes if the cluster allows more",
                    )
                yield piece
        except BaseException as error:
            # urllib3 would take an OSError of the caller's stream for one of its socket.
            self.error = error
            raise


class SizedUpload(Upload):
    """The same with the size known, which requests asks for by ``len``."""

    def __init__(self, source: Source, limit: int, size: int) -> None:
        super().__init__(source, limit)
        self._size = size

    def __len__(self) -> int:
        return self._size


class Session:
    """Authenticated requests to one account; thread-safe.

    All threads share one token; one that the server no longer takes is replaced and the request sent again if its
    body can be.
    """

    def __init__(self, credentials: Credentials, settings: HttpSettings) -> None:
        self._credentials = credentials
        self.transport = Transport(settings)
        self._account: _Account | None = None
        self._connections = PerThread(self._connect)

    @property
    def account_url(self) -> str:
        return self._login().url

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | Upload | None = None,
    ) -> requests.Response:
        """Sends one request and returns the answer, whatever its status, with the body unread.

        ``path`` is quoted and starts with a slash, or is empty for the account itself.
        """
        response = self._send(method, path, params, headers, body)
        if response.status_code == 401 and not self._credentials.token:
            if isinstance(body, Upload) and not body.rewind():
                raise TransientError("the login expired while an upload that cannot be repeated was sent")
            finish(response)
            self._account = None
            self._connections.renew()
            response = self._send(method, path, params, headers, body)
        return response

    def body(self, response: requests.Response) -> ResponseBody:
        return ResponseBody(response, self.transport)

    def content(self, response: requests.Response) -> bytes:
        """The whole of a small answer."""
        try:
            return response.content
        except (requests.RequestException, OSError) as error:
            raise translate(error, self.transport.settings) from error
        finally:
            finish(response)

    def finish(self, response: requests.Response) -> None:
        """Ends an answer whose body is of no interest."""
        finish(response)

    def refused(self, response: requests.Response) -> StoreError:
        """The error for a status that the caller has no special meaning for."""
        status = response.status_code
        found = from_status(
            status, f"Swift answered {status} {response.reason}", retry_after=retry_after(response.headers)
        )
        if isinstance(found, PermissionDenied):
            found.hint = "check username, key and tenant, and the container's rights"
        # Whatever it says more may repeat headers of the request.
        finish(response)
        return found

    def close(self) -> None:
        self._connections.renew()
        self.transport.close()

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: bytes | Upload | None,
    ) -> requests.Response:
        connection = self._connections.get()
        try:
            # The OpenStack classes in between know no streams and add parameters that GET must not have.
            reply = Connection.request(
                connection,
                path,
                params=dict(params or {}),
                data=body,
                headers=dict(headers or {}),
                method=method,
                raw=True,
                stream=True,
                retry_failed=False,
            )
        except Exception as error:
            if isinstance(body, Upload) and body.error is not None:
                raise body.error from None
            raise translate(error, self.transport.settings) from error
        if isinstance(body, Upload) and body.error is not None:
            reply.http.close()
            raise body.error
        response: requests.Response = reply.http
        return response

    def _connect(self) -> Any:
        account = self._login()
        driver = get_driver("openstack_swift")(
            "", "", ex_force_base_url=account.url, ex_force_auth_token=account.token, ex_force_auth_version="1.0"
        )
        self.transport.equip(driver.connection)
        connection: Any = driver.connection
        connection.rawResponseCls = RawReply
        return connection

    def _login(self) -> _Account:
        # Two threads may log in at once: both tokens are good, and no lock can be left behind by a fork.
        account = self._account
        if account is None:
            self._account = account = self._authenticate()
        return account

    def _authenticate(self) -> _Account:
        known = self._credentials
        if known.token:
            return _Account(url=known.storage_url.rstrip("/"), token=known.token)
        if limits := current_limits():
            limits.check()
        try:
            identity = get_class_for_auth_version(auth_version=known.auth_version)(
                auth_url=_VERSION_IN_URL.sub("", known.auth_url),
                user_id=known.username,
                key=known.key,
                tenant_name=known.tenant or None,
                tenant_domain_id=known.tenant_domain,
                domain_name=known.domain,
                token_scope=OpenStackIdentityTokenScope.PROJECT,
            )
            self.transport.equip(identity)
            identity.authenticate(**({"auth_type": "password"} if known.auth_version == "2.0_password" else {}))
            url = _endpoint(identity.urls, known)
        except Exception as error:
            raise _login_error(error, known, self.transport.settings) from error
        return _Account(url=url.rstrip("/"), token=identity.auth_token)


def account_of(url: str) -> tuple[str, str]:
    """The root of a storage URL and the unquoted path of its account, as temporary URLs sign it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}", unquote(parts.path)


def credentials_from(options: Options, environment: Mapping[str, str] | None = None) -> Credentials:
    """What the options say, and for the rest the environment that OpenStack's own tools use.

    Raises:
        ConfigError: there is nowhere to log in, or nobody to log in as.
    """
    env = os.environ if environment is None else environment

    def pick(option: str, *names: str) -> str:
        return options.text(option) or next((env[name] for name in names if env.get(name)), "")

    storage_url, token = pick("storage_url", "OS_STORAGE_URL"), pick("token", "OS_AUTH_TOKEN")
    if storage_url and token:
        return Credentials(token=token, storage_url=storage_url)
    application = not options.text("username") and env.get("OS_APPLICATION_CREDENTIAL_ID", "")
    auth_url = pick("auth_url", "OS_AUTH_URL", "ST_AUTH")
    username = application or pick("username", "OS_USERNAME", "ST_USER")
    key = env.get("OS_APPLICATION_CREDENTIAL_SECRET", "") if application else pick("key", "OS_PASSWORD", "ST_KEY")
    for name, value, variable in (
        ("auth_url", auth_url, "OS_AUTH_URL"),
        ("username", username, "OS_USERNAME"),
        ("key", key, "OS_PASSWORD"),
    ):
        if not value:
            raise ConfigError(
                f"missing {name} config: kind 'sw' needs {name}", hint=f"give the option, or set {variable}"
            )
    version = pick("auth_version") or _version_of(auth_url, env.get("OS_IDENTITY_API_VERSION", ""), bool(application))
    return Credentials(
        auth_url=auth_url,
        auth_version=version,
        username=username,
        key=key,
        tenant=pick("tenant_name", "OS_PROJECT_NAME", "OS_TENANT_NAME"),
        domain=pick("domain", "OS_USER_DOMAIN_NAME", "OS_PROJECT_DOMAIN_NAME") or "Default",
        tenant_domain=pick("tenant_domain", "OS_PROJECT_DOMAIN_ID") or "default",
        region=pick("region", "OS_REGION_NAME"),
    )


def _version_of(auth_url: str, declared: str, application: bool) -> str:
    if application:
        return "3.x_appcred"
    for mark, version in (("3", "3.x_password"), ("2", "2.0_password"), ("1", "1.0")):
        if f"/v{mark}" in auth_url or (not _VERSION_IN_URL.search(auth_url) and declared.startswith(mark)):
            return version
    return "1.0"


def _endpoint(catalogue: Any, known: Credentials) -> str:
    """The account's public URL in what the login answered."""
    if known.auth_version.startswith("1"):
        return str(catalogue["cloudFiles"][0]["publicURL"])
    services = OpenStackServiceCatalog(catalogue, auth_version=known.auth_version)
    return str(services.get_endpoint(service_type="object-store", region=known.region or None).url)


def _login_error(error: Exception, known: Credentials, settings: HttpSettings) -> StoreError:
    """What went wrong, without the texts of the answer: those of a login may hold secrets."""
    found = translate(error, settings)
    if isinstance(found, PermissionDenied):
        return PermissionDenied(
            f"{known.username!r} cannot log in at {known.auth_url}",
            hint="check username, key, tenant_name, domain and auth_version",
        )
    if isinstance(found, TransientError):
        return type(found)(f"logging in at {known.auth_url} failed: {found.message}", retry_after=found.retry_after)
    if found.code.value in ("DEADLINE_EXCEEDED", "CANCELLED"):
        return found
    return ConfigError(
        f"logging in at {known.auth_url} with auth_version {known.auth_version!r} failed: {type(error).__name__}",
        hint="check auth_url, auth_version and region",
    )
