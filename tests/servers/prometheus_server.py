"""Prometheus, to scrape and be asked, and promtool, to check rules and expositions with.

A target is added by writing a file: `add_target(server.address, "127.0.0.1:9000")`; Prometheus notices it by itself
and scrapes it every quarter of a second. Rules are evaluated as often, `with loaded_rules(server.address, {"mine.yml":
text})`. `extra` has `targets` and `rules`, the directories of those files, and `promtool`.
"""

import json
import subprocess
import textwrap
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from tests.servers.installing import missing_debian, runs, system_key, unpack_debian
from tests.servers.kind import Kind, Progress, quiet
from tests.servers.model import Address, ServerFailed
from tests.servers.processes import HOST, Processes, unpacked_environment

__all__ = ["Prometheus", "Promtool", "add_target", "loaded_rules", "query", "remove_target", "rules"]

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


def remove_target(address: Address, target: str) -> None:
    """Ends that; what was scraped stays."""
    Path(address.extra["targets"], f"{target}.json").unlink(missing_ok=True)


@contextmanager
def loaded_rules(address: Address, texts: Mapping[str, str]) -> Iterator[None]:
    """Gives a running Prometheus files of rules, by name, for as long as this lasts; raises `OSError` if it refuses."""
    paths = {Path(address.extra["rules"], name): text for name, text in texts.items()}
    try:
        for path, text in paths.items():
            unfinished = path.with_suffix(".new")
            unfinished.write_text(text)
            unfinished.rename(path)
        _reload(address)
        yield
    finally:
        for path in paths:
            path.unlink(missing_ok=True)
        _reload(address)


def rules(address: Address) -> list[dict[str, Any]]:
    """Returns the groups of rules it has, with each rule's health."""
    groups: list[dict[str, Any]] = _ask(address, "rules")["groups"]
    return groups


def query(address: Address, expression: str) -> list[dict[str, Any]]:
    """Evaluates a PromQL expression now and returns its samples."""
    samples: list[dict[str, Any]] = _ask(address, "query", query=expression)["result"]
    return samples


def _reload(address: Address) -> None:
    urllib.request.urlopen(f"{address.endpoint}/-/reload", data=b"", timeout=30).close()


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
