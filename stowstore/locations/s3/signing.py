"""Signed URLs: version 4 signatures in the query, over any method and any headers.

Source: "Authenticating Requests: Using Query Parameters", Amazon S3 API Reference.  The clients at hand sign the host
alone, so that whoever holds such a URL may upload anything of any length.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote

__all__ = ["signed_query"]

_ALGORITHM = "AWS4-HMAC-SHA256"


def signed_query(
    *,
    method: str,
    host: str,
    path: str,
    headers: Mapping[str, str],
    region: str,
    access_key: str,
    secret_key: str,
    token: str | None,
    expires_in: int,
    now: datetime,
) -> str:
    """The query that makes a URL of ``host`` and the quoted ``path`` valid for ``expires_in`` seconds from ``now``.

    Whoever uses the URL must send exactly ``headers`` (and may send unsigned others that S3 does not treat specially).
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    signed = {"host": host, **{name.lower(): " ".join(value.split()) for name, value in headers.items()}}
    names = ";".join(sorted(signed))
    parameters = {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{access_key}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(expires_in),
        "X-Amz-SignedHeaders": names,
    }
    if token:
        parameters["X-Amz-Security-Token"] = token
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(parameters.items()))
    lines = [method, path, query, *(f"{name}:{signed[name]}" for name in sorted(signed)), "", names, "UNSIGNED-PAYLOAD"]
    request = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    key = f"AWS4{secret_key}".encode()
    for part in (stamp[:8], region, "s3", "aws4_request"):
        key = _hmac(key, part)
    signature = _hmac(key, f"{_ALGORITHM}\n{stamp}\n{scope}\n{request}").hex()
    return f"{query}&X-Amz-Signature={signature}"


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
