"""One object for one metric of one registry, however often it is asked for.

The client library raises when a name is registered twice, which would forbid a second store in one process.
Here the second caller gets the first caller's object, provided that both mean the same thing by the name.
"""

import threading
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from attrs import Factory, field, frozen
from prometheus_client import CollectorRegistry
from prometheus_client.registry import DuplicateTimeseries

from metrics.errors import MetricClash

__all__ = ["Declaration", "get_or_create"]

T = TypeVar("T")

_lock = threading.RLock()
_known: WeakKeyDictionary[CollectorRegistry, dict[str, tuple["Declaration", Any]]] = WeakKeyDictionary()


@frozen(kw_only=True)
class Declaration:
    """What makes two declarations of one name the same metric."""

    name: str
    kind: str
    label_names: tuple[str, ...] = ()
    details: dict[str, object] = field(default=Factory(dict))


def get_or_create(registry: CollectorRegistry, wanted: Declaration, make: Callable[[], T]) -> T:
    """Returns the object declared under this name in `registry`, made by `make` the first time.

    Raises `MetricClash` when the name was declared with another type, labels or details, or registered by
    somebody who did not come through here. Thread-safe; `make` runs under the lock and may declare further
    metrics.
    """
    with _lock:
        known = _known.setdefault(registry, {})
        if wanted.name in known:
            have, made = known[wanted.name]
            _check_same(wanted, have)
            return made  # type: ignore[no-any-return]
        try:
            made = make()
        except DuplicateTimeseries as error:
            raise MetricClash(
                f"{wanted.kind} {wanted.name} cannot be declared: the registry already has "
                f"{', '.join(sorted(error.duplicates))}, registered elsewhere or a series of another metric; "
                "use another name, scope or registry"
            ) from error
        known[wanted.name] = (wanted, made)
        return made


def _check_same(wanted: Declaration, have: Declaration) -> None:
    differences = []
    if wanted.kind != have.kind:
        differences.append(f"type {wanted.kind} where it was {have.kind}")
    if wanted.label_names != have.label_names:
        differences.append(f"labels {wanted.label_names!r} where they were {have.label_names!r}")
    if wanted.kind == have.kind:
        differences.extend(
            f"{key} {value!r} where it was {have.details.get(key)!r}"
            for key, value in wanted.details.items()
            if value != have.details.get(key)
        )
    if differences:
        raise MetricClash(
            f"metric {wanted.name} was declared before, differently: now {'; '.join(differences)}. "
            "One name means one thing in a registry: rename one of the two, or use another scope"
        )
