"""What the URL of a root says of the volumes in it, and where they go when none is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

__all__ = ["ROOT_VARIABLE", "ambient_region", "default_root", "storage_of"]

#: Where volumes go when no bucket is named.
ROOT_VARIABLE: Final = "STOWSTORE_VOLUME_ROOT"

_STORAGE: Final = {
    "s3": "s3",
    "s3a": "s3",
    "minio": "s3",
    "gs": "gs",
    "abfs": "wasb",
    "abfss": "wasb",
    "wasb": "wasb",
    "wasbs": "wasb",
    "file": "file",
    "mem": "mem",
    "sw": "swift",
}


def storage_of(root: str) -> str:
    """The name volumes have for the backend of a root; of kinds beyond the six it is the scheme."""
    scheme = urlsplit(root).scheme.lower()
    return _STORAGE.get(scheme, scheme)


def default_root() -> str:
    """Where volumes go when no bucket is named."""
    named = os.environ.get(ROOT_VARIABLE)
    if named:
        return named
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return f"file://{Path(data) / 'stowstore' / 'volumes'}"


def ambient_region(root: str) -> str | None:
    """The region a root of S3 is used in when none is pinned: its URL's, else the environment's."""
    named = parse_qs(urlsplit(root).query).get("region")
    return named[0] if named else os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or None
