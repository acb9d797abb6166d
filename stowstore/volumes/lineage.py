"""Lineage: which run made a version, as the framework around this process tells it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import Any, TypeAlias

from datastore.errors import ConfigError

__all__ = ["Producer", "checked_producer", "current_producer", "reset_producer", "set_producer"]

#: What names a run: plain data that JSON can hold, such as ``{"run": "r1", "action": "train"}``.
Producer: TypeAlias = Any

_producer: ContextVar[Producer | Callable[[], Producer]] = ContextVar("stowstore_producer", default=None)


def set_producer(producer: Producer | Callable[[], Producer]) -> Token[Any]:
    """Says who makes the versions that this context publishes from now on: plain data, or what gives them when asked.

    Versions carry it as ``produced_by``, their successors as ``parent_produced_by``.

    Raises:
        ConfigError: JSON cannot hold it.
    """
    return _producer.set(producer if callable(producer) else checked_producer(producer))


def reset_producer(token: Token[Any]) -> None:
    """Goes back to what was set before."""
    _producer.reset(token)


def current_producer() -> Producer:
    """Who makes versions in this context; None when nobody has said."""
    producer = _producer.get()
    return checked_producer(producer()) if callable(producer) else producer


def checked_producer(producer: Producer) -> Producer:
    """A copy that nobody else can change, in the form it has after JSON.

    Raises:
        ConfigError: JSON cannot hold it.
    """
    try:
        return json.loads(json.dumps(producer, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"a producer is plain data that JSON can hold, not {type(producer).__name__}: {error}",
            hint="give a mapping of texts, for instance {'run': 'r1'}",
        ) from error
