"""An application of several processes, seen through Prometheus as one."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

from datastore.metric_names import CACHE_REQUESTS, RETRIES, series
from tests.observability.scraping import Scraper, questions
from tests.observability.service import OBJECTS

_WORKERS = 3
_UNUSED = (series(CACHE_REQUESTS), series(RETRIES))


def test_processes_are_added_up(tmp_path: Path, scraper: Scraper) -> None:
    """Counts of all workers are one, those of a dead one stay, what it had in progress goes, and panels have data."""
    (tmp_path / "values").mkdir()
    (tmp_path / "data" / "main").mkdir(parents=True)
    name = f"processes-{uuid.uuid4().hex[:8]}"
    where = f'location="{name}"'
    repository = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.observability.service", str(tmp_path / "data"), name, str(_WORKERS)],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "values"), "PYTHONPATH": str(repository)},
        cwd=repository,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        assert service.stdin is not None
        assert service.stdout is not None

        def command(text: str) -> None:
            assert service.stdin is not None
            assert service.stdout is not None
            service.stdin.write(f"{text}\n")
            service.stdin.flush()
            assert f"{text}\n" == service.stdout.readline()

        try:
            instance = scraper.watch(service.stdout.readline().strip())
            for number in (1, 2):
                command("work")
                written = number * _WORKERS * OBJECTS
                scraper.wait_for(
                    f'sum (stow_operations_total{{{where}, operation="write", outcome="ok"}}) == {written}'
                )
            in_progress = f'sum (stow_operations_in_progress{{{where}, operation="read"}})'
            scraper.expect(in_progress, f"== {_WORKERS}")
            variables = {"location": name, "backend": "local", "operation": ".*"}
            asked = [one for one in questions("stow_store.json", variables) if not any(n in one.expr for n in _UNUSED)]
            for question in asked:
                scraper.wait_for(question.expr)
            assert len(asked) >= 14
            command("lose")
            scraper.wait_for(f"{in_progress} == {_WORKERS - 1}")
            command("work")
            written += (_WORKERS - 1) * OBJECTS
            ended = f'sum (stow_operations_total{{{where}, operation="write", outcome="ok"}})'
            scraper.wait_for(f"{ended} == {written}")
            # The files of one scrape are read one after the other, so sums may be a scrape behind counts.
            observed = f'sum (stow_operation_size_bytes_sum{{{where}, direction="out"}})'
            scraper.expect(observed, f"== {1000 * written}")
            samples = scraper.wait_for(f"stow_operations_total{{{where}}}")
            assert {instance} == {sample["metric"]["instance"] for sample in samples}
        finally:
            service.stdin.close()
    assert 0 == service.returncode
