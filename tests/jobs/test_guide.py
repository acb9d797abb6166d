"""The guide to named volumes runs as it stands, and prints what it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from attrs import frozen

from tests.jobs.harness import REPOSITORY, Jobs
from tests.servers.programs import PostgreSQL

pytestmark = pytest.mark.usefixtures("fuse")

_GUIDE = REPOSITORY / "docs" / "named-volumes.md"
_BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@frozen
class Example:
    """A section of the guide: commands, and what they print where the guide says that."""

    title: str
    steps: tuple[tuple[str, str | None], ...]


def _examples() -> Iterator[Example]:
    text = _GUIDE.read_text(encoding="utf-8")
    opening = text.partition("\n## ")[0]
    worked = text.partition("\n## Worked examples\n")[2].partition("\n## ")[0]
    for section in [f"Opening\n{opening}", *worked.split("\n### ")[1:]]:
        title, _, body = section.partition("\n")
        steps: list[tuple[str, str | None]] = []
        for kind, content in _BLOCK.findall(body):
            if kind == "sh":
                steps.append((content, None))
            else:
                steps[-1] = (steps[-1][0], content)
        yield Example(title, tuple(steps))


@pytest.fixture
def shell(jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in, with `stowstore` on the PATH and a registry of its own."""
    programs, work = tmp_path / "bin", tmp_path / "work"
    for directory in (programs, work):
        directory.mkdir()
    command = programs / "stowstore"
    command.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from stowstore.cli import main; main()' \"$@\"\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("STOWSTORE_ROOT", str(tmp_path / "volumes"))
    return work


@pytest.fixture
def database(shell: Path, postgresql: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL where it is not installed: unpacked, shown to jobs, with programs that find their libraries."""
    programs = tmp_path / "postgresql"
    programs.mkdir()
    libraries = postgresql.environment["LD_LIBRARY_PATH"]
    for name in ("initdb", "pg_ctl", "psql"):
        program = programs / name
        program.write_text(f'#!/bin/sh\nLD_LIBRARY_PATH={libraries} exec {postgresql.programs / name} "$@"\n')
        program.chmod(0o755)
    monkeypatch.setenv("PG", str(programs))
    monkeypatch.setenv("STOWSTORE_JOB_SYSTEM", f"{postgresql.folder}{os.pathsep}{programs}")


_EXAMPLES = {example.title: example for example in _examples()}
_DATABASE = "A database"


@pytest.mark.timeout(180)
@pytest.mark.parametrize("title", [title for title in _EXAMPLES if title != _DATABASE])
def test_a_section_of_the_guide_runs(title: str, jobs: Jobs, shell: Path) -> None:
    """Every command ends well, prints what the guide says, and leaves no volume."""
    _run(_EXAMPLES[title], jobs, shell)


@pytest.mark.timeout(180)
@pytest.mark.usefixtures("database")
def test_a_database_keeps_its_data_in_a_volume(jobs: Jobs, shell: Path) -> None:
    """The section of the guide that runs a real PostgreSQL."""
    _run(_EXAMPLES[_DATABASE], jobs, shell)


def test_the_python_of_the_guide_runs(jobs: Jobs, shell: Path) -> None:
    """What the guide shows of the Python interface is a program."""
    (program,) = re.findall(r"^```py\n(.*?)^```$", _GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    program = program.replace("/tmp/stow/volumes", str(jobs.volumes.base))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=shell,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert [] == jobs.volumes.names()


def test_every_example_of_the_guide_is_found() -> None:
    """The sections are those a reader sees; one that is spelled otherwise would not be tested."""
    text = _GUIDE.read_text(encoding="utf-8")
    titles = set(_EXAMPLES)
    assert {_DATABASE, "A build cache", "A pipeline", "Backup and restore", "Cleaning up"} <= titles
    assert len(re.findall(r"^### ", text.partition("\n## Worked examples\n")[2], re.MULTILINE)) == len(titles) - 1


def _run(example: Example, jobs: Jobs, shell: Path) -> None:
    marks = [f"--- {number}" for number in range(len(example.steps))]
    script = "".join(f"echo '{mark}'\n{commands}" for mark, (commands, _) in zip(marks, example.steps, strict=True))
    done = subprocess.run(
        ["bash", "-eu", "-c", f"exec 2>&1\n{script}\necho '--- end'"],
        cwd=shell,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=170,
        check=False,
    )
    assert 0 == done.returncode, done.stdout
    said = re.split(r"^--- .*\n", done.stdout, flags=re.MULTILINE)[1:-1]
    for (commands, expected), printed in zip(example.steps, said, strict=True):
        if expected is not None:
            assert _is_like(_without_creations(printed), expected), f"{commands}\nprinted:\n{printed}"
    assert [] == jobs.volumes.names()


def _without_creations(printed: str) -> str:
    """What `volume create` says has paths in it and is left out of the guide."""
    return re.sub(r"^Volume created successfully:\n(?:[ \t]+.*\n|\n)*(?:Use it.*\n)?", "", printed, flags=re.MULTILINE)


def _is_like(printed: str, expected: str) -> bool:
    """Whether a text is another, in which ``...`` stands for anything within a line."""
    lines = [line for line in printed.splitlines() if line]
    patterns = [re.sub(r"([\[\]*?])", r"[\1]", line).replace("...", "*") for line in expected.splitlines() if line]
    return len(lines) == len(patterns) and all(map(fnmatchcase, lines, patterns))
