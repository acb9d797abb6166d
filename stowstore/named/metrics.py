"""What volumes hold and may hold, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stowstore.named.volumes import NamedVolumes

__all__ = ["NAMES", "NamedVolumesCollector", "exposition"]

_LABELS: Final = ("volume", "type", "backing")

#: Every metric and what it is.
NAMES: Final = {
    "stow_volume_size_bytes": "Bytes the volume may hold",
    "stow_volume_used_bytes": "Bytes the volume holds",
    "stow_volume_inodes": "Inodes the volume holds",
    "stow_volume_inodes_limit": "Inodes the volume may hold",
    "stow_volume_attached_jobs": "Jobs that have the volume",
    "stow_volume_enforced": "Whether the size is enforced",
    "stow_volume_mounted": "Whether the volume is mounted",
    "stow_volume_snapshots": "Versions made of the volume",
}


class NamedVolumesCollector(Collector):
    """Reads the counters of a registry when it is asked: register it where a process serves metrics.

    >>> from prometheus_client import REGISTRY
    >>> REGISTRY.register(NamedVolumesCollector(NamedVolumes()))  # doctest: +SKIP
    """

    def __init__(self, volumes: NamedVolumes) -> None:
        self._volumes = volumes

    def collect(self) -> Iterator[Metric]:
        families = {name: GaugeMetricFamily(name, text, labels=_LABELS) for name, text in NAMES.items()}
        for info in self._volumes.list():
            record = info.record
            if record is None:
                continue
            values: dict[str, float | None] = {
                "stow_volume_size_bytes": record.size_bytes,
                "stow_volume_used_bytes": info.usage.used_bytes,
                "stow_volume_inodes": info.usage.inodes,
                "stow_volume_inodes_limit": record.inodes,
                "stow_volume_attached_jobs": len(info.jobs),
                "stow_volume_enforced": float(record.enforced),
                "stow_volume_mounted": float(info.is_mounted),
                "stow_volume_snapshots": record.snapshots,
            }
            for name, value in values.items():
                if value is not None:
                    families[name].add_metric((info.name, record.type.value, record.backing.value), value)
        yield from families.values()


def exposition(volumes: NamedVolumes) -> str:
    """The metrics of a registry in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(NamedVolumesCollector(volumes))
    return generate_latest(registry).decode()
