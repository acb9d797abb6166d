"""Removing many objects in few requests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable

from datastore.context import current_limits
from datastore.errors import NotFound, StoreError
from stowstore.locations.s3.documents import delete_body, parse_delete_errors
from stowstore.locations.s3.errors import answer_error
from stowstore.locations.s3.wire import Wire

__all__ = ["delete_together"]

#: What S3 removes in one request.
_MOST = 1000


def delete_together(wire: Wire, bucket: str, keys: Iterable[str]) -> dict[str, StoreError]:
    """Removes objects whose keys XML can carry; returns the errors of those that failed."""
    # Once each: Ceph 16.2 works on the keys of a request side by side, and dies of one that it meets twice.
    names = list(dict.fromkeys(keys))
    failed: dict[str, StoreError] = {}
    for start in range(0, len(names), _MOST):
        body = delete_body(names[start : start + _MOST])
        digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        answer = wire.send(
            "POST",
            bucket,
            limits=current_limits(),
            query={"delete": ""},
            headers={"Content-MD5": digest, "Content-Type": "application/xml"},
            body=body,
        )
        for key, code, message in parse_delete_errors(answer.data):
            error = answer_error(200, code or "InternalError", message)
            if not isinstance(error, NotFound):
                failed[key] = error
    return failed
