"""Options, endpoints and where keys come from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from datastore.errors import ConfigError, PermissionDenied
from datastore.model import SignedURLProperties
from stowstore.locations.base import Dial, HttpSettings
from stowstore.locations.registry import load_kind
from stowstore.locations.s3 import KIND
from stowstore.locations.s3.settings import Settings
from tests.locations.s3_buckets import dial, fresh_bucket, get, keys_of, put
from tests.servers import Server

_KEYS = {"access_key_id": "key", "secret_key": "very-secret"}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of whoever runs the tests, and no metadata service that is not ours."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "DEFAULT_REGION", "PROFILE"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    for name in ("AWS_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/none")


def _settings(**options: str) -> Settings:
    return Settings.of(Dial(options=KIND.check(options), http=HttpSettings()))


@pytest.mark.parametrize(
    ("options", "url", "path_style"),
    [
        ({}, "https://s3.amazonaws.com", False),
        ({"disable_ssl": "true"}, "http://s3.amazonaws.com", False),
        ({"endpoint": "store.example"}, "https://store.example", True),
        ({"endpoint": "127.0.0.1:9000", "disable_ssl": "true"}, "http://127.0.0.1:9000", True),
        ({"endpoint": "http://127.0.0.1:9000/"}, "http://127.0.0.1:9000", True),
        ({"endpoint": "http://127.0.0.1:80", "disable_ssl": "true"}, "http://127.0.0.1", True),
        ({"endpoint": "https://[::1]:9000"}, "https://[::1]:9000", True),
        ({"endpoint": "https://store.example:443", "path_style": "false"}, "https://store.example", False),
    ],
)
def test_endpoints(options: dict[str, str], url: str, path_style: bool) -> None:
    """An endpoint is a host or a URL; the bucket stands in the path unless it is Amazon's or said otherwise."""
    settings = _settings(**_KEYS, **options)
    assert (settings.base_url, settings.path_style) == (url, path_style)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoint": "http://user:pass@host"}, "endpoint"),
        ({"endpoint": "http://host/path"}, "endpoint"),
        ({"endpoint": "ftp://host"}, "endpoint"),
        ({"endpoint": "host:port"}, "endpoint"),
        ({"endpoint": "https://host", "disable_ssl": "true"}, "contradict"),
        ({"region": "eu west"}, "region"),
        ({"v2_signing": "true"}, "v2_signing"),
        ({"auth_type": "magic"}, "invalid auth_type"),
        ({"timeout": "soon"}, "timeout"),
        ({"part_size": "1000"}, "part_size"),
        ({"upload_threads": "0"}, "upload_threads"),
        ({"ca_bundle": "/no/such/file"}, "ca_bundle"),
        ({"anonymous": "true"}, "anonymous"),
        ({"sse": "rot13"}, "sse"),
        ({"acces_key": "x"}, "did you mean"),
    ],
)
def test_wrong_options_are_named(options: dict[str, str], message: str) -> None:
    """An option that cannot be used is an error that names it, and never shows a secret."""
    with pytest.raises(ConfigError, match=message) as caught:
        dial(**{**_KEYS, **options})
    assert "very-secret" not in str(caught.value)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"access_key_id": "key"}, "missing Secret Key"),
        ({"secret_key": "secret"}, "missing Access Key ID"),
        ({"auth_type": "accesskey"}, "missing Access Key ID"),
        ({"access_key_id": "key", "secret_key_path": "/no/such/file"}, "secret_key_path"),
    ],
)
def test_half_credentials_are_refused(options: dict[str, str], message: str) -> None:
    """Keys are whole or not given."""
    with pytest.raises(ConfigError, match=message):
        dial(**options)


