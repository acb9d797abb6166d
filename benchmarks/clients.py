"""The clients that are compared, each behind the same few verbs, configured as its documentation advises for speed.

Every client is imported and made in a process of its own, so a missing one is an `ImportError` there.  Checksums
beyond the signature are off where that can be chosen, connection pools hold as many connections as there are threads,
and every read ends in a `bytes`.
"""

from __future__ import annotations

import io
import os
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import frozen

__all__ = ["CLIENTS", "LOCAL_CLIENTS", "Client", "Service", "Zeros"]

_PIECE = 1 << 20
_CONNECTIONS = 32


@frozen(kw_only=True)
class Service:
    """Where a client finds the service: an S3 endpoint and a bucket, or a directory for local disk."""

    endpoint: str = ""
    bucket: str = "bench"
    access_key: str = ""
    secret_key: str = ""
    region: str = "us-east-1"
    directory: str = ""

    @property
    def host(self) -> str:
        return self.endpoint.removeprefix("http://")


class Zeros(io.RawIOBase):
    """A file of so many zeros that can be read once and not be rewound: a pipe, in effect."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._piece = bytes(_PIECE)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        count = self._left if size is None or size < 0 else min(size, self._left)
        self._left -= count
        return self._piece[:count] if count <= _PIECE else bytes(count)


class Client(ABC):
    """One client of one service; ``put`` and ``get`` are called from many threads."""

    def __init__(self, service: Service) -> None:
        self.service = service

    @abstractmethod
    def put(self, key: str, data: bytes) -> None: ...

    @abstractmethod
    def get(self, key: str) -> bytes: ...

    @abstractmethod
    def put_stream(self, key: str, size: int) -> None:
        """Writes so many zeros from a stream."""

    @abstractmethod
    def get_stream(self, key: str) -> int:
        """Reads an object piece by piece and says how many bytes there were."""

    def list(self, prefix: str) -> int:
        """Lists every key below a prefix and says how many there are."""
        raise LookupError("there is nothing to list")


class Stowstore(Client):
    """The whole stack, as `stowstore.open_store` makes it: routing, measured, retrying, portable, driver."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        from stowstore import StoreConfig, open_store

        if service.directory:
            self._store = open_store(f"file://{service.directory}/stowstore")
        else:
            self._store = open_store(
                StoreConfig(
                    kind="s3",
                    container=service.bucket,
                    options={
                        "endpoint": service.endpoint,
                        "access_key_id": service.access_key,
                        "secret_key": service.secret_key,
                        "region": service.region,
                    },
                )
            )
        self._base = str(self._store.base_container_fqn)

    def put(self, key: str, data: bytes) -> None:
        self._store.write_raw(f"{self._base}/{key}", len(data), None, data)

    def get(self, key: str) -> bytes:
        with self._store.read_raw(f"{self._base}/{key}") as stream:
            return stream.read()

    def put_stream(self, key: str, size: int) -> None:
        self._store.write_raw(f"{self._base}/{key}", size, None, Zeros(size))

    def get_stream(self, key: str) -> int:
        with self._store.read_raw(f"{self._base}/{key}") as stream:
            return sum(map(len, stream))

    def list(self, prefix: str) -> int:
        return sum(1 for _ in self._store.walk(f"{self._base}/{prefix}"))


