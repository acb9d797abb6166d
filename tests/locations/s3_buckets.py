"""What the tests of the S3 kind share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from minio import Minio

from datastore.driver import Container
from datastore.model import WriteOptions
from datastore.source import Source, SourceLike
from stowstore.locations.base import Dial, HttpSettings, Location
from stowstore.locations.s3 import KIND
from tests.servers import Server

PLAIN = WriteOptions()


def dial(http: HttpSettings | None = None, **options: str) -> Location:
    """A location of these options."""
    return KIND.dial(Dial(options=KIND.check(options), http=http or HttpSettings()))


def dial_server(server: Server, endpoint: str | None = None, **options: str) -> Location:
    """A location on a server, or on what stands before it."""
    keys = {"access_key_id": server.access_key, "secret_key": server.secret_key}
    return dial(None, **{"endpoint": endpoint or server.endpoint, **keys, **options})


@contextmanager
def fresh_bucket(server: Server) -> Iterator[str]:
    """The name of a bucket of its own, removed with all that is in it."""
    name = f"s3-{uuid.uuid4().hex[:16]}"
    location = dial_server(server)
    location.create_container(name)
    try:
        yield name
    finally:
        container = location.container(name)
        container.delete_many(keys_of(container))
        location.delete_container(name)
        location.close()


def raw_client(server: Server) -> Minio:
    """The minio client: another pair of eyes."""
    return Minio(
        server.endpoint.removeprefix("http://"),
        access_key=server.access_key,
        secret_key=server.secret_key,
        region="us-east-1",
        secure=False,
    )


def unfinished_uploads(server: Server, bucket: str) -> list[str]:
    """Keys of uploads in parts that were neither completed nor given up."""
    return [upload.object_name for upload in raw_client(server)._list_multipart_uploads(bucket).uploads]


def put(container: Container, key: str, data: SourceLike = b"data", size: int | None = None, **options: object) -> str:
    """Writes an object and returns its etag."""
    return container.put(key, Source(data, size), WriteOptions(**options) if options else PLAIN)  # type: ignore[arg-type]


def get(container: Container, key: str, start: int = 0, length: int | None = None) -> bytes:
    """Bytes of an object."""
    with container.open(key, start, length, None) as stream:
        return stream.read()


def keys_of(container: Container, prefix: str = "") -> list[str]:
    """Every key."""
    return [entry.key for entry in container.list(prefix, "", 100_000, "").entries]
