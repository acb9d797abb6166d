"""Errors raised while metrics are declared or exposed.

The module imports nothing of the package, so that every other module may import it.
"""

__all__ = ["MetricClash", "MetricError"]


class MetricError(ValueError):
    """A metric, label or scope that Prometheus or this package cannot accept."""


class MetricClash(MetricError):
    """A metric that was declared before in the same registry, but differently."""
