"""Service SAS: URLs that let their holder do one thing to one blob for a while.

Written from Microsoft's "Create a service SAS".  The signature covers the path *unquoted* and none of the headers: a
holder may leave out ``x-ms-meta-*``, ``Content-MD5`` and the like, which is why the kind does not declare
`Feature.SIGNED_HEADERS`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

from datastore.model import CONTENT_MD5_KEY, SignedURLProperties, SignedURLResponse, SignedURLScope
from stowstore.locations.azure.names import outgoing_name

__all__ = ["SAS_VERSION", "sign_blob"]

#: The version of the service whose string to sign is written here.
SAS_VERSION = "2020-12-06"

_READ, _CREATE_OR_REPLACE, _CREATE, _DELETE = "r", "cw", "c", "d"


def sign_blob(
    properties: SignedURLProperties,
    *,
    account: str,
    key: bytes,
    endpoint: str,
    container: str,
    blob: str,
    now: datetime | None = None,
) -> SignedURLResponse:
    """The URL of a blob with a SAS, and the headers its user has to send.

    ``endpoint`` is the account's URL without a slash at its end; the SAS holds for https alone unless that is http.
    """
    expiry = (now or datetime.now(UTC)) + timedelta(seconds=properties.expires_in)
    plain = endpoint.startswith("http:")
    signed = {
        "sp": _permissions(properties),
        "se": expiry.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "spr": "https,http" if plain else "https",
        "sv": SAS_VERSION,
        "sr": "b",
    }
    # In this order: permissions, start, expiry, resource, identifier, addresses, protocol, version, kind of resource,
    # snapshot, encryption scope, and five response headers.
    text = "\n".join(
        (
            signed["sp"],
            "",
            signed["se"],
            f"/blob/{account}/{container}/{blob}",
            "",
            "",
            signed["spr"],
            signed["sv"],
            signed["sr"],
            *[""] * 7,
        )
    )
    signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
    path = f"{container}/{quote(blob, safe='/-_.~')}"
    return SignedURLResponse(
        url=f"{endpoint}/{path}?{urlencode({**signed, 'sig': signature}, quote_via=quote, safe='')}",
        required_request_headers=_headers(properties),
        method=properties.scope.method,
    )


def _permissions(properties: SignedURLProperties) -> str:
    if properties.scope is SignedURLScope.WRITE:
        # Without the right to write, the service itself refuses to replace a blob.
        return _CREATE if properties.if_absent else _CREATE_OR_REPLACE
    return _DELETE if properties.scope is SignedURLScope.DELETE else _READ


def _headers(properties: SignedURLProperties) -> dict[str, str]:
    if properties.scope is not SignedURLScope.WRITE:
        return {}
    headers = {"x-ms-blob-type": "BlockBlob"}
    if properties.content_md5 is not None:
        headers["Content-MD5"] = properties.content_md5
        if properties.add_content_md5_metadata:
            headers[f"x-ms-meta-{CONTENT_MD5_KEY}"] = properties.content_md5
    if properties.content_type is not None:
        headers["Content-Type"] = properties.content_type
    if properties.content_length is not None:
        headers["Content-Length"] = str(properties.content_length)
    for name, value in properties.metadata.items():
        headers[f"x-ms-meta-{outgoing_name(name)}"] = value
    if properties.if_absent:
        headers["If-None-Match"] = "*"
    return headers