class Obstore(Client):
    """obstore's functions over its `S3Store`."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        import obstore
        from obstore.store import S3Store

        self._obstore = obstore
        self._store = S3Store(
            service.bucket,
            endpoint=service.endpoint,
            access_key_id=service.access_key,
            secret_access_key=service.secret_key,
            region=service.region,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    def put(self, key: str, data: bytes) -> None:
        self._obstore.put(self._store, key, data)

    def get(self, key: str) -> bytes:
        return self._obstore.get(self._store, key).bytes().to_bytes()

    def put_stream(self, key: str, size: int) -> None:
        self._obstore.put(self._store, key, _pieces(Zeros(size)))

    def get_stream(self, key: str) -> int:
        return sum(map(len, self._obstore.get(self._store, key).stream(min_chunk_size=_PIECE)))

    def list(self, prefix: str) -> int:
        return sum(len(page) for page in self._obstore.list(self._store, prefix=prefix, chunk_size=1000))


class MinioClient(Client):
    """minio-py."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        import urllib3
        from minio import Minio

        self._client = Minio(
            service.host,
            access_key=service.access_key,
            secret_key=service.secret_key,
            region=service.region,
            secure=False,
            http_client=urllib3.PoolManager(maxsize=_CONNECTIONS),
        )

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(self.service.bucket, key, io.BytesIO(data), len(data))

    def get(self, key: str) -> bytes:
        response = self._client.get_object(self.service.bucket, key)
        try:
            data: bytes = response.read()
            return data
        finally:
            response.close()
            response.release_conn()

    def put_stream(self, key: str, size: int) -> None:
        self._client.put_object(self.service.bucket, key, Zeros(size), size)  # type: ignore[arg-type]

    def get_stream(self, key: str) -> int:
        response = self._client.get_object(self.service.bucket, key)
        try:
            return sum(map(len, response.stream(_PIECE)))
        finally:
            response.close()
            response.release_conn()

    def list(self, prefix: str) -> int:
        return sum(1 for _ in self._client.list_objects(self.service.bucket, prefix, recursive=True))


class Boto3(Client):
    """boto3's client; its transfer manager for streams."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        import boto3  # type: ignore[import-untyped, unused-ignore]
        from botocore.config import Config  # type: ignore[import-untyped, unused-ignore]

        self._client: Any = boto3.client(
            "s3",
            endpoint_url=service.endpoint,
            aws_access_key_id=service.access_key,
            aws_secret_access_key=service.secret_key,
            region_name=service.region,
            config=Config(
                max_pool_connections=_CONNECTIONS,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                s3={"addressing_style": "path"},
            ),
        )

    def put(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=self.service.bucket, Key=key, Body=data)

    def get(self, key: str) -> bytes:
        data: bytes = self._client.get_object(Bucket=self.service.bucket, Key=key)["Body"].read()
        return data

    def put_stream(self, key: str, size: int) -> None:
        self._client.upload_fileobj(Zeros(size), self.service.bucket, key)

    def get_stream(self, key: str) -> int:
        body = self._client.get_object(Bucket=self.service.bucket, Key=key)["Body"]
        return sum(map(len, body.iter_chunks(_PIECE)))

    def list(self, prefix: str) -> int:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.service.bucket, Prefix=prefix)
        return sum(len(page.get("Contents", ())) for page in pages)


class S3fs(Client):
    """s3fs through its synchronous interface."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        import s3fs  # type: ignore[import-untyped, unused-ignore]

        if not hasattr(s3fs.S3FileSystem, "_pipe_file"):
            raise ImportError(f"s3fs {s3fs.__version__} is too old: pip fell back; install s3fs>=2026")
        self._fs: Any = s3fs.S3FileSystem(
            key=service.access_key,
            secret=service.secret_key,
            endpoint_url=service.endpoint,
            client_kwargs={"region_name": service.region},
            config_kwargs={
                "max_pool_connections": _CONNECTIONS,
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
                "s3": {"addressing_style": "path"},
            },
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def put(self, key: str, data: bytes) -> None:
        self._fs.pipe_file(f"{self.service.bucket}/{key}", data)

    def get(self, key: str) -> bytes:
        data: bytes = self._fs.cat_file(f"{self.service.bucket}/{key}")
        return data

    def put_stream(self, key: str, size: int) -> None:
        with self._fs.open(f"{self.service.bucket}/{key}", "wb") as file:
            for piece in _pieces(Zeros(size)):
                file.write(piece)

    def get_stream(self, key: str) -> int:
        with self._fs.open(f"{self.service.bucket}/{key}", "rb") as file:
            return sum(map(len, iter(lambda: file.read(_PIECE), b"")))

    def list(self, prefix: str) -> int:
        self._fs.invalidate_cache()
        return len(self._fs.find(f"{self.service.bucket}/{prefix}"))


class Libcloud(Client):
    """apache-libcloud's S3 driver, one a thread as it is not thread-safe.

    Small objects are uploaded from a file made beforehand, which costs it a third of its own upload of streams.
    """

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        from libcloud.storage.providers import get_driver
        from libcloud.storage.types import Provider

        self._make = get_driver(Provider.S3)
        self._thread = threading.local()
        self._files: dict[int, str] = {}
        self._making = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="stowstore-bench-")

    def put(self, key: str, data: bytes) -> None:
        driver, container = self._driver()
        path = self._files.get(len(data)) or self._prepare(data)
        driver.upload_object(path, container, key, extra={"content_type": "application/octet-stream"})

    def get(self, key: str) -> bytes:
        driver, _ = self._driver()
        found = driver.get_object(self.service.bucket, key)
        return b"".join(driver.download_object_as_stream(found, _PIECE))

    def put_stream(self, key: str, size: int) -> None:
        driver, container = self._driver()
        extra = {"content_type": "application/octet-stream"}
        driver.upload_object_via_stream(_pieces(Zeros(size)), container, key, extra=extra)

    def get_stream(self, key: str) -> int:
        driver, _ = self._driver()
        return sum(map(len, driver.download_object_as_stream(driver.get_object(self.service.bucket, key), _PIECE)))

    def list(self, prefix: str) -> int:
        driver, container = self._driver()
        return sum(1 for _ in driver.iterate_container_objects(container, prefix=prefix))

    def _prepare(self, data: bytes) -> str:
        with self._making:
            path = os.path.join(self._folder.name, str(len(data)))
            if not os.path.exists(path):
                with open(path, "wb") as file:
                    file.write(data)
            self._files[len(data)] = path
            return path

    def _driver(self) -> tuple[Any, Any]:
        made: tuple[Any, Any] | None = getattr(self._thread, "made", None)
        if made is None:
            from libcloud.storage.base import Container

            host, _, port = self.service.host.partition(":")
            driver: Any = self._make(
                self.service.access_key,
                self.service.secret_key,
                secure=False,
                host=host,
                port=int(port),
                region=self.service.region,
            )
            made = self._thread.made = driver, Container(self.service.bucket, {}, driver)
        return made


