"""Labels that belong to the work at hand rather than to the code that counts.

A process decides once which label keys it has (`set_label_keys("project", "domain")`), code that knows their
values says so for a block (`with labels(project="p"):`), and every metric declared with
`context_labels=True` picks the values up wherever it is counted, however deep. Values travel in a context
variable, so they follow asyncio tasks and `contextvars.copy_context()`; a new thread starts without any, as
everywhere in Python.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final

from metrics.errors import MetricError
from metrics.names import check_label_names

__all__ = ["LabelKeys", "current_labels", "label_keys", "labels", "process_keys", "set_label_keys"]

_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})
_current: ContextVar[Mapping[str, str]] = ContextVar("metrics_labels", default=_NO_LABELS)


@contextmanager
def labels(**values: str) -> Iterator[Mapping[str, str]]:
    """Sets context labels for a block and yields all that are in force in it.

    Blocks nest: an inner one adds to the outer and wins where both set a label. Raises `MetricError` for a
    label that the process does not have, once its keys are set, and `TypeError` for a value that is not
    text.
    """
    check_label_names(values)
    for name, value in values.items():
        if not isinstance(value, str):
            raise TypeError(f"label {name!r} must be text, not {type(value).__name__}")
    process_keys.check_known(values)
    merged = MappingProxyType({**_current.get(), **values})
    token = _current.set(merged)
    try:
        yield merged
    finally:
        _current.reset(token)


def current_labels() -> Mapping[str, str]:
    """Returns the context labels in force, without the missing ones."""
    return _current.get()


def set_label_keys(*keys: str) -> None:
    """Decides which context labels this process has, for good.

    The same keys again, in any order, are fine. Other keys raise `MetricError`, and so do any keys after a
    metric with context labels was declared without them: a metric's labels cannot change.
    """
    process_keys.set(keys)


def label_keys() -> tuple[str, ...]:
    """Returns the process-wide label keys in alphabetical order, `()` when none were set."""
    return process_keys.keys


class LabelKeys:
    """The label keys of a process: set once, thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys: tuple[str, ...] = ()
        self._final = False

    @property
    def keys(self) -> tuple[str, ...]:
        return self._keys

    def set(self, keys: tuple[str, ...]) -> None:
        wanted = tuple(sorted(check_label_names(keys)))
        with self._lock:
            if self._final and wanted != self._keys:
                have = ", ".join(self._keys) or "none (a metric was declared before any were set)"
                raise MetricError(
                    f"label keys are set once a process: asked for {', '.join(wanted) or 'none'}, "
                    f"have {have}; "
                    "call set_label_keys at start-up, before metrics are declared"
                )
            self._keys, self._final = wanted, True

    def use(self) -> tuple[str, ...]:
        """Returns the keys for a metric's declaration, which makes them final."""
        with self._lock:
            self._final = True
            return self._keys

    def check_known(self, names: Mapping[str, str]) -> None:
        if self._final and self._keys and not names.keys() <= set(self._keys):
            unknown = ", ".join(sorted(names.keys() - set(self._keys)))
            raise MetricError(
                f"no such context label: {unknown}; this process has {', '.join(self._keys)} (set_label_keys)"
            )


process_keys = LabelKeys()
