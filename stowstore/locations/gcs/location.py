"""Google Cloud Storage, as one set of credentials sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, cast

from obstore.store import GCSStore

from datastore.driver import Container
from datastore.errors import ConfigError, InvalidReference
from datastore.model import Capabilities, Feature
from stowstore.locations._obstore_container import client_options, part_retries
from stowstore.locations.base import Dial, HttpSettings
from stowstore.locations.gcs.config import GcsConfig, configure
from stowstore.locations.gcs.container import GcsContainer
from stowstore.locations.gcs.service import GcsService

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSCredentialProvider, RetryConfig

__all__ = ["GcsLocation"]

_FEATURES = {
    Feature.CREATE_IF_ABSENT,
    Feature.ATOMIC_CREATE,
    Feature.REPLACE_IF_MATCH,
    Feature.SERVER_SIDE_COPY,
    Feature.USER_METADATA,
    Feature.CONTENT_HEADERS,
    Feature.CONTAINERS,
    Feature.NESTED_KEYS,
    Feature.PERSISTENT,
}
_SIGNING = {
    Feature.SIGN_READ,
    Feature.SIGN_WRITE,
    Feature.SIGN_HEAD,
    Feature.SIGN_DELETE,
    Feature.SIGNED_HEADERS,
}
_NAME = re.compile(r"(?=.{3,222}\Z)[a-z0-9](?:[a-z0-9._-]*[a-z0-9])")
_MAX_OBJECT = 5 << 40


class GcsLocation:
    """The service with one set of credentials; thread-safe."""

    kind: ClassVar[str] = "gs"
    scheme: ClassVar[str] = "gs"

    def __init__(self, config: GcsConfig, settings: HttpSettings) -> None:
        self._config = config
        self._client = client_options(settings, plain=not config.secure)
        # Without it the service unpacks what was stored with Content-Encoding: gzip, and sizes are not what they were.
        self._client.setdefault("default_headers", {}).setdefault("Accept-Encoding", "gzip")
        self._service = GcsService(config, settings)
        self._containers: dict[str, GcsContainer] = {}
        self._capabilities = Capabilities(
            features=_FEATURES | (_SIGNING if config.signer is not None else set()),
            max_key_bytes=1024,
            max_object_bytes=_MAX_OBJECT,
        )

    @classmethod
    def dial(cls, dial: Dial) -> GcsLocation:
        return cls(configure(dial), dial.http)

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def container(self, name: str) -> Container:
        known = self._containers.get(name)
        if known is None:
            _check_name(name)
            made = GcsContainer(
                name, self._store(name, {"max_retries": 0}), self._store(name, part_retries()), self._service
            )
            # One handle a container: each has sockets of its own.
            known = self._containers.setdefault(name, made)
        return known

    def has_container(self, name: str) -> bool:
        _check_name(name)
        return self._service.has_container(name)

    def create_container(self, name: str) -> None:
        _check_name(name)
        self._service.create_container(name)

    def delete_container(self, name: str) -> None:
        _check_name(name)
        self._service.delete_container(name)

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        return self._service.list_containers(prefix)

    def close(self) -> None:
        self._service.close()

    def _store(self, bucket: str, retries: dict[str, Any]) -> Any:
        tokens = self._config.tokens
        # obstore reads the environment for whatever is not given here, and asks a metadata server for tokens even
        # when it shall not sign.
        provider = tokens.for_obstore if tokens is not None else _anonymous
        try:
            return GCSStore(
                bucket,
                base_url=self._config.endpoint,
                skip_signature=tokens is None,
                client_options=cast("ClientConfig", self._client),
                retry_config=cast("RetryConfig", retries),
                credential_provider=cast("GCSCredentialProvider", provider),
            )
        except Exception as error:
            raise ConfigError("the client refuses the configuration of kind 'gs'") from error

    def __repr__(self) -> str:
        return f"<GcsLocation {self._config.endpoint}>"


def _anonymous() -> dict[str, Any]:
    return {"token": "anonymous", "expires_at": None}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidReference(
            f"Google has no container named {name!r}",
            reason="container_name",
            hint="3 to 63 lower case letters, digits, '-', '_' and '.', with a letter or digit at each end",
        )