def test_region_and_endpoint_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual variables fill in what the options leave open, and never override them."""
    assert _settings(**_KEYS).region == "us-east-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert _settings(**_KEYS).region == "eu-west-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    assert _settings(**_KEYS).region == "eu-west-2"
    assert _settings(**_KEYS, region="eu-west-3").region == "eu-west-3"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store.example:1")
    assert _settings(**_KEYS).base_url == "http://store.example:1"
    assert _settings(**_KEYS, endpoint="http://other:2").base_url == "http://other:2"


def test_amazons_addresses_name_region_and_bucket() -> None:
    """Without an endpoint, URLs are Amazon's, with the bucket in the host unless TLS could not vouch for it."""
    location = dial(**_KEYS, region="eu-west-3")
    plain = location.container("bucket").sign("a b", SignedURLProperties()).url
    assert plain.startswith("https://bucket.s3.eu-west-3.amazonaws.com/a%20b?")
    dotted = location.container("my.bucket").sign("k", SignedURLProperties()).url
    assert dotted.startswith("https://s3.eu-west-3.amazonaws.com/my.bucket/k?")
    location.close()


def test_the_kind_is_found_by_name_and_alias() -> None:
    """``minio`` is the same kind."""
    assert load_kind("s3") is KIND
    assert load_kind("minio") is KIND


def test_missing_credentials_say_what_to_set(radosgw: Server) -> None:
    """Where nothing is found the error names the ways to give keys."""
    location = dial(endpoint=radosgw.endpoint)
    for key in ("plain", "odd//key"):
        with pytest.raises(PermissionDenied, match=r"AWS_ACCESS_KEY_ID.*anonymous"):
            get(location.container("bucket"), key)
    with pytest.raises(PermissionDenied, match="AWS_ACCESS_KEY_ID"):
        location.has_container("bucket")
    location.close()


def test_keys_from_the_environment(radosgw: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual variables are enough, and serve both ways requests go."""
    with fresh_bucket(radosgw) as bucket:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", radosgw.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", radosgw.secret_key)
        _use(radosgw, bucket)


def test_keys_from_the_shared_file(radosgw: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A profile of the file that other tools use serves too."""
    file = tmp_path / "credentials"
    file.write_text(f"[lab]\naws_access_key_id = {radosgw.access_key}\naws_secret_access_key = {radosgw.secret_key}\n")
    with fresh_bucket(radosgw) as bucket:
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
        monkeypatch.setenv("AWS_PROFILE", "lab")
        _use(radosgw, bucket)


def test_given_keys_win_over_the_environment(radosgw: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither another key nor a stray session token of the environment disturbs those in the options."""
    with fresh_bucket(radosgw) as bucket:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "else")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "stray")
        _use(radosgw, bucket, access_key_id=radosgw.access_key, secret_key=radosgw.secret_key)


class _Role(BaseHTTPRequestHandler):
    """A metadata service: hands out keys that expire soon, and counts how often it was asked."""

    keys: ClassVar[dict[str, str]]
    asked: ClassVar[list[str]]
    lifetime: ClassVar[timedelta]

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        until = (datetime.now(UTC) + self.lifetime).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = json.dumps({**self.keys, "Token": "", "Expiration": until}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def role(radosgw: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Role]]:
    class Role(_Role):
        keys: ClassVar = {"AccessKeyId": radosgw.access_key, "SecretAccessKey": radosgw.secret_key}
        asked: ClassVar = []
        lifetime = timedelta(hours=1)

    with ThreadingHTTPServer(("127.0.0.1", 0), Role) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.server_port}/role")
        yield Role
        server.shutdown()
        thread.join()


def test_keys_of_a_role_are_renewed_when_they_expire(radosgw: Server, role: type[_Role]) -> None:
    """The container's role is asked once, and again only when its keys expire."""
    with fresh_bucket(radosgw) as bucket:
        _use(radosgw, bucket)
        assert role.asked == ["/role"]
        role.lifetime = timedelta(seconds=1)
        role.asked.clear()
        _use(radosgw, bucket)
        assert len(role.asked) > 1


def _use(server: Server, bucket: str, **options: str) -> None:
    location = dial(endpoint=server.endpoint, **options)
    container = location.container(bucket)
    for key in ("plain", "odd//key"):
        put(container, key, b"content")
        assert get(container, key) == b"content"
    assert keys_of(container) == ["odd//key", "plain"]
    assert location.has_container(bucket)
    location.close()
