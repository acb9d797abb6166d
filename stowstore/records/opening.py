"""Opening the records below a URL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stowstore.config import ContainerPolicy
from stowstore.records.store import RecordStore
from stowstore.versions.address import normal_root, open_root_store

__all__ = ["open_records"]


def open_records(
    url: str,
    *,
    options: Mapping[str, str] | None = None,
    containers: ContainerPolicy | None = None,
    **more: Any,
) -> RecordStore:
    """Opens the records below ``file:///directory`` or ``s3://bucket/prefix?endpoint=...``; the caller closes them.

    ``options`` are more options of the store's kind, secrets among them; ``more`` goes to `RecordStore`.  A directory
    of the local disk is made, a bucket is not, unless ``containers`` says otherwise.

    Raises:
        ConfigError: the URL is none, or holds a secret.
        StoreError: the store cannot be used.
    """
    address = normal_root(url)
    if containers is None:
        containers = ContainerPolicy.IF_MISSING if address.startswith("file:") else ContainerPolicy.NEVER
    store, base = open_root_store(address, options=options, create=containers)
    # Stores in memory are shared within the process.
    return RecordStore(store, base, address=address, owns_store=base.scheme != "mem", **more)
