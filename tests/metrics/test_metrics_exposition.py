"""Exposition: scraped over real HTTP, read from a file, gathered from several processes."""

import gzip
import os
import subprocess
import sys
import textwrap
import threading
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from metrics import MetricError, Scope, generate_text, mark_process_dead, start_http_server, write_textfile


def scrape(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:
        body: bytes = response.read()
        return (gzip.decompress(body) if response.headers["Content-Encoding"] == "gzip" else body).decode()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_server_serves_what_was_counted(registry: CollectorRegistry) -> None:
    """A scrape over HTTP sees each count as it is at that moment, plain and compressed."""
    counter = Scope("stow", registry).counter("reads", "Objects read", ("outcome",))
    counter.labels("ok").inc(2)
    key = ("stow_reads_total", frozenset({("outcome", "ok")}))
    with start_http_server(registry=registry) as server:
        assert f"http://127.0.0.1:{server.port}/metrics" == server.url
        assert samples(scrape(server.url))[key] == 2
        counter.labels("ok").inc()
        assert samples(scrape(server.url, **{"Accept-Encoding": "gzip"}))[key] == 3
        assert "# EOF" in scrape(server.url, Accept="application/openmetrics-text; version=1.0.0")


def test_a_server_can_be_asked_for_some_names(registry: CollectorRegistry) -> None:
    """`name[]` restricts a scrape."""
    scope = Scope("stow", registry)
    scope.counter("a", "help").inc()
    scope.counter("b", "help").inc()
    with start_http_server(registry=registry) as server:
        assert {("stow_a_total", frozenset())} == set(samples(scrape(f"{server.url}?name[]=stow_a_total")))


def test_a_closed_server_frees_port_and_thread(registry: CollectorRegistry) -> None:
    """After close nothing listens, the thread is gone and the port can be taken again; closing again is fine."""
    before = threading.active_count()
    server = start_http_server(registry=registry)
    server.close()
    server.close()
    assert before == threading.active_count()
    with pytest.raises(OSError, match="refused"):
        scrape(server.url)
    with start_http_server(server.port, registry=registry) as again:
        assert server.port == again.port


def test_a_taken_port_is_an_error(registry: CollectorRegistry) -> None:
    """Two servers cannot share a port."""
    with start_http_server(registry=registry) as server, pytest.raises(OSError, match="in use"):
        start_http_server(server.port, registry=registry)


def test_a_textfile_is_replaced_whole(registry: CollectorRegistry, tmp_path: Path) -> None:
    """The file is what a scrape would be, and readers never see a part of it, nor a leftover beside it."""
    gauge = Scope("stow", registry).gauge("filler", "x" * 200_000)
    path = tmp_path / "stow.prom"
    write_textfile(path, registry)
    stop, broken = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            text = path.read_text()
            if not text.endswith("\n") or "stow_filler " not in text:
                broken.append(text[-50:])

    reader = threading.Thread(target=read)
    reader.start()
    for value in range(100):
        gauge.set(value)
        write_textfile(path, registry)
    stop.set()
    reader.join()
    assert broken == []
    assert generate_text(registry) == path.read_text()
    assert [path] == list(tmp_path.iterdir())


def test_dead_processes_exist_in_multiprocess_mode_only() -> None:
    """Outside multi-process mode `mark_process_dead` says what is missing."""
    with pytest.raises(MetricError, match="PROMETHEUS_MULTIPROC_DIR"):
        mark_process_dead(1)


SERVICE = textwrap.dedent("""
    import multiprocessing, os, sys, urllib.request
    from prometheus_client import CollectorRegistry
    from metrics import Naming, Scope, generate_text, mark_process_dead, start_http_server, write_textfile
    from metrics.legacy import LegacyFamily, LegacyKind, LegacyMetrics

    def declare():
        scope = Scope("stow")
        return (
            scope.counter("reads", "Objects read", ("outcome",)).labels("ok"),
            scope.gauge("in_progress", "Running", (), "livesum"),
            scope.stopwatch("read", "Time to read"),
        )

    def work(start, stop):
        reads, in_progress, stopwatch = declare()
        for _ in range(100):
            reads.inc()
        stopwatch.observe(0.02)
        in_progress.inc()
        start.wait()
        stop.wait()

    if __name__ == "__main__":
        context = multiprocessing.get_context(sys.argv[1])
        reads, _, _ = declare()
        reads.inc(5)
        start, stop = context.Barrier(4), context.Event()
        workers = [context.Process(target=work, args=(start, stop)) for _ in range(3)]
        for worker in workers:
            worker.start()
        start.wait(60)
        with start_http_server() as server:
            print(urllib.request.urlopen(server.url + "?name[]=stow_in_progress", timeout=10).read().decode())
            print("----")
            stop.set()
            for worker in workers:
                worker.join(60)
                mark_process_dead(worker.pid)
            print(urllib.request.urlopen(server.url, timeout=10).read().decode())
        print("----")
        write_textfile(sys.argv[2])
        print(generate_text())
        print("----")
        family = LegacyFamily(name="x", kind=LegacyKind.COUNTER, help="help")
        try:
            LegacyMetrics.register(Scope("flyte", CollectorRegistry(), Naming.FLYTE), [family])
        except ValueError as error:
            print(error)
""")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_several_processes_are_added_up(method: str, tmp_path: Path) -> None:
    """In multi-process mode one scrape shows all processes: counts of the dead stay, their live gauges go."""
    directory = tmp_path / "values"
    directory.mkdir()
    script = tmp_path / "service.py"
    script.write_text(SERVICE)
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(script), method, str(tmp_path / "stow.prom")],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory), "PYTHONPATH": str(root)},
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    living, ended, text, legacy = done.stdout.split("----\n")
    assert {("stow_in_progress", frozenset()): 3} == samples(living)
    assert ended.strip() == text.strip() == (tmp_path / "stow.prom").read_text().strip()
    values = samples(ended)
    assert values["stow_reads_total", frozenset({("outcome", "ok")})] == 305
    assert values["stow_read_seconds_count", frozenset()] == 3
    assert values["stow_read_seconds_bucket", frozenset({("le", "0.025")})] == 3
    assert values["stow_read_seconds_bucket", frozenset({("le", "0.01")})] == 0
    assert values.get(("stow_in_progress", frozenset()), 0) == 0
    assert "multi-process mode" in legacy
