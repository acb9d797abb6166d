"""Signed URLs of Google Cloud Storage, against Google's own library, which is told the same time."""

import base64
import hashlib
import hmac
import inspect
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from datastore.model import SignedURLProperties, SignedURLScope
from stowstore.locations.gcs.config import HmacKey, ServiceAccount
from stowstore.locations.gcs.signing import sign_object

google_signing = pytest.importorskip("google.cloud.storage._signing", reason="needs google-cloud-storage")
service_account = pytest.importorskip("google.oauth2.service_account")

_GOOGLE = "https://storage.googleapis.com"
_NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
_MD5 = base64.b64encode(hashlib.md5(b"x", usedforsecurity=False).digest()).decode()
_CASES = {
    "read": SignedURLProperties(expires_in=60),
    "head": SignedURLProperties(scope=SignedURLScope.HEAD, expires_in=604800),
    "delete": SignedURLProperties(scope=SignedURLScope.DELETE),
    "write": SignedURLProperties(scope=SignedURLScope.WRITE),
    "everything": SignedURLProperties(
        scope=SignedURLScope.WRITE,
        content_md5=_MD5,
        add_content_md5_metadata=True,
        content_type="text/plain; charset=utf-8",
        content_length=5,
        metadata={"a-name": "two  spaces", "b": "ü".encode("ascii", "xmlcharrefreplace").decode()},
        if_absent=True,
    ),
}
_KEYS = ["plain", "a b/ü~*'()!?#%&+=:@,;$", "dir/$x/[1]/\U0001f600", "a.b_c-d"]


@pytest.fixture(scope="module")
def account() -> ServiceAccount:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return ServiceAccount(
        {
            "client_email": "who@project.iam.gserviceaccount.com",
            "private_key": pem.decode(),
            "token_uri": "http://127.0.0.1:1",
        }
    )


@pytest.mark.parametrize("key", _KEYS)
@pytest.mark.parametrize("endpoint", [_GOOGLE, "http://127.0.0.1:8080"])
@pytest.mark.parametrize("case", _CASES)
def test_equal_to_googles(account: ServiceAccount, case: str, endpoint: str, key: str) -> None:
    """The URL is that of google-cloud-storage, byte for byte."""
    properties = _CASES[case]
    ours = sign_object(properties, account, endpoint=endpoint, bucket="a-bucket.x", key=key, now=_NOW)
    assert _googles(_credentials(account), properties, endpoint, key, ours.required_request_headers) == ours.url
    assert ours.method == properties.scope.method


@pytest.mark.parametrize("case", _CASES)
def test_hmac_keys_sign_the_same_way(case: str) -> None:
    """With an HMAC key the URL is what Google's function makes when it names that algorithm and signs by it."""
    properties, secret = _CASES[case], "a/secret+of=an-hmac-key"

    class Signer:
        signer_email = "GOOG1EXAMPLE"

        @staticmethod
        def sign_bytes(text: bytes) -> bytes:
            key = f"GOOG4{secret}".encode()
            for part in ("20260304", "auto", "storage", "goog4_request"):
                key = hmac.new(key, part.encode(), hashlib.sha256).digest()
            return hmac.new(key, text, hashlib.sha256).digest()

    signed = sign_object(
        properties, HmacKey("GOOG1EXAMPLE", secret), endpoint=_GOOGLE, bucket="a-bucket.x", key="k y", now=_NOW
    )
    source = inspect.getsource(google_signing.generate_signed_url_v4)
    namespace = {**vars(google_signing), "ensure_signed_credentials": lambda _: None}
    # The library knows one algorithm, whose name stands in its code.
    exec(source.replace("GOOG4-RSA-SHA256", "GOOG4-HMAC-SHA256"), namespace)  # noqa: S102
    generate = namespace["generate_signed_url_v4"]
    headers = signed.required_request_headers
    assert _googles(Signer(), properties, _GOOGLE, "k y", headers, generate) == signed.url


def test_the_headers_to_send(account: ServiceAccount) -> None:
    """A write URL names exactly the headers it signs, a read URL none."""
    signed = sign_object(_CASES["everything"], account, endpoint=_GOOGLE, bucket="bucket", key="k")
    assert {
        "Content-MD5": _MD5,
        "Content-Type": "text/plain; charset=utf-8",
        "x-goog-content-length-range": "5,5",
        "x-goog-if-generation-match": "0",
        "x-goog-meta-a-name": "two  spaces",
        "x-goog-meta-b": "&#252;",
        "x-goog-meta-flyteContentMD5": _MD5,
    } == dict(signed.required_request_headers)
    assert {} == dict(
        sign_object(_CASES["read"], account, endpoint=_GOOGLE, bucket="b", key="k").required_request_headers
    )


def _credentials(account: ServiceAccount) -> Any:
    return service_account.Credentials.from_service_account_info(dict(account.info))


def _googles(
    credentials: Any,
    properties: SignedURLProperties,
    endpoint: str,
    key: str,
    headers: Mapping[str, str],
    generate: Callable[..., str] = google_signing.generate_signed_url_v4,
) -> str:
    return generate(
        credentials,
        f"/a-bucket.x/{quote(key, safe='/~')}",
        int(properties.expires_in),
        api_access_endpoint=endpoint,
        method=properties.scope.method,
        headers=dict(headers),
        _request_timestamp=_NOW.strftime("%Y%m%dT%H%M%SZ"),
    )
