"""Which account, where, and with what credentials: the options of the kind, understood.

Static credentials win; without any, the environment's are used (`ambient`): the variables Azure's own tools read,
then whatever azure-identity finds (workload and managed identity, the command line's login).
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from attrs import evolve, field, frozen

from datastore.errors import ConfigError
from stowstore.locations.base import Dial, Option, Options

__all__ = ["OPTIONS", "Account", "BearerToken", "SharedAccessSignature", "SharedKey", "configure"]

OPTIONS: dict[str, Option] = {
    "account": Option(help="name of the storage account", aliases=("account_name",)),
    "key": Option(help="the account's key, base64", secret=True, aliases=("account_key",)),
    "sas_token": Option(help="a shared access signature instead of the key", secret=True),
    "connection_string": Option(help="account, endpoint and credentials in one, as the portal shows it", secret=True),
    "domain_suffix": Option(help="the cloud's domain", default="core.windows.net", aliases=("base_url",)),
    "endpoint": Option(help="URL of the blob service, with the account in its path where the host does not name it"),
    "use_emulator": Option(help="true: Azurite at its usual place, with its well-known account"),
    "tenant_id": Option(help="the tenant of a service principal"),
    "client_id": Option(help="the service principal, or the managed identity to use"),
    "client_secret": Option(help="the service principal's secret", secret=True),
    "ambient": Option(help="true: credentials of the environment, even if others are given"),
    "upload_concurrency": Option(help="parts of one large upload on their way at once", default="4"),
    "use_https": Option(help="refused: give endpoint with http:// or https://"),
    "api_version": Option(help="refused: each request names the version it was written for"),
}

_SUFFIXES = ("core.windows.net", "core.chinacloudapi.cn", "core.usgovcloudapi.net", "core.cloudapi.de")
_ACCOUNT = re.compile(r"[a-z0-9][a-z0-9-]{2,23}")
_SCOPE = "https://storage.azure.com/.default"

#: Azurite's account and key are the same everywhere, and in its documentation.
_EMULATOR = "devstoreaccount1"
_EMULATOR_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_EMULATOR_ENDPOINT = f"http://127.0.0.1:10000/{_EMULATOR}"

_ENVIRONMENT = {
    "connection_string": ("AZURE_STORAGE_CONNECTION_STRING",),
    "account": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"),
    "key": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCESS_KEY"),
    "sas_token": ("AZURE_STORAGE_SAS_TOKEN",),
    "endpoint": ("AZURE_STORAGE_ENDPOINT",),
}
_CREDENTIALS = ("key", "sas_token", "client_secret")


def _bare_token(token: str) -> str:
    return token.strip().removeprefix("?")


@frozen(kw_only=True)
class Account:
    """A storage account and where its blob service is; ``endpoint`` has no slash at its end."""

    name: str
    endpoint: str

    @property
    def secure(self) -> bool:
        return self.endpoint.startswith("https:")

    @property
    def host(self) -> str:
        return urlsplit(self.endpoint).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.endpoint).port or (443 if self.secure else 80)

    @property
    def path(self) -> str:
        """What stands before the container in every path, without slashes around it."""
        return urlsplit(self.endpoint).path.strip("/")


@frozen
class SharedKey:
    """The account's key: it may do everything, and sign URLs."""

    key: bytes = field(repr=False)

    def for_obstore(self) -> dict[str, Any]:
        return {"access_key": base64.b64encode(self.key).decode(), "expires_at": None}


@frozen
class SharedAccessSignature:
    """A signature somebody else made."""

    token: str = field(repr=False, converter=_bare_token)

    def parameters(self) -> dict[str, str]:
        return dict(parse_qsl(self.token, keep_blank_values=True))

    def for_obstore(self) -> dict[str, Any]:
        return {"sas_token": parse_qsl(self.token, keep_blank_values=True), "expires_at": None}


@frozen
class BearerToken:
    """Tokens of Entra ID, from an azure-identity credential, which caches and renews them."""

    credential: Any = field(repr=False)

    def text(self) -> str:
        return str(self.credential.get_token(_SCOPE).token)

    def for_obstore(self) -> dict[str, Any]:
        found = self.credential.get_token(_SCOPE)
        return {"token": found.token, "expires_at": datetime.fromtimestamp(found.expires_on, UTC)}


def configure(dial: Dial) -> tuple[Account, SharedKey | SharedAccessSignature | BearerToken]:
    """The account and the credentials to dial with.

    Raises:
        ConfigError: they are missing, contradict each other, or belong to another account than the reference's.
    """
    options = dial.options
    for name in ("use_https", "api_version"):
        if options.text(name):
            raise ConfigError(f"option {name!r} of kind 'abfs' is not supported", hint=OPTIONS[name].help)
    given = _given(options)
    account = _account(given, options.text("domain_suffix"))
    if dial.account:
        account = _of_reference(dial.account, account, given, options)
    if account is None:
        raise ConfigError("missing account config: kind 'abfs' needs account, endpoint or connection_string")
    return account, _credentials(given)


