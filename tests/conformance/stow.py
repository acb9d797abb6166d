"""How the kit meets the whole stack: a `StowStore` with its router, metrics, retries and container maps."""

import secrets
from collections.abc import Mapping

from attrs import evolve

from datastore import DataReference
from datastore.driver import Container, Location
from datastore.model import Feature, WriteOptions
from datastore.protocol import Store
from datastore.source import Source
from datastore.testing import Harness
from datastore.wrappers.retrying import RetryPolicy
from stowstore import ContainerPolicy, StoreConfig, StowStore
from stowstore.locations.base import Dial, HttpSettings
from stowstore.locations.registry import load_kind

__all__ = ["StowHarness", "config_of", "dial"]

_MIB = 1 << 20


def config_of(kind: str, options: Mapping[str, str], container: str | None = None) -> StoreConfig:
    """The configuration of a kind, with a container of its own and no bound on others."""
    return StoreConfig(
        kind=kind,
        options=options,
        container=f"kit-{secrets.token_hex(6)}" if container is None else container,
        enable_multicontainer=True,
        http=HttpSettings(timeout=30.0),
    )


def dial(kind: str, options: Mapping[str, str]) -> Location:
    """A bare location, to do behind a store's back what the store does not do."""
    found = load_kind(kind)
    _, plus, provider = kind.partition("+")
    if plus:
        options = {"provider": provider, **options}
    return found.dial(Dial(options=found.check(options), http=HttpSettings(timeout=30.0)))


class StowHarness(Harness):
    """Stores of one configuration, which enables other containers; ``denied`` and ``unreachable`` override options."""

    def __init__(
        self,
        config: StoreConfig,
        *,
        denied: Mapping[str, str] | None = None,
        unreachable: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self._denied = denied
        self._unreachable = unreachable
        self._location: Location | None = None

    @property
    def picklable(self) -> bool:  # type: ignore[override]
        return self.shared and Feature.PERSISTENT in self.capabilities

    def open_store(self, *, max_download_bytes: int = 0) -> Store:
        assert max_download_bytes % _MIB == 0
        return StowStore(evolve(self.config, max_download_mbs=max_download_bytes // _MIB))

    @property
    def root(self) -> DataReference:
        return self.store.base_container_fqn

    def bound_store(self) -> Store | None:
        return StowStore(evolve(self.config, enable_multicontainer=False))

    def denied_store(self) -> Store | None:
        return self._other_store(self._denied)

    def unreachable_store(self) -> Store | None:
        return self._other_store(self._unreachable)

    def put_foreign(self, reference: DataReference, suffix: str) -> bool:
        if Feature.EMPTY_SEGMENTS not in self.capabilities:
            return False
        self._driver(reference).put(reference.key + suffix, Source(b"", 0), WriteOptions())
        return True

    def remove_foreign(self, reference: DataReference, suffix: str) -> None:
        self._driver(reference).delete(reference.key + suffix)

    def close(self) -> None:
        super().close()
        if self._location is not None:
            self._location.close()

    def _driver(self, reference: DataReference) -> Container:
        if self._location is None:
            self._location = dial(self.config.kind, self.config.options)
        return self._location.container(reference.container)

    def _other_store(self, options: Mapping[str, str] | None) -> Store | None:
        if options is None:
            return None
        return StowStore(
            evolve(
                self.config,
                options={**self.config.options, **options},
                # The container is there: looking for it would fail before the kit can ask anything.
                create_container=ContainerPolicy.NEVER,
                retry=RetryPolicy(attempts=2),
            )
        )
