"""One S3 service with one set of keys."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from minio.helpers import check_bucket_name
from obstore.store import S3Store

from datastore.errors import InvalidReference
from datastore.model import Capabilities, Feature
from stowstore.locations import _obstore
from stowstore.locations.base import Options
from stowstore.locations.s3.container import S3Container
from stowstore.locations.s3.credentials import Keys
from stowstore.locations.s3.errors import FOREIGN, translate
from stowstore.locations.s3.forking import abandon, reset_in_children
from stowstore.locations.s3.settings import Settings
from stowstore.locations.s3.wire import Wire

if TYPE_CHECKING:
    from minio.credentials.credentials import Credentials
    from obstore.store import ClientConfig, S3Config

__all__ = ["S3_CAPABILITIES", "S3Location"]

S3_CAPABILITIES = Capabilities(
    features={
        Feature.CREATE_IF_ABSENT,
        Feature.ATOMIC_CREATE,
        Feature.REPLACE_IF_MATCH,
        Feature.SERVER_SIDE_COPY,
        Feature.SIGN_READ,
        Feature.SIGN_WRITE,
        Feature.SIGN_HEAD,
        Feature.SIGN_DELETE,
        Feature.SIGNED_HEADERS,
        Feature.USER_METADATA,
        Feature.CONTENT_HEADERS,
        Feature.TAGS,
        Feature.CONTAINERS,
        Feature.EMPTY_SEGMENTS,
        Feature.NESTED_KEYS,
        Feature.PERSISTENT,
    },
    max_object_bytes=5 << 40,
)

#: obstore's bound of a whole request; the server's silence is what we bound.
_WHOLE_REQUEST = timedelta(days=7)


class S3Location:
    """Buckets of one account; works in children forked from a process that used it."""

    kind = "s3"
    scheme = "s3"

    def __init__(self, settings: Settings, options: Options) -> None:
        self.settings = settings
        self.keys = Keys(settings, options)
        self.wire = Wire(settings, self.keys)
        self._lock = threading.Lock()
        self._containers: weakref.WeakSet[S3Container] = weakref.WeakSet()
        #: The keys that obstore's clients were made with.
        self._made_with: Credentials | None = None
        reset_in_children(self)

    @property
    def capabilities(self) -> Capabilities:
        return S3_CAPABILITIES

    def container(self, name: str) -> S3Container:
        try:
            check_bucket_name(name)
        except ValueError as error:
            raise InvalidReference(str(error), reason="bad_container") from error
        made = S3Container(self, name)
        with self._lock:
            self._containers.add(made)
        return made

    def has_container(self, name: str) -> bool:
        try:
            return bool(self.wire.minio.bucket_exists(name))
        except FOREIGN as error:
            raise translate(error) from error

    def create_container(self, name: str) -> None:
        try:
            self.wire.minio.make_bucket(name)
        except FOREIGN as error:
            if isinstance(error, ValueError):
                raise InvalidReference(str(error), reason="bad_container") from error
            meaning = translate(error)
            if getattr(error, "code", "") == "BucketAlreadyOwnedByYou":
                return
            raise meaning from error

    def delete_container(self, name: str) -> None:
        try:
            self.wire.minio.remove_bucket(name)
        except FOREIGN as error:
            raise translate(error) from error

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        try:
            buckets = self.wire.minio.list_buckets()
        except FOREIGN as error:
            raise translate(error) from error
        return iter(sorted(bucket.name for bucket in buckets if bucket.name.startswith(prefix)))

    def close(self) -> None:
        self._forget_stores()
        self.wire.close()

    def obstore_client(self, bucket: str) -> S3Store | None:
        """obstore's client for a bucket, or None where obstore does not work: in a child of a process that used it.

        Raises:
            PermissionDenied: there are no credentials.
        """
        if not _obstore.works():
            return None
        settings = self.settings
        if not settings.anonymous:
            # Found here, their absence is an error of ours; found by obstore, it is a text.
            self._made_with = self.keys.retrieve()
        url = self.wire.url("GET", bucket, "")
        config: S3Config = {
            "endpoint": f"{url.scheme}://{url.netloc}",
            "region": settings.region,
            "virtual_hosted_style_request": url.netloc.startswith(f"{bucket}."),
            "unsigned_payload": settings.unsigned_payload,
            # One key is removed by one plain request; the bulk request is ours.
            "disable_bulk_delete": True,
        }
        if settings.anonymous:
            config["skip_signature"] = True
        if settings.sse:
            config["server_side_encryption"] = settings.sse
        if settings.sse_kms_key_id:
            config["sse_kms_key_id"] = settings.sse_kms_key_id
        _obstore.mark_used()
        return S3Store(
            bucket,
            config=config,
            client_options=self._client_options(),
            # Retries are the store's business: only it knows deadlines and what can be sent again.
            retry_config={"max_retries": 0, "retry_timeout": timedelta(0)},
            credential_provider=None if settings.anonymous else self.keys.for_obstore,
        )

    def found_other_keys(self) -> bool:
        """Looks for keys because some were refused; says whether obstore's clients will have other ones now."""
        self.keys.refresh()
        if self.settings.anonymous or self.keys.retrieve() == self._made_with:
            return False
        self._forget_stores()
        return True

    def reset_after_fork(self) -> None:
        """Makes anew what a forked child may not share with its parent."""
        self._lock = threading.Lock()
        self.keys.reset_after_fork()
        self.wire.reset_after_fork()
        abandon(*self._forget_stores())

    def _forget_stores(self) -> list[S3Store | None]:
        with self._lock:
            containers = list(self._containers)
        return [container.forget_store() for container in containers]

    def _client_options(self) -> ClientConfig:
        settings = self.settings
        options: ClientConfig = {
            "allow_http": True,
            "allow_invalid_certificates": settings.insecure_tls,
            "timeout": _WHOLE_REQUEST,
            "read_timeout": timedelta(seconds=settings.timeout),
            "connect_timeout": timedelta(seconds=settings.connect_timeout),
            "pool_idle_timeout": timedelta(seconds=settings.idle_timeout),
            "pool_max_idle_per_host": str(settings.idle_connections),
        }
        if settings.headers:
            options["default_headers"] = dict(settings.headers)
        if settings.ca_bundle:
            with open(settings.ca_bundle, "rb") as file:
                options["root_certificate"] = file.read()
        return options