def _given(options: Options) -> dict[str, str]:
    names = (*_ENVIRONMENT, "tenant_id", "client_id", "client_secret")
    given = {name: options.text(name) for name in names if options.text(name)}
    if options.flag("use_emulator"):
        given = {"account": _EMULATOR, "key": _EMULATOR_KEY, "endpoint": _EMULATOR_ENDPOINT, **given}
    ambient = options.flag("ambient")
    if ambient:
        given = {name: text for name, text in given.items() if name not in (*_CREDENTIALS, "connection_string")}
    static = "connection_string" in given or any(name in given for name in _CREDENTIALS)
    if ambient or not static:
        for name, variables in _ENVIRONMENT.items():
            found = next((os.environ[variable] for variable in variables if os.environ.get(variable)), None)
            if found is not None and name not in given:
                given[name] = found
    if "connection_string" in given:
        given = {**_from_connection_string(given.pop("connection_string")), **given}
    return given


def _from_connection_string(text: str) -> dict[str, str]:
    parts = {}
    for part in text.strip().strip(";").split(";"):
        name, equals, value = part.partition("=")
        if not equals:
            raise ConfigError("connection_string is not of the form Name=value;Name=value", hint="copy it whole")
        parts[name.strip().lower()] = value.strip()
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        return {"account": _EMULATOR, "key": _EMULATOR_KEY, "endpoint": _EMULATOR_ENDPOINT}
    names = {"accountname": "account", "accountkey": "key", "sharedaccesssignature": "sas_token"}
    found = {ours: parts[theirs] for theirs, ours in names.items() if parts.get(theirs)}
    if parts.get("blobendpoint"):
        found["endpoint"] = parts["blobendpoint"]
    elif "account" in found and (parts.get("endpointsuffix") or parts.get("defaultendpointsprotocol")):
        scheme = parts.get("defaultendpointsprotocol") or "https"
        found["endpoint"] = f"{scheme}://{found['account']}.blob.{parts.get('endpointsuffix') or _SUFFIXES[0]}"
    return found


def _account(given: Mapping[str, str], suffix: str) -> Account | None:
    name = given.get("account", "")
    endpoint = given.get("endpoint", "").rstrip("/")
    if endpoint:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(
                "endpoint is the URL of a blob service", hint="such as https://account.blob.core.windows.net"
            )
        if parts.username or parts.password:
            raise ConfigError("endpoint has credentials in it", hint="give them as key or sas_token")
        path = parts.path.strip("/")
        if "." in parts.hostname and not path and parts.hostname.split(".")[1] == "blob":
            name = name or parts.hostname.split(".")[0]
        elif not path and name and not parts.hostname.startswith(f"{name}."):
            endpoint = f"{endpoint}/{name}"
        else:
            name = name or path
        if not name:
            raise ConfigError(
                "missing account config: endpoint does not tell the account", hint=OPTIONS["account"].help
            )
        return Account(name=name, endpoint=endpoint)
    if not name:
        return None
    if not _ACCOUNT.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not the name of a storage account", hint="3 to 24 lower case letters and digits"
        )
    return Account(name=name, endpoint=f"https://{name}.blob.{_suffix(suffix)}")


def _suffix(text: str) -> str:
    if "/" in text or not text:
        raise ConfigError(f"domain_suffix {text!r} is not a domain", hint="give a whole URL as endpoint")
    return text.strip(".").removeprefix("blob.").removeprefix("dfs.")


def _of_reference(host: str, configured: Account | None, given: Mapping[str, str], options: Options) -> Account:
    """The account a reference names, if the configured credentials may be used with it."""
    name, _, domain = host.partition(".")
    suffix = _suffix(domain) if domain else ""
    if configured is not None and name == configured.name:
        return configured
    static = "key" in given or "sas_token" in given
    if configured is not None and static:
        raise ConfigError(
            f"the reference is to account {name!r}, the configured credentials are those of {configured.name!r}",
            hint="configure a store for that account, or use ambient credentials, which hold for many",
        )
    trusted = (*_SUFFIXES, _suffix(options.text("domain_suffix")))
    if suffix and suffix not in trusted:
        # Credentials must not go to whatever host a reference names.
        raise ConfigError(
            f"the reference's host {host!r} is not of a known cloud", hint="configure domain_suffix or endpoint"
        )
    made = _account({"account": name}, suffix or options.text("domain_suffix"))
    assert made is not None
    return made if configured is None else evolve(configured, name=made.name, endpoint=made.endpoint)


def _credentials(given: Mapping[str, str]) -> SharedKey | SharedAccessSignature | BearerToken:
    if "key" in given:
        try:
            return SharedKey(base64.b64decode(given["key"], validate=True))
        except binascii.Error as error:
            raise ConfigError("key is not base64", hint="give the account's key as the portal shows it") from error
    if "sas_token" in given:
        return SharedAccessSignature(given["sas_token"])
    try:
        from azure import identity
    except ImportError as error:
        raise ConfigError(
            "credentials of Entra ID need azure-identity", hint="install stowstore[azure], or give key or sas_token"
        ) from error
    if "client_secret" in given:
        missing = [name for name in ("tenant_id", "client_id") if name not in given]
        if missing:
            raise ConfigError(f"missing {' and '.join(missing)} config: client_secret needs them")
        return BearerToken(
            identity.ClientSecretCredential(given["tenant_id"], given["client_id"], given["client_secret"])
        )
    return BearerToken(identity.DefaultAzureCredential(managed_identity_client_id=given.get("client_id")))
