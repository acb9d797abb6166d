"""Where the tests of this folder keep things."""

from __future__ import annotations

from tests.servers import Server

__all__ = ["s3_options"]


def s3_options(server: Server) -> dict[str, str]:
    """What a store of S3 needs to use a server, as storage options."""
    return {
        "endpoint": server.endpoint,
        "access_key_id": server.access_key,
        "secret_key": server.secret_key,
        "region": "us-east-1",
    }
