"""Options with which libcloud's providers reach the servers of the tests."""

from urllib.parse import urlsplit

from tests.servers import Server

__all__ = ["azure_provider", "s3_provider"]


def s3_provider(server: Server) -> dict[str, str]:
    """Of ``libcloud+s3``, for any server of that API."""
    return {**_reached(server), "key": server.access_key, "region": "us-east-1"}


def azure_provider(server: Server) -> dict[str, str]:
    """Of ``libcloud+azure_blobs``."""
    return {**_reached(server), "key": server.extra["account"]}


def _reached(server: Server) -> dict[str, str]:
    parts = urlsplit(server.endpoint)
    return {
        "host": parts.hostname or "",
        "port": str(parts.port),
        "secure": "false",
        "secret": server.secret_key,
    }
