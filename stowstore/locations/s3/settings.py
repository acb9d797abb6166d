"""The options of an S3 location, read once into plain values."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from attrs import field, frozen

from datastore.errors import ConfigError
from stowstore.locations.base import Dial, Options

__all__ = ["MIN_PART", "Settings"]

#: The least S3 takes as a part that is not the last.
MIN_PART = 5 << 20
_PART = 8 << 20
_TIMEOUT = 60.0
_AMAZON = "s3.amazonaws.com"
_REGION = re.compile(r"[A-Za-z0-9_-]{1,63}")


@frozen(kw_only=True)
class Settings:
    """How to reach a service and what to ask of it; no secrets.

    ``host`` has a port where it is not the scheme's own.  ``ambient`` credentials come from the environment.
    Times in seconds, sizes in bytes.
    """

    host: str
    secure: bool
    region: str
    path_style: bool
    ambient: bool
    anonymous: bool
    headers: Mapping[str, str] = field(factory=dict, repr=lambda headers: repr(sorted(headers)))
    insecure_tls: bool = False
    ca_bundle: str | None = None
    timeout: float = _TIMEOUT
    connect_timeout: float = 5.0
    idle_timeout: float = 90.0
    idle_connections: int = 1024
    max_connections: int = 0
    storage_class: str = ""
    sse: str = ""
    sse_kms_key_id: str = ""
    unsigned_payload: bool = False
    part_size: int = _PART
    upload_threads: int = 4

    @property
    def base_url(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.host}"

    @classmethod
    def of(cls, dial: Dial) -> Settings:
        """Reads what a location is dialled with.

        Raises:
            ConfigError: options contradict each other or cannot be used.
        """
        options, http = dial.options, dial.http
        if options.flag("v2_signing"):
            raise ConfigError("v2_signing is not supported", hint="leave it out: requests get version 4 signatures")
        region = options.text("region") or _environment("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1"
        if not _REGION.fullmatch(region):
            raise ConfigError(f"region {region!r} is no region", hint="it looks like us-east-1")
        own = options.text("endpoint") or _environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        host, secure = _endpoint(own, plain=options.flag("disable_ssl"))
        anonymous = options.flag("anonymous")
        return cls(
            host=host,
            secure=secure,
            region=region,
            path_style=options.flag("path_style") if options.text("path_style") else bool(own),
            ambient=_ambient(options, anonymous=anonymous),
            anonymous=anonymous,
            headers={name: ", ".join(values) for name, values in http.headers.items()},
            insecure_tls=options.flag("insecure_tls"),
            ca_bundle=_certificates(options.text("ca_bundle")),
            timeout=_seconds(options) or http.timeout or _TIMEOUT,
            connect_timeout=http.connect_timeout or _TIMEOUT,
            idle_timeout=http.idle_timeout or 90.0,
            idle_connections=http.max_idle_connections_per_host or 1024,
            max_connections=http.max_connections_per_host,
            storage_class=options.text("storage_class"),
            sse=options.text("sse"),
            sse_kms_key_id=options.text("sse_kms_key_id"),
            unsigned_payload=options.flag("unsigned_payload") if options.text("unsigned_payload") else secure,
            part_size=_at_least(options, "part_size", _PART, MIN_PART),
            upload_threads=_at_least(options, "upload_threads", 4, 1),
        )


def _environment(*names: str) -> str:
    return next((value for name in names if (value := os.environ.get(name))), "")


def _endpoint(text: str, *, plain: bool) -> tuple[str, bool]:
    """Host and whether to speak TLS."""
    if not text:
        return _AMAZON, not plain
    try:
        url = urlsplit(text if "://" in text else f"{'http' if plain else 'https'}://{text}")
        valid = _is_base(url)
    except ValueError:
        valid = False
    if not valid:
        # What was given may carry credentials, so it is not shown.
        raise ConfigError("endpoint is not a host or an http(s) URL without path", hint="e.g. http://127.0.0.1:9000")
    if url.scheme == "https" and plain:
        raise ConfigError(f"endpoint {text!r} and disable_ssl contradict each other", hint="leave disable_ssl out")
    port = "" if url.port in (None, 443 if url.scheme == "https" else 80) else f":{url.port}"
    host = url.hostname or ""
    return f"[{host}]{port}" if ":" in host else f"{host}{port}", url.scheme == "https"


def _is_base(url: SplitResult) -> bool:
    return (
        url.scheme in ("http", "https")
        and bool(url.hostname)
        and url.path in ("", "/")
        and not (url.query or url.fragment or url.username or url.password)
        and (url.port is None or url.port > 0)
    )


def _ambient(options: Options, *, anonymous: bool) -> bool:
    """Whether credentials are looked for in the environment; checks that they are whole otherwise."""
    kind = options.text("auth_type")
    key, has_secret = options.text("access_key_id"), bool(options.text("secret_key"))
    if anonymous:
        if key or has_secret or kind:
            raise ConfigError("anonymous and credentials exclude each other", hint="leave one of them out")
        return False
    if kind == "iam" or (not kind and not key and not has_secret):
        return True
    if not key:
        raise ConfigError(
            "missing Access Key ID: auth_type accesskey needs access_key_id", hint="or set auth_type: iam"
        )
    if not has_secret:
        raise ConfigError(
            "missing Secret Key: auth_type accesskey needs secret_key or secret_key_path", hint="or set auth_type: iam"
        )
    return False


def _seconds(options: Options) -> float:
    text = options.text("timeout")
    try:
        seconds = float(text or 0)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < 1e6:
        raise ConfigError(f"option 'timeout' is a number of seconds, not {text!r}")
    return seconds


def _at_least(options: Options, name: str, default: int, least: int) -> int:
    value = options.integer(name, default)
    if value < least:
        raise ConfigError(f"option {name!r} is at least {least}, not {value}")
    return value


def _certificates(path: str) -> str | None:
    if not path:
        return None
    file = Path(path).expanduser()
    try:
        ssl.create_default_context(cafile=file)
    except OSError as error:
        raise ConfigError(
            f"ca_bundle {path} cannot be used: {error.strerror or 'it holds no certificates'}",
            hint="give a file of certificates in PEM form",
        ) from error
    return str(file)
