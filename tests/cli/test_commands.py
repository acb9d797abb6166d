"""The command line as its users meet it: results, tables, JSON, exit statuses, bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from stowstore.cli.app import cli
from tests.cli.conftest import Run


def test_put_list_head_cat_get_remove(stow: Run, tmp_path: Path) -> None:
    """One object, through every command that touches it."""
    (tmp_path / "report.txt").write_text("hello\n", encoding="utf-8")

    assert (
        0
        == stow("put", "report.txt", "reports/2026 Q1.txt", "-m", "owner=me", "--content-type", "text/plain").returncode
    )
    assert "file://main/reports/2026%20Q1.txt\n" == stow("ls", "reports/").stdout
    assert "file://main/reports/\n" == stow("ls").stdout
    assert "hello\n" == stow("cat", "reports/2026 Q1.txt").stdout
    assert "ell" == stow("cat", "file://main/reports/2026%20Q1.txt", "--start", "1", "--length", "3").stdout
    head = json.loads(stow("head", "reports/2026 Q1.txt", "--json").stdout)
    assert (6, "text/plain", {"owner": "me"}) == (head["size"], head["content_type"], head["metadata"])
    assert 0 == stow("get", "reports/2026 Q1.txt", "copy.txt").returncode
    assert "hello\n" == (tmp_path / "copy.txt").read_text(encoding="utf-8")
    assert 0 == stow("rm", "reports/2026 Q1.txt").returncode
    assert 3 == stow("cat", "reports/2026 Q1.txt").returncode


def test_recursive_round_trip_keeps_every_file(stow: Run, tmp_path: Path) -> None:
    """A tree put, copied and fetched again is the same tree."""
    names = {"a.txt": b"1", "b/c.bin": bytes(range(256)) * 40, "b/d e/f%.txt": b"", "ü.txt": b"4"}
    _plant(tmp_path / "tree", names)

    put = stow("put", "-r", "tree", "copies/tree", "--json")
    copied = stow("cp", "-r", "copies/tree", "copies/again", "--json")
    got = stow("get", "-r", "copies/again", "fetched", "--json")

    for result in (put, copied, got):
        assert {"done": 4, "bytes": sum(map(len, names.values())), "failed": []} == json.loads(result.stdout)
    assert names == _harvest(tmp_path / "fetched")


def test_recursive_remove_asks_and_can_be_rehearsed(stow: Run, tmp_path: Path) -> None:
    """A recursive removal lists first on request, asks otherwise, and removes only what lies below."""
    _plant(tmp_path / "tree", {"a": b"1", "b/c": b"2"})
    stow("put", "-r", "tree", "kept")
    stow("put", "-r", "tree", "keep")

    assert ["file://main/keep/a", "file://main/keep/b/c"] == stow("rm", "-r", "keep", "--dry-run").stdout.split()
    refused = stow("rm", "-r", "keep", input="n\n")
    assert 130 == refused.returncode
    assert 0 == stow("rm", "-r", "keep", "--yes").returncode
    assert ["file://main/kept/a", "file://main/kept/b/c"] == stow("ls", "-r").stdout.split()


def test_standard_streams(stow: Run) -> None:
    """Objects come from standard input and go to standard output, of any size and without their length known."""
    assert 0 == stow("put", "-", "piped", input="x" * 3_000_000).returncode
    assert 3_000_000 == len(stow("cat", "piped").stdout)


def test_no_clobber(stow: Run, tmp_path: Path) -> None:
    """With --no-clobber what is there stays, on either side, and the status says so."""
    (tmp_path / "f").write_text("new", encoding="utf-8")
    stow("put", "f", "k")

    assert 4 == stow("put", "-n", "f", "k").returncode
    (tmp_path / "f").write_text("mine", encoding="utf-8")
    assert 4 == stow("get", "-n", "k", "f").returncode
    assert "mine" == (tmp_path / "f").read_text(encoding="utf-8")


def test_long_listing_and_limit(stow: Run, tmp_path: Path) -> None:
    """-l shows sizes in a table, --limit stops early."""
    _plant(tmp_path / "tree", {f"{number:02d}": b"x" * 2048 for number in range(5)})
    stow("put", "-r", "tree", "t")

    table = stow("ls", "-l", "t/", "-n", "2").stdout.splitlines()

    assert "size" in table[0]
    assert 3 == len(table)
    assert "2.0 KiB" in table[1]


def test_downloads_cannot_be_led_out_of_their_directory(stow: Run, tmp_path: Path) -> None:
    """A symbolic link in the destination does not make a recursive get write elsewhere; what lies beside it comes."""
    _plant(tmp_path / "tree", {"link/victim": b"evil", "plain": b"good"})
    stow("put", "-r", "tree", "t")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "link").symlink_to(outside)

    result = stow("get", "-r", "t", "into")

    assert 1 == result.returncode
    assert "leads out of" in result.stderr
    assert not list(outside.iterdir())
    assert b"good" == (tmp_path / "into" / "plain").read_bytes()


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (("cat", "missing"), 3, "read file://main/missing: there is no such object"),
        (("head", "missing"), 3, "no such object"),
        (("rm", "missing"), 3, "no such object"),
        (("get", "-r", "missing", "x"), 3, "nothing lies below it"),
        (("cat", "../etc/passwd"), 2, "dot_segment"),
        (("cat", "s3:bucket/key"), 3, "file://main/s3:bucket/key"),
        (("ls", "s33://bucket"), 2, "did you mean 's3'"),
        (("put", "missing.txt", "k"), 2, "missing.txt"),
        (("put", "-", "dir/"), 2, "standard input has no name"),
        (("sign", "k"), 1, "cannot sign"),
        (("frobnicate",), 2, "No such command"),
        (("mb", "file://main/key"), 2, "names an object"),
        (("cp", "-r", "nothing", "k"), 3, "nothing lies below it"),
        (("--timeout", "soon", "ls"), 2, "bad_duration"),
        (("--option", "novalue", "ls"), 2, "NAME=VALUE"),
        (("ls", "file://other/x"), 6, "Passed Container:other"),
    ],
)
def test_bad_input(stow: Run, args: tuple[str, ...], status: int, says: str) -> None:
    """Every failure has its exit status and a message that names what was asked; no traceback."""
    result = stow(*args)

    assert status == result.returncode
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_a_mistyped_container_is_never_created(stow: Run, root: Path) -> None:
    """No command but mb makes containers."""
    result = stow("put", "/etc/hostname", "k", store=f"file://{root}/typo")

    assert 3 == result.returncode
    assert not (root / "typo").exists()
    assert 0 == stow("mb", "file://typo", store=f"file://{root}/typo").returncode
    assert (root / "typo").is_dir()


def test_errors_as_json(stow: Run) -> None:
    """With --json errors are JSON too, on standard error."""
    result = stow("head", "missing", "--json")

    assert {"NOT_FOUND", "file://main/missing"} <= set(json.loads(result.stderr).values())


def test_a_job_loads_nothing_of_stores_and_their_metrics() -> None:
    """What every command waits for is small: neither HTTP servers nor distributions' metadata are among it."""
    script = "import sys, stowstore.cli.app, stowstore.cli.run, stowstore.jobs; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60)
    heavy = {"prometheus_client", "structlog", "ssl", "http.server", "stowstore.store", "stowstore.volumes"}
    assert set() == heavy & set(done.stdout.split())


