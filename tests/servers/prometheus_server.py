"""Prometheus, to scrape and be asked, and promtool, to check rules and expositions with.

A target is added by writing a file: `add_target(server.address, "127.0.0.1:9000")`; Prometheus notices it by itself
and scrapes it every quarter of a second. Rules are added likewise, `add_rules(server.address, "mine.yml", text)`, and
evaluated as often. `extra` has `targets` and `rules`, the directories of those files, and `promtool`.
"""

import json
import subprocess
import textwrap
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from tests.servers.installing import missing_debian, runs, system_key, unpack_debian
from tests.servers.kind import Kind, Progress, quiet
from tests.servers.model import Address, ServerFailed
from tests.servers.processes import HOST, Processes, unpacked_environment

__all__ = ["Prometheus", "Promtool", "add_rules", "add_target", "query", "rules"]

_CONFIGURATION = """\
    global:
      scrape_interval: 250ms
      scrape_timeout: 250ms
      evaluation_interval: 250ms
    rule_files: ["{rules}/*.yml"]
    scrape_configs:
      - job_name: itself
        static_configs:
          - targets: ["{host}:{port}"]
      - job_name: test
        file_sd_configs:
          - files: ["{targets}/*.json"]
            refresh_interval: 1s
    """


class Prometheus(Kind):
    """A Prometheus server that scrapes itself and the targets it is given."""

    name: ClassVar[str] = "prometheus"
    summary: ClassVar[str] = "Prometheus, with promtool"

    def available(self) -> str | None:
        return missing_debian()

    def key(self) -> str:
        return system_key()

    def build(self, folder: Path) -> None:
        unpack_debian(["prometheus"], folder)

    def works(self, folder: Path) -> bool:
        return runs([folder / "usr/bin/promtool", "--version"], unpacked_environment(folder))

    def prepare(self, processes: Processes) -> None:
        targets = processes.root / "targets"
        targets.mkdir()
        rules = processes.root / "rules"
        rules.mkdir()
        text = textwrap.dedent(_CONFIGURATION).format(host=HOST, port=processes.port, targets=targets, rules=rules)
        (processes.root / "prometheus.yml").write_text(text)

    def serve(self, processes: Processes) -> None:
        root = processes.root
        command: list[str | Path] = [self.folder / "usr/bin/prometheus", f"--config.file={root}/prometheus.yml"]
        command += [f"--storage.tsdb.path={root}/data", f"--web.listen-address={HOST}:{processes.port}"]
        command += ["--web.enable-lifecycle", "--log.level=warn"]
        processes.serving.append(processes.spawn("prometheus", command, unpacked_environment(self.folder)))
        processes.wait_until(lambda: _is_ready(processes.port), "Prometheus is ready")

    def address(self, processes: Processes) -> Address:
        endpoint = f"http://{HOST}:{processes.port}"
        return Address(
            name=self.name,
            endpoint=endpoint,
            url=endpoint,
            root=processes.root,
            environment={"PROMETHEUS_URL": endpoint},
            extra={
                "targets": str(processes.root / "targets"),
                "rules": str(processes.root / "rules"),
                "promtool": str(self.folder / "usr/bin/promtool"),
            },
        )

    def probe(self, address: Address) -> str:
        answer = query(address, "vector(6 * 7)")
        if [sample["value"][1] for sample in answer] != ["42"]:
            raise ServerFailed(f"prometheus: expected 42, received {answer}")
        return "evaluated an expression"


class Promtool:
    """The checker that comes with Prometheus."""

    name = "promtool"

    def __init__(self, prometheus: Prometheus) -> None:
        self._prometheus = prometheus

    def available(self) -> str | None:
        """Returns why it cannot be provided here, or None when it can."""
        return self._prometheus.available()

    def install(self, progress: Progress = quiet) -> None:
        """Installs Prometheus, which it is part of, unless that is there."""
        self._prometheus.install(progress)

    def run(self, *arguments: str | Path, text: str = "") -> subprocess.CompletedProcess[str]:
        """Runs it with arguments, and a text as its standard input; whoever calls looks at `returncode`."""
        folder = self._prometheus.folder
        return subprocess.run(
            [folder / "usr/bin/promtool", *arguments],
            env=unpacked_environment(folder),
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def add_target(address: Address, target: str, labels: Mapping[str, str] | None = None) -> None:
    """Makes a running Prometheus scrape `http://<target>/metrics`, as job `test`."""
    targets = Path(address.extra["targets"])
    unfinished = targets / f"{target}.new"
    unfinished.write_text(json.dumps([{"targets": [target], "labels": dict(labels or {})}]))
    unfinished.rename(targets / f"{target}.json")


def add_rules(address: Address, name: str, text: str) -> None:
    """Gives a running Prometheus a file of rules, or another text of it; raises `OSError` when it refuses them."""
    rules = Path(address.extra["rules"])
    unfinished = rules / f"{name}.new"
    unfinished.write_text(text)
    unfinished.rename(rules / name)
    urllib.request.urlopen(f"{address.endpoint}/-/reload", data=b"", timeout=30).close()


def rules(address: Address) -> list[dict[str, Any]]:
    """Returns the groups of rules it has, with each rule's health."""
    groups: list[dict[str, Any]] = _ask(address, "rules")["groups"]
    return groups


def query(address: Address, expression: str) -> list[dict[str, Any]]:
    """Evaluates a PromQL expression now and returns its samples."""
    samples: list[dict[str, Any]] = _ask(address, "query", query=expression)["result"]
    return samples


def _ask(address: Address, what: str, **parameters: str) -> dict[str, Any]:
    text = urllib.parse.urlencode(parameters)
    with urllib.request.urlopen(f"{address.endpoint}/api/v1/{what}?{text}", timeout=30) as response:
        data: dict[str, Any] = json.load(response)["data"]
    return data


def _is_ready(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://{HOST}:{port}/-/ready", timeout=5).close()
    except OSError:
        return False
    return True
