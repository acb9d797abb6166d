"""How a store is put together: the one place where the wrappers are stacked.

From outside in, for each backend: measured, cached, retrying, then the containers of its location.  The router of
schemes is `stowstore.StowStore` itself, around all of them.  What measures and
what caches is loaded for the stores that have it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import evolve, frozen

from datastore.driver import Location
from datastore.errors import ConfigError
from datastore.events import EventLogger, get_logger, listening
from datastore.metric_names import CacheResult, Operation
from datastore.protobuf import ProtobufEvent, ProtobufHook
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.wrappers.retrying import RetryEvent, RetryingStore
from stowstore.config import Measuring, SchemeConfig, StoreConfig
from stowstore.containers import ContainerMap, LocationStore
from stowstore.locations.base import Dial, Kind, nearest
from stowstore.locations.registry import known_schemes, load_kind

if TYPE_CHECKING:
    from datastore.legacy_names import LegacyNames
    from datastore.wrappers.measured import Observer, OperationEvent, StoreMetrics
    from metrics import Scope

T = TypeVar("T")

__all__ = ["Backend", "configure", "dial_backend", "dial_scheme"]


@frozen
class Backend:
    """One dialled backend: the stack callers use, the containers under it, and its metrics where it is measured."""

    store: Store
    containers: LocationStore
    metrics: StoreMetrics | None
    scheme: str
    protobuf_hook: ProtobufHook
    _retrying: RetryingStore

    def on_container(self, operation: Operation, name: str, act: Callable[[], T]) -> T:
        """Runs an operation on a container, measured and tried again like those on objects."""
        reference = DataReference.build(self.scheme, name)
        metrics = self.metrics
        with contextlib.nullcontext() if metrics is None else metrics.measure(operation):
            result = self._retrying.call(operation, reference, act)
        if metrics is not None:
            metrics.containers_loaded.set(self.containers.loaded)
        return result


def configure(source: StoreConfig | Mapping[str, Any] | str | os.PathLike[str] | None, **overrides: Any) -> StoreConfig:
    """A configuration of whatever the caller has: itself, a mapping, a URL, a YAML file's path, or the environment.

    Raises:
        ConfigError: it cannot be one; the message names the key.
    """
    if isinstance(source, str) and "://" in source:
        return StoreConfig.from_url(source, **overrides)
    if source is None:
        config = StoreConfig.from_env()
    elif isinstance(source, StoreConfig):
        config = source
    elif isinstance(source, Mapping):
        config = StoreConfig.from_mapping(source)
    elif isinstance(source, (str, os.PathLike)) and Path(source).suffix in (".yaml", ".yml"):
        config = StoreConfig.from_yaml(source)
    else:
        raise ConfigError(
            f"{source!r} is no store", hint="give a URL such as file:///data/main, or the path of a YAML file"
        )
    return evolve(config, **overrides) if overrides else config


def dial_backend(config: StoreConfig, scope: Scope | None) -> Backend:
    """Dials the primary location of a configuration, and the signing one where it is configured.

    It is measured under the scope, ``stow`` without one.

    Raises:
        ConfigError: the kind or one of its options is wrong.
        StoreError: the base container cannot be used.
    """
    kind = load_kind(config.kind)
    main = _dial(kind, config, config.options)
    signing = None
    if config.signed_url_options:
        signing = _dial(kind, config, {**config.options, **config.signed_url_options})
    maps = [
        ContainerMap(
            location,
            base=config.container,
            dynamic=config.enable_multicontainer,
            policy=config.create_container,
        )
        for location in (main, signing)
        if location is not None
    ]
    containers = LocationStore(
        *maps, base=config.container, account=config.account, max_download_bytes=config.max_download_bytes
    )
    log = get_logger(location=config.name, kind=kind.name)
    metrics = _metrics(config, kind.name, scope) if scope is not None or _is_heard(config) else None
    legacy = None if metrics is None else _legacy_names(config, metrics.scope)
    retrying = RetryingStore(containers, config.retry, on_retry=_retry_recorder(metrics, log))
    store: Store = retrying
    if config.cache is not None:
        from datastore.wrappers.cached import CachedStore

        store = CachedStore(store, config.cache, on_request=_cache_recorder(metrics, legacy))
    if metrics is not None:
        store = _measured(store, metrics, log, legacy)
    protobuf_hook = _nobody if legacy is None else legacy.on_protobuf
    backend = Backend(store, containers, metrics, main.scheme, protobuf_hook, retrying)
    if config.container:
        backend.on_container(Operation.LOAD_CONTAINER, config.container, containers.ensure_base)
    return backend


def dial_scheme(
    config: StoreConfig, scheme: str, account: str | None, reference: DataReference, scope: Scope | None
) -> Backend:
    """Dials the backend of a scheme that is not the primary's: no base container, any container allowed.

    Raises:
        ConfigError: no kind serves the scheme, or its configuration is incomplete.
    """
    kind_name = known_schemes(scheme).get(scheme)
    given = config.schemes.get(scheme, SchemeConfig())
    if given.kind is not None:
        kind_name = given.kind
    if kind_name is None:
        raise ConfigError(f"no kind serves the scheme {scheme!r}", hint=nearest(scheme, known_schemes()))
    options = dict(given.options)
    if kind_name == "redis" and "addr" not in options:
        options["addr"] = reference.container
    if scheme == "rediss":
        options.setdefault("tls", "true")
    return dial_backend(
        evolve(
            config,
            kind=scheme if kind_name == "libcloud" else kind_name,
            options=options,
            container="",
            enable_multicontainer=True,
            signed_url_options={},
            account=account,
            name=scheme,
        ),
        scope,
    )


def _dial(kind: Kind, config: StoreConfig, options: Mapping[str, str]) -> Location:
    _, plus, provider = config.kind.partition("+")
    if plus:
        options = {"provider": provider, **options}
    try:
        return kind.dial(Dial(options=kind.check(options), http=config.http, account=config.account))
    except ConfigError as error:
        error.message = f"unable to configure the storage for {config.kind}: {error.message}"
        raise


def _is_heard(config: StoreConfig) -> bool:
    """Whether a store without a scope of its own is measured all the same."""
    if config.measuring is Measuring.ALWAYS or config.legacy_scope or listening():
        return True
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ


def _metrics(config: StoreConfig, kind: str, scope: Scope | None) -> StoreMetrics:
    from datastore.wrappers.measured import StoreMetrics
    from metrics import Scope

    return StoreMetrics(scope or Scope("stow"), kind, config.name)


def _measured(store: Store, metrics: StoreMetrics, log: EventLogger, legacy: LegacyNames | None) -> Store:
    from datastore.wrappers.measured import MeasuredStore

    observers: list[Observer] = [_operation_logger(log)] if listening() else []
    if legacy is not None:
        observers.append(legacy)
    return MeasuredStore(store, metrics, observer=_all_of(observers))


def _retry_recorder(metrics: StoreMetrics | None, log: EventLogger) -> Callable[[RetryEvent], None]:
    def record(event: RetryEvent) -> None:
        if metrics is not None:
            metrics.retries[event.operation, event.reason].inc()
        log.warning(
            "storage.retry",
            op=event.operation.value,
            reference=str(event.reference),
            attempt=event.attempt,
            seconds=event.delay,
            code=event.error.code.value,
            error=event.error.message,
        )

    return record


def _cache_recorder(
    metrics: StoreMetrics | None, legacy: LegacyNames | None
) -> Callable[[Operation, CacheResult], None] | None:
    if metrics is None:
        return None

    def record(operation: Operation, result: CacheResult) -> None:
        metrics.cache_requests[operation, result].inc()
        if legacy is not None:
            legacy.on_cache(operation, result)

    return record


def _legacy_names(config: StoreConfig, scope: Scope) -> LegacyNames | None:
    if not config.legacy_scope:
        return None
    from datastore.legacy_names import LEGACY_FAMILIES, LegacyNames
    from metrics import Naming, Scope
    from metrics.legacy import LegacyMetrics

    legacy = Scope(config.legacy_scope, registry=scope.registry, naming=Naming.FLYTE)
    return LegacyNames(LegacyMetrics.register(legacy, LEGACY_FAMILIES))


def _all_of(observers: list[Observer]) -> Observer | None:
    if len(observers) < 2:
        return observers[0] if observers else None

    def observe(event: OperationEvent) -> None:
        for observer in observers:
            observer(event)

    return observe


def _nobody(event: ProtobufEvent, seconds: float) -> None:
    """Hears nothing."""


def _operation_logger(log: EventLogger) -> Callable[[OperationEvent], None]:
    def record(event: OperationEvent) -> None:
        log.debug(
            "storage.operation",
            op=event.operation.value,
            reference=None if event.reference is None else str(event.reference),
            outcome=event.outcome.value,
            code=None if event.code is None else event.code.value,
            seconds=round(event.seconds, 6),
            bytes=event.size,
        )

    return record
