"""What a metric, a label and a scope may be called.

Prometheus has accepted any UTF-8 text as a name since version 3 and its Python client lets such names pass,
but most of what reads metrics (older servers, rule files, Grafana's variables) still expects the classic
pattern, so the classic pattern is what this package enforces.
"""

import re
from collections.abc import Iterable

from metrics.errors import MetricError

__all__ = ["check_label_names", "check_metric_name", "clean_flyte_name"]

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_NOT_FLYTE = re.compile(r"[^a-zA-Z0-9_:]")


def check_metric_name(name: str, *, colons: bool) -> str:
    """Returns `name` when it matches the classic Prometheus pattern, raises `MetricError` otherwise.

    With `colons` false a colon is refused as well: Prometheus keeps it for the names of recording rules.
    """
    if not name:
        raise MetricError("a metric's name is empty: give it at least one letter")
    if not _METRIC_NAME.fullmatch(name):
        raise MetricError(f"metric name {name!r} is not valid: use letters, digits (not first) and underscores only")
    if not colons and ":" in name:
        raise MetricError(
            f"metric name {name!r} has a colon, which Prometheus keeps for recording rules: "
            "use an underscore, or a scope with Naming.FLYTE"
        )
    return name


def check_label_names(names: Iterable[str], *, reserved: str = "") -> tuple[str, ...]:
    """Returns the label names as a tuple; raises `MetricError` for a bad, reserved or repeated one."""
    if isinstance(names, str):
        raise MetricError(f"label names are a sequence of names, not the one text {names!r}")
    checked = tuple(names)
    for name in checked:
        if not _LABEL_NAME.fullmatch(name) or name.startswith("__"):
            raise MetricError(
                f"label name {name!r} is not valid: use letters, digits (not first) and underscores, "
                "and not two underscores at the start"
            )
        if name == reserved:
            raise MetricError(f"label name {name!r} is reserved by Prometheus for this type of metric")
    if len(set(checked)) != len(checked):
        raise MetricError(f"label names {checked!r} name one label twice")
    return checked


def clean_flyte_name(text: str) -> str:
    """Returns `text` as flytestdlib would expose it: `-` becomes `_`, other foreign characters are dropped.

    All leading digits are dropped, where upstream drops only the first character and may leave an invalid
    name.
    """
    return _NOT_FLYTE.sub("", text.replace("-", "_")).lstrip("0123456789")
