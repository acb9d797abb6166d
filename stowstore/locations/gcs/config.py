"""Where the service is and who asks: the options of the kind, understood.

A service account's key wins; without any, application default credentials are looked for (`ambient`): the file
``GOOGLE_APPLICATION_CREDENTIALS`` names, the command line's login, the metadata server.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen

from datastore.errors import ConfigError, PermissionDenied, TransientError
from stowstore.locations.base import Dial, Option, Options

__all__ = ["OPTIONS", "GcsConfig", "HmacKey", "ServiceAccount", "Tokens", "configure"]

OPTIONS: dict[str, Option] = {
    "service_account_key": Option(help="the JSON text of a service account's key", secret=True, aliases=("json",)),
    "service_account_path": Option(help="the file with that text"),
    "project_id": Option(help="the project in which containers are made and listed", aliases=("project",)),
    "scopes": Option(
        help="OAuth scopes, separated by commas", default="https://www.googleapis.com/auth/devstorage.full_control"
    ),
    "endpoint": Option(help="URL of the service", default="https://storage.googleapis.com"),
    "anonymous": Option(help="true: no credentials, to read what is public and for emulators"),
    "ambient": Option(help="true: application default credentials, even if a key is given"),
    "hmac_access_id": Option(help="the access id of an HMAC key, to sign URLs with"),
    "hmac_secret": Option(help="the secret of the HMAC key", secret=True),
}


@frozen
class ServiceAccount:
    """A service account's key."""

    info: Mapping[str, str] = field(repr=lambda info: repr(info.get("client_email")))

    @property
    def email(self) -> str:
        return self.info["client_email"]


@frozen
class HmacKey:
    """The key of the XML API's interoperable access."""

    access_id: str
    secret: str = field(repr=False)


class Tokens:
    """Bearer tokens from google-auth, renewed when they end; thread-safe.

    Looking for application default credentials may ask the metadata server, so it waits for the first token.
    """

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._credentials: Any = None

    def text(self) -> str:
        return str(self._fresh().token)

    def for_obstore(self) -> dict[str, Any]:
        credentials = self._fresh()
        expiry: datetime | None = credentials.expiry
        return {"token": credentials.token, "expires_at": expiry.replace(tzinfo=UTC) if expiry else None}

    def _fresh(self) -> Any:
        from google.auth import exceptions
        from google.auth.transport.requests import Request

        with self._lock:
            try:
                if self._credentials is None:
                    self._credentials = self._find()
                if not self._credentials.valid:
                    self._credentials.refresh(Request())
            except exceptions.DefaultCredentialsError as error:
                raise ConfigError(
                    "there are no application default credentials", hint="give service_account_key, or anonymous: true"
                ) from error
            except exceptions.TransportError as error:
                raise TransientError("the service that gives tokens does not answer") from error
            except exceptions.GoogleAuthError as error:
                raise PermissionDenied("no token is given for the credentials") from error
            return self._credentials


@frozen(kw_only=True)
class GcsConfig:
    """What to dial; ``tokens`` is None for anonymous access, ``endpoint`` has no slash at its end."""

    endpoint: str
    project: str
    tokens: Tokens | None
    signer: ServiceAccount | HmacKey | None

    @property
    def secure(self) -> bool:
        return self.endpoint.startswith("https:")


def configure(dial: Dial) -> GcsConfig:
    """The configuration to dial with.

    Raises:
        ConfigError: credentials are incomplete, unreadable, or a library for them is missing.
    """
    options = dial.options
    account = None if options.flag("ambient") or options.flag("anonymous") else _service_account(options)
    hmac_key = _hmac_key(options)
    tokens = None if options.flag("anonymous") else _tokens(account, options)
    return GcsConfig(
        endpoint=_endpoint(options.text("endpoint")),
        project=options.text("project_id") or (account.info.get("project_id", "") if account else ""),
        tokens=tokens,
        signer=account or hmac_key,
    )


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise ConfigError("endpoint is the URL of the service", hint="such as https://storage.googleapis.com")
    return text.rstrip("/")


def _service_account(options: Options) -> ServiceAccount | None:
    text, path = options.text("service_account_key"), options.text("service_account_path")
    if not text and path:
        try:
            text = Path(path).expanduser().read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"service_account_path cannot be read: {path}: {error.strerror}") from error
    if not text:
        return None
    try:
        info = json.loads(text)
    except ValueError:
        # Without its cause: that one quotes the text.
        raise ConfigError(
            "service_account_key is not JSON", hint="give the text of the key file, not its name"
        ) from None
    missing = [name for name in ("client_email", "private_key") if not isinstance(info, dict) or not info.get(name)]
    if missing:
        raise ConfigError(
            f"service_account_key has no {' and no '.join(missing)}",
            hint="other credentials are found with ambient: true",
        )
    return ServiceAccount(info)


def _hmac_key(options: Options) -> HmacKey | None:
    access_id, secret = options.text("hmac_access_id"), options.text("hmac_secret")
    if bool(access_id) != bool(secret):
        raise ConfigError("hmac_access_id and hmac_secret belong together", hint="give both or neither")
    return HmacKey(access_id, secret) if access_id else None


def _tokens(account: ServiceAccount | None, options: Options) -> Tokens:
    try:
        import google.auth
        from google.oauth2 import service_account
    except ImportError as error:
        raise ConfigError("credentials of Google need google-auth", hint="install stowstore[gcs]") from error
    scopes = [scope.strip() for scope in options.text("scopes").split(",") if scope.strip()]
    if account is None:
        return Tokens(lambda: google.auth.default(scopes=scopes)[0])
    info = {"token_uri": "https://oauth2.googleapis.com/token", **account.info}
    try:
        make: Any = service_account.Credentials.from_service_account_info
        credentials = make(info, scopes=scopes)
    except ValueError:
        # Without its cause: that one may quote the key.
        raise ConfigError("the private key of service_account_key cannot be read") from None
    return Tokens(lambda: credentials)