def test_a_command_loads_no_metrics(tmp_path: Path) -> None:
    """Nobody scrapes a command, so its stores count nothing, and what would show it is not loaded."""
    (tmp_path / "main").mkdir()
    script = (
        "import sys; from stowstore.cli import main\ntry: main(sys.argv[1:])\nfinally: print(*sys.modules, sep='\\n')"
    )
    command = [sys.executable, "-c", script, "--store", f"file://{tmp_path}/main", "put", __file__, "here"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert (tmp_path / "main" / "here").exists()
    assert "prometheus_client" not in done.stdout.split()


def test_without_a_store(stow: Run) -> None:
    """A plain key without a store explains what is missing."""
    result = stow("ls", "key", store=None)

    assert 2 == result.returncode
    assert "--store" in result.stderr


@pytest.mark.parametrize("command", cli.list_commands(click.Context(cli)))
def test_every_command_teaches(stow: Run, command: str) -> None:
    """--help of every command works without a store and says what it does."""
    result = stow(command, "--help", store=None)

    assert 0 == result.returncode
    assert len(result.stdout.split()) > 15


def test_demo_tells_what_it_did_and_cleans_up(stow: Run, root: Path) -> None:
    """The demonstration writes, lists, reads and measures, in the given store, and leaves nothing behind."""
    result = stow("demo", "--store", f"file://{root}/main", store=None)

    assert 0 == result.returncode, result.stderr
    for word in ("Wrote", "Listed     200", "Streamed", "Refused", "Copied", "stow_operations_total"):
        assert word in result.stdout
    assert not [name for name in os.listdir(root / "main") if not name.startswith(".")]


def test_doctor_reports_as_table_and_json(stow: Run) -> None:
    """The doctor tries the store and tells what it found; all is well here."""
    table = stow("doctor")
    findings = json.loads(stow("doctor", "--json").stdout)

    assert 0 == table.returncode
    assert "store write" in table.stdout
    assert {"ok"} == {
        found["verdict"] for found in findings if found["check"] in ("store write", "store read", "python")
    }


def test_doctor_fails_for_a_broken_store(stow: Run, root: Path) -> None:
    """A store that cannot be used is a failure with advice, not a traceback."""
    result = stow("doctor", "--store", f"file://main?pth={root}", store=None)

    assert 1 == result.returncode
    assert "did you mean 'path'" in result.stdout


def test_metrics_are_listed_and_the_dashboard_is_json(stow: Run) -> None:
    """Names, dashboard and rules come from the command line."""
    names = [row["name"] for row in json.loads(stow("metrics", "list", "--json", store=None).stdout)]

    assert "stow_operations" in " ".join(names)
    assert "panels" in json.loads(stow("metrics", "dashboard", store=None).stdout)
    assert "groups:" in stow("metrics", "rules", store=None).stdout
    assert "record:" in stow("metrics", "rules", "--names", "flyte", store=None).stdout


def test_bench_measures_and_cleans_up(stow: Run) -> None:
    """The benchmark prints a row a measurement and removes what it wrote."""
    rows = json.loads(stow("bench", "--small", "5", "--large", "1", "--threads", "2", "--json").stdout)

    assert {"put 4 KiB", "get 4 KiB", "head", "put 1.0 MiB", "get 1.0 MiB", "list 5"} == {row["what"] for row in rows}
    assert "" == stow("ls", "-r").stdout


def test_words_behind_two_dashes_are_no_options(stow: Run) -> None:
    """A --json that is somebody else's does not make an error JSON."""
    answers = [stow("cat", "--", "--json"), stow("run", "--volume=missing", "--", "tool", "--json")]

    assert [3, 125] == [answer.returncode for answer in answers]
    for answer in answers:
        assert not answer.stderr.startswith("{")


def _plant(directory: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _harvest(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()
    }
