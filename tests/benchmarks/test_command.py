"""The benchmarks still run; how fast anything is, no test says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.model import Case, Measure, Row, rows_of
from benchmarks.report import Conditions, as_table, write_document
from benchmarks.team import Order, Sample

_PROJECT = Path(__file__).resolve().parents[2]


def _case(**more: object) -> Case:
    order = Order(verb="put", key="k", size=4096, count=100)
    return Case(group="stub", what="put", order=order, rounds=2, reference="obstore", **more)  # type: ignore[arg-type]


def _sample(cpu: float, peak: int = 0) -> Sample:
    return Sample(wall=cpu * 2, cpu=cpu, peak=peak)


def _conditions() -> Conditions:
    return Conditions.of(began=0.0, seconds=1.0, load_before=0.5)


@pytest.mark.timeout(400)
def test_a_quick_run_measures_every_client_that_is_installed(tmp_path: Path) -> None:
    """The command goes through S3 on the stub, local disk, the layers and volumes, and reports without an error."""
    document = tmp_path / "benchmarks.md"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", "--output", str(document)]
    run = subprocess.run(
        [*command, "--only", "stub", "--only", "disk", "--only", "layers", "--only", "volumes"],
        cwd=_PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    rows = json.loads(run.stdout)["rows"]
    measured = {(row["group"], row["client"]) for row in rows if row["wall"] is not None}
    assert {("stub", "stowstore"), ("stub", "obstore"), ("stub", "minio-py"), ("stub", "libcloud")} <= measured
    assert {("disk", "stowstore"), ("disk", "plain"), ("layers", "open_store(mem)")} <= measured
    absent = [row for row in rows if row["wall"] is None and "Error" in row["note"]]
    assert {row["client"] for row in absent} <= {"boto3", "s3fs"}, absent
    assert "| stream write" in document.read_text(encoding="utf-8")


def test_the_best_rounds_are_compared() -> None:
    """A ratio is that of the best rounds, so that what disturbed one round does not count."""
    samples = {"stowstore": [_sample(3.0), _sample(1.1)], "obstore": [_sample(1.0), _sample(9.0)]}
    ours, theirs = rows_of(_case(limit=1.15), samples, {})
    assert ours.ratio == pytest.approx(1.1)
    assert (ours.met, theirs.ratio, theirs.met) == (True, 1.0, None)


def test_a_figure_that_is_missed_is_said_to_be() -> None:
    """Beyond the limit of the ratio, above half of a slow client, or above the limit of memory."""
    samples = {"stowstore": [_sample(1.2)], "obstore": [_sample(1.0)], "boto3": [_sample(2.0)]}
    assert [row.met for row in rows_of(_case(limit=1.15, halved=frozenset({"boto3"})), samples, {})] == [
        False,
        None,
        False,
    ]
    (row,) = rows_of(_case(peak_limit=200 << 20), {"stowstore": [_sample(1.0, 300 << 20)]}, {})
    assert row.met is False


def test_a_missing_client_is_a_row_that_says_why() -> None:
    """A peer that is not installed takes nothing from the others."""
    rows = rows_of(_case(limit=1.15), {"stowstore": [_sample(1.0)], "s3fs": []}, {"s3fs": "ImportError: no s3fs"})
    assert [(row.client, row.met, row.note) for row in rows] == [
        ("stowstore", None, ""),
        ("s3fs", None, "ImportError: no s3fs"),
    ]
    assert "ImportError: no s3fs" in as_table(rows, _conditions())


def test_what_was_written_by_hand_stays(tmp_path: Path) -> None:
    """A new run replaces the figures of the document, and not the commentary at its end."""
    document = tmp_path / "benchmarks.md"
    first = Row(group="disk", what="put", client="plain", wall=1.0, cpu_us=1.0, ratio=1.0, measure=Measure.WALL)
    write_document(document, [first], _conditions())
    document.write_text(document.read_text(encoding="utf-8") + "\n## Commentary\n\nOurs.\n", encoding="utf-8")
    write_document(document, [], _conditions())
    text = document.read_text(encoding="utf-8")
    assert text.endswith("\n## Commentary\n\nOurs.\n")
    assert "| put | plain |" not in text
