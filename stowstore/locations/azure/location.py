"""An Azure storage account."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, cast

from obstore.store import AzureStore

from datastore.driver import Container
from datastore.errors import ConfigError
from datastore.model import Capabilities, Feature
from stowstore.locations._obstore_container import client_options, part_retries
from stowstore.locations.azure.config import Account, BearerToken, SharedAccessSignature, SharedKey, configure
from stowstore.locations.azure.container import AzureContainer
from stowstore.locations.azure.listing import Markers
from stowstore.locations.azure.names import check_container_name
from stowstore.locations.azure.service import AzureService
from stowstore.locations.base import Dial, HttpSettings

if TYPE_CHECKING:
    from obstore.store import AzureCredentialProvider, ClientConfig, RetryConfig

__all__ = ["AzureLocation"]

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
_SIGNING = {Feature.SIGN_READ, Feature.SIGN_WRITE, Feature.SIGN_HEAD, Feature.SIGN_DELETE}

#: The service sets no bound; a URL that outlives its key's rotation is of no use.
_MAX_SIGN = 10 * 365 * 86400.0

#: 50,000 blocks of 4,000 MiB.
_MAX_OBJECT = 50_000 * 4000 << 20


class AzureLocation:
    """One storage account with one set of credentials; thread-safe."""

    kind: ClassVar[str] = "abfs"
    scheme: ClassVar[str] = "abfs"

    def __init__(
        self, account: Account, credentials: SharedKey | SharedAccessSignature | BearerToken, settings: HttpSettings
    ) -> None:
        self._account = account
        self._credentials = credentials
        self._client = client_options(settings, plain=not account.secure)
        self._service = AzureService(account, credentials, settings)
        self._markers = Markers()
        self._containers: dict[str, AzureContainer] = {}
        signing = _SIGNING if isinstance(credentials, SharedKey) else set()
        self._capabilities = Capabilities(
            features=_FEATURES | signing,
            max_key_bytes=1024,
            max_object_bytes=_MAX_OBJECT,
            max_sign_seconds=_MAX_SIGN,
        )

    @classmethod
    def dial(cls, dial: Dial) -> AzureLocation:
        account, credentials = configure(dial)
        return cls(account, credentials, dial.http)

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    def container(self, name: str) -> Container:
        known = self._containers.get(name)
        if known is None:
            check_container_name(name)
            single = self._store(name, {"max_retries": 0})
            made = AzureContainer(name, single, self._store(name, part_retries()), self._service, self._markers)
            # One handle a container: each has sockets of its own.
            known = self._containers.setdefault(name, made)
        return known

    def has_container(self, name: str) -> bool:
        check_container_name(name)
        return self._service.has_container(name)

    def create_container(self, name: str) -> None:
        check_container_name(name)
        self._service.create_container(name)

    def delete_container(self, name: str) -> None:
        check_container_name(name)
        self._service.delete_container(name)

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        return self._service.list_containers(prefix)

    def close(self) -> None:
        self._service.close()

    def _store(self, container: str, retries: dict[str, Any]) -> Any:
        # obstore reads the environment for whatever is not given here, credentials first of all.
        try:
            return AzureStore(
                container,
                account_name=self._account.name,
                endpoint=self._account.endpoint,
                use_emulator=False,
                skip_signature=False,
                client_options=cast("ClientConfig", self._client),
                retry_config=cast("RetryConfig", retries),
                credential_provider=cast("AzureCredentialProvider", self._credentials.for_obstore),
            )
        except Exception as error:
            raise ConfigError(f"the client refuses the configuration of account {self._account.name!r}") from error

    def __repr__(self) -> str:
        return f"<AzureLocation {self._account.endpoint}>"
