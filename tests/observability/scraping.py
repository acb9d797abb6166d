"""Asking a real Prometheus what dashboards ask it, with the filters of one test."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from metrics.dashboards import shipped
from tests.servers import Server
from tests.servers.prometheus_server import add_target, query, remove_target

__all__ = ["Question", "Scraper", "questions"]

#: How long Prometheus may take to notice a target and what it has done, seconds, however busy the machine is.
_PATIENCE = 60.0


@frozen
class Question:
    """One expression of a dashboard, and the panel it is drawn on."""

    panel: str
    expr: str

    def __str__(self) -> str:
        return f"{self.panel}: {self.expr}"


def questions(dashboard: str, variables: Mapping[str, str]) -> Iterator[Question]:
    """Every expression of a shipped dashboard, as Grafana asks it with these values of its variables.

    Rates are over ten minutes: whatever has happened since the first scrape counts.
    """
    model: dict[str, Any] = json.loads(shipped(dashboard))
    for panel in model["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$__rate_interval", "10m")
            for name, value in variables.items():
                expr = expr.replace(f"${name}", value)
            assert "$" not in expr, f"a variable of {dashboard} has no value: {expr}"
            yield Question(panel["title"], expr)


class Scraper:
    """A running Prometheus."""

    def __init__(self, server: Server) -> None:
        self._address = server.address
        self._watched: list[str] = []

    def watch(self, url: str) -> str:
        """Makes it scrape what is served at a URL, and waits until it has; returns the label ``instance`` of it."""
        instance = urlsplit(url).netloc
        self._watched.append(instance)
        add_target(self._address, instance)
        self.wait_for(f'up{{job="test", instance="{instance}"}} == 1')
        return instance

    def leave(self) -> None:
        """Makes it scrape no more what it was made to."""
        for instance in self._watched:
            remove_target(self._address, instance)

    def wait_for(self, expr: str) -> list[dict[str, Any]]:
        """The samples of an expression that are numbers, once there are some.

        What has not happened has no mean and no quantile, which is no number.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            samples = query(self._address, expr)
            if found := [sample for sample in samples if math.isfinite(float(sample["value"][1]))]:
                return found
            assert time.monotonic() < deadline, f"Prometheus answers {samples} to {expr}"
            time.sleep(0.1)

    def expect(self, expr: str, condition: str) -> None:
        """Waits until the one number of an expression is as it should be, such as ``== 3``.

        A scrape in the midst of work has some numbers of before and some of after.
        """
        self.wait_for(f"({expr}) {condition}")
