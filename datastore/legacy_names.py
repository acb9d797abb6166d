"""The store's metrics under flytestdlib's names, exposed directly.

For dashboards that cannot change and servers that take no rules; whoever can add rules has the same names
from `datastore.dashboards` at no cost to the application.  Source: flyteorg/flyte, ``flytestdlib/storage``.

    legacy = LegacyMetrics.register(Scope("flyte", naming=Naming.FLYTE).sub("storage"), LEGACY_FAMILIES)
    store = MeasuredStore(inner, metrics, observer=LegacyNames(legacy))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from datastore.errors import ErrorCode, StoreError
from datastore.metric_names import CacheResult, Operation, Outcome
from datastore.protobuf import ProtobufEvent
from datastore.wrappers.measured import OperationEvent
from metrics.legacy import LegacyFamily, LegacyKind, LegacyMetrics

__all__ = ["LEGACY_FAMILIES", "LegacyNames"]


def _plain(name: str, kind: LegacyKind, help_text: str) -> LegacyFamily:
    return LegacyFamily(name=name, kind=kind, help=help_text)


def _labelled(name: str, kind: LegacyKind, help_text: str, *label_names: str) -> LegacyFamily:
    return LegacyFamily(name=name, kind=kind, help=help_text, label_names=label_names, context_labels=True, twin=True)


_TIMED: Final[Mapping[Operation, tuple[str, str]]] = {
    Operation.HEAD: ("head", "metadata request"),
    Operation.LIST: ("list", "one listing page"),
    Operation.READ: ("read_open", "opening an object for reading"),
    Operation.WRITE: ("write", "storing an object of any size"),
    Operation.DELETE: ("delete", "removing an object"),
}
_COUNTER, _SUMMARY, _HISTOGRAM = LegacyKind.COUNTER, LegacyKind.SUMMARY, LegacyKind.HISTOGRAM

#: flytestdlib's 51 families of a store, of its cache, its messages and its copies; a twin counts as a family.
LEGACY_FAMILIES: Final = (
    _plain("cache_hit", _COUNTER, "objects found in the cache"),
    _plain("cache_miss", _COUNTER, "objects not in the cache, fetched from the backend"),
    _plain("cache_write_err", _COUNTER, "cache fills that failed after a write"),
    _plain("remote_fetch_ms", _SUMMARY, "full backend read on a cache miss"),
    _plain("proto_fetch_ms", _SUMMARY, "reading a message's bytes before decoding"),
    _plain("marshal_ms", _SUMMARY, "encoding a message before writing"),
    _plain("unmarshal_ms", _SUMMARY, "decoding a message"),
    _plain("marshal_failure", _COUNTER, "encode failures"),
    _plain("unmarshal_failure", _COUNTER, "decode failures"),
    _plain(
        "write_failure_unrelated_to_cache",
        _COUNTER,
        "message writes that failed for a reason other than the cache",
    ),
    _plain(
        "read_failure_unrelated_to_cache",
        _COUNTER,
        "message reads that failed for a reason other than the cache",
    ),
    _labelled("copy:overall_ms", _SUMMARY, "whole copy"),
    _labelled("copy:length_ms", _SUMMARY, "learning the length of a non-seekable source before writing"),
    _plain("copy:write_failure_unrelated_to_cache", _COUNTER, "copies whose write failed"),
    _plain("copy:read_failure_unrelated_to_cache", _COUNTER, "copies whose read failed"),
    _labelled("bad_key", _COUNTER, "reference could not be parsed"),
    _labelled("bad_container", _COUNTER, "container not allowed for this store"),
    _labelled("head_failure", _COUNTER, "head failures"),
    _labelled("list_failure", _COUNTER, "list failures"),
    _labelled("read_failure", _COUNTER, "read failures", "failure_type"),
    _labelled("write_failure", _COUNTER, "write failures", "failure_type"),
    _labelled("delete_failure", _COUNTER, "delete failures", "failure_type"),
    *(_labelled(f"{name}_ms", _SUMMARY, f"{what}, milliseconds") for name, what in _TIMED.values()),
    *(_labelled(name, _HISTOGRAM, f"{what}, seconds") for name, what in _TIMED.values()),
)

_FAILURES: Final = {
    Operation.HEAD: "head_failure",
    Operation.LIST: "list_failure",
    Operation.READ: "read_failure",
    Operation.WRITE: "write_failure",
    Operation.DELETE: "delete_failure",
}
_PROTOBUF_TIMES: Final = frozenset({ProtobufEvent.FETCHED, ProtobufEvent.MARSHALLED, ProtobufEvent.UNMARSHALLED})
_TYPED: Final = frozenset({Operation.READ, Operation.WRITE, Operation.DELETE})


class LegacyNames:
    """An observer of a `MeasuredStore` that keeps upstream's families; thread-safe.

    `on_cache` and `on_protobuf` are for the cache's and the messages' hooks.

    As upstream, times are those of successes, a bad reference and a forbidden container have counters of
    their own, and what the caller cancelled counts nowhere.  ``failure_type`` is the error's code.
    """

    def __init__(self, legacy: LegacyMetrics) -> None:
        self._legacy = legacy

    def __call__(self, event: OperationEvent) -> None:
        if event.outcome is Outcome.OK:
            self._succeeded(event)
        elif event.code is ErrorCode.INVALID_REFERENCE:
            self._legacy.count("bad_key")
        elif event.code is ErrorCode.CONTAINER_NOT_ALLOWED:
            self._legacy.count("bad_container")
        elif event.outcome is not Outcome.CANCELLED and event.code is not None:
            self._failed(event, event.code)

    def on_cache(self, operation: Operation, result: CacheResult) -> None:
        """Counts a request to the cache, as `datastore.wrappers.cached.CachedStore` reports them."""
        if result is CacheResult.HIT:
            self._legacy.count("cache_hit")
        elif result is CacheResult.MISS:
            self._legacy.count("cache_miss")

    def on_protobuf(self, event: ProtobufEvent, seconds: float) -> None:
        """Counts or times a step of a message, as `datastore.protobuf` reports them."""
        if event in _PROTOBUF_TIMES:
            self._legacy.observe(f"{event.value}_ms", seconds)
        else:
            self._legacy.count(event.value)

    def _succeeded(self, event: OperationEvent) -> None:
        if event.operation is Operation.COPY:
            self._legacy.observe("copy:overall_ms", event.seconds)
        elif event.operation in _TIMED:
            seconds = event.seconds if event.first_byte is None else event.first_byte
            name, _ = _TIMED[event.operation]
            self._legacy.observe(f"{name}_ms", seconds)
            self._legacy.observe(name, seconds)

    def _failed(self, event: OperationEvent, code: ErrorCode) -> None:
        if event.operation is Operation.COPY:
            # The error names the side that failed, the event the source.
            reference = event.error.reference if isinstance(event.error, StoreError) else None
            side = "read" if reference == str(event.reference) else "write"
            self._legacy.count(f"copy:{side}_failure_unrelated_to_cache")
        elif event.operation in _TYPED:
            self._legacy.count(_FAILURES[event.operation], failure_type=code.value)
        elif event.operation in _FAILURES:
            self._legacy.count(_FAILURES[event.operation])
