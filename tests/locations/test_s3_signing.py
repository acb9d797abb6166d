"""Signed queries are those that botocore makes, bit for bit."""

from datetime import UTC, datetime
from unittest import mock
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowstore.locations.s3.signing import signed_query

_NOW = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
_HEADERS = [
    {},
    {"Content-MD5": "eHh4eHh4eHh4eHh4eHh4eA=="},
    {"Content-Type": "text/plain; charset=utf-8", "x-amz-meta-a": "some  words", "x-amz-meta-b": "1"},
    {"If-None-Match": "*", "Content-Length": "5"},
]
_KEYS = ["plain", "sp ace/ünï?#", "a//b", "a+b%20c", "~t'x(1)*!", "k" * 1000]


def _reference(
    method: str, key: str, headers: dict[str, str], expires_in: int, token: str | None, port: int | None
) -> str:
    auth = pytest.importorskip("botocore.auth")
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    host = f"127.0.0.1{f':{port}' if port else ''}"
    request = AWSRequest(method=method, url=f"http://{host}/bucket/{quote(key, safe='/-_.~')}", headers=headers)
    signer = auth.S3SigV4QueryAuth(Credentials("AKIDEXAMPLE", "wJalr+EXAMPLE", token), "s3", "eu-west-3", expires_in)
    with (
        mock.patch("botocore.auth.get_current_datetime", return_value=_NOW.replace(tzinfo=None)),
        # It leaves this one out, though S3 enforces it when it is signed.
        mock.patch("botocore.auth.SIGNED_HEADERS_BLACKLIST", ["expect", "transfer-encoding", "user-agent"]),
    ):
        signer.add_auth(request)
    return str(request.url.partition("?")[2])


def _ours(method: str, key: str, headers: dict[str, str], expires_in: int, token: str | None, port: int | None) -> str:
    return signed_query(
        method=method,
        host=f"127.0.0.1{f':{port}' if port else ''}",
        path=f"/bucket/{quote(key, safe='/-_.~')}",
        headers=headers,
        region="eu-west-3",
        access_key="AKIDEXAMPLE",
        secret_key="wJalr+EXAMPLE",
        token=token,
        expires_in=expires_in,
        now=_NOW,
    )


def _parameters(query: str) -> list[str]:
    """The order is free but for what was signed, which is sorted."""
    return sorted(query.split("&"))


@pytest.mark.parametrize("key", _KEYS)
@pytest.mark.parametrize("headers", _HEADERS)
def test_query_equals_botocores(key: str, headers: dict[str, str]) -> None:
    """Any key and any headers are signed as botocore signs them."""
    case = ("PUT", key, headers, 604800, None, 9000)
    assert _parameters(_ours(*case)) == _parameters(_reference(*case))


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "DELETE"])
def test_every_method_and_a_session_token_are_signed(method: str) -> None:
    """Methods, the default port and temporary credentials are part of what is signed."""
    case = (method, "k", {}, 1, "session/token+==", None)
    assert _parameters(_ours(*case)) == _parameters(_reference(*case))


@given(
    key=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40),
    value=st.text(st.sampled_from([chr(code) for code in range(33, 127)]), min_size=1, max_size=40),
    expires_in=st.integers(1, 604800),
)
def test_query_equals_botocores_for_any_key_and_metadata(key: str, value: str, expires_in: int) -> None:
    """No character of a key or of metadata makes the signature differ."""
    case = ("PUT", key, {"x-amz-meta-v": value}, expires_in, "token", 8080)
    assert _parameters(_ours(*case)) == _parameters(_reference(*case))
