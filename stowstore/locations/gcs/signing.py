"""Signed URLs, version 4: a request's query carries a signature over method, path, query and headers.

Written from Google's "V4 signing process with your own program"; ``GOOG4-RSA-SHA256`` with a service account's key,
``GOOG4-HMAC-SHA256`` with an HMAC key.  Every required header is signed.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from datastore.model import CONTENT_MD5_KEY, SignedURLProperties, SignedURLResponse, SignedURLScope
from stowstore.locations.gcs.config import HmacKey, ServiceAccount

__all__ = ["sign_object"]

_SAFE = "-_.~"


def sign_object(
    properties: SignedURLProperties,
    signer: ServiceAccount | HmacKey,
    *,
    endpoint: str,
    bucket: str,
    key: str,
    now: datetime | None = None,
) -> SignedURLResponse:
    """The signed URL of an object, and the headers its user has to send."""
    moment = now or datetime.now(UTC)
    stamp = moment.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/auto/storage/goog4_request"
    who, algorithm = (
        (signer.email, "GOOG4-RSA-SHA256")
        if isinstance(signer, ServiceAccount)
        else (signer.access_id, "GOOG4-HMAC-SHA256")
    )
    required = _headers(properties)
    signed = {name.lower(): " ".join(value.split()) for name, value in required.items()}
    signed["host"] = urlsplit(endpoint).netloc
    names = ";".join(sorted(signed))
    path = f"{urlsplit(endpoint).path}/{bucket}/{quote(key, safe=f'/{_SAFE}')}"
    query = "&".join(
        f"{name}={quote(value, safe=_SAFE)}"
        for name, value in sorted(
            {
                "X-Goog-Algorithm": algorithm,
                "X-Goog-Credential": f"{who}/{scope}",
                "X-Goog-Date": stamp,
                "X-Goog-Expires": str(int(properties.expires_in)),
                "X-Goog-SignedHeaders": names,
            }.items()
        )
    )
    headers = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    request = f"{properties.scope.method}\n{path}\n{query}\n{headers}\n{names}\nUNSIGNED-PAYLOAD"
    text = "\n".join((algorithm, stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    signature = _rsa(signer, text) if isinstance(signer, ServiceAccount) else _hmac(signer, text, stamp[:8])
    root = endpoint.removesuffix(urlsplit(endpoint).path)
    return SignedURLResponse(
        url=f"{root}{path}?{query}&X-Goog-Signature={signature}",
        required_request_headers=required,
        method=properties.scope.method,
    )


def _headers(properties: SignedURLProperties) -> dict[str, str]:
    if properties.scope is not SignedURLScope.WRITE:
        return {}
    headers = {f"x-goog-meta-{name}": value for name, value in properties.metadata.items()}
    if properties.content_md5 is not None:
        headers["Content-MD5"] = properties.content_md5
        if properties.add_content_md5_metadata:
            headers[f"x-goog-meta-{CONTENT_MD5_KEY}"] = properties.content_md5
    if properties.content_type is not None:
        headers["Content-Type"] = properties.content_type
    if properties.content_length is not None:
        # Content-Length itself is set on the way; this one the service holds the body against.
        headers["x-goog-content-length-range"] = f"{properties.content_length},{properties.content_length}"
    if properties.if_absent:
        headers["x-goog-if-generation-match"] = "0"
    return headers


def _rsa(account: ServiceAccount, text: str) -> str:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    key = serialization.load_pem_private_key(account.info["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256()).hex()


def _hmac(key: HmacKey, text: str, day: str) -> str:
    derived = f"GOOG4{key.secret}".encode()
    for part in (day, "auto", "storage", "goog4_request"):
        derived = hmac.new(derived, part.encode(), hashlib.sha256).digest()
    return hmac.new(derived, text.encode(), hashlib.sha256).hexdigest()
