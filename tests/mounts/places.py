"""Where the volumes of these tests are kept."""

from __future__ import annotations

import uuid

from stowstore import Volume, open_store
from stowstore.config import ContainerPolicy
from tests import servers

__all__ = ["s3_root"]


def s3_root(gateway: servers.Server) -> str:
    """A root of its own in a container of a gateway."""
    root = f"s3://mounts/{uuid.uuid4().hex}?endpoint={gateway.endpoint}"
    options = {"access_key_id": gateway.access_key, "secret_key": gateway.secret_key}
    Volume.configure(root, options=options)
    container = f"s3://mounts?endpoint={gateway.endpoint}"
    open_store(container, options=options, create_container=ContainerPolicy.IF_MISSING)
    return root