class PlainFiles(Client):
    """What one writes without a library: a temporary file beside the target and a rename; plain reads."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self._folder = os.path.join(service.directory, "plain")
        os.makedirs(os.path.join(self._folder, "objects"), exist_ok=True)

    def put(self, key: str, data: bytes) -> None:
        path = f"{self._folder}/{key}"
        draft = f"{path}.{threading.get_native_id()}"
        with open(draft, "xb") as file:
            file.write(data)
        os.rename(draft, path)

    def get(self, key: str) -> bytes:
        with open(f"{self._folder}/{key}", "rb") as file:
            return file.read()

    def put_stream(self, key: str, size: int) -> None:
        path = f"{self._folder}/{key}"
        with open(f"{path}.draft", "xb") as file:
            file.writelines(_pieces(Zeros(size)))
        os.rename(f"{path}.draft", path)

    def get_stream(self, key: str) -> int:
        with open(f"{self._folder}/{key}", "rb") as file:
            return sum(map(len, iter(lambda: file.read(_PIECE), b"")))


def _pieces(stream: Zeros) -> Iterator[bytes]:
    return iter(lambda: stream.read(_PIECE), b"")


#: The clients of S3, the reference of the ratios second.
CLIENTS: Mapping[str, Callable[[Service], Client]] = {
    "stowstore": Stowstore,
    "obstore": Obstore,
    "minio-py": MinioClient,
    "boto3": Boto3,
    "s3fs": S3fs,
    "libcloud": Libcloud,
}

#: The ways to local disk.
LOCAL_CLIENTS: Mapping[str, Callable[[Service], Client]] = {"stowstore": Stowstore, "plain": PlainFiles}
