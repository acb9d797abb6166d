"""Programs that people run on file systems, run on a mount."""

from __future__ import annotations

import filecmp
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import stowstore
from tests import servers
from tests.mounts.conftest import Mounting
from tests.servers import installing
from tests.servers.requiring import are_required


def _run(*words: str, cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def _same(left: Path, right: Path) -> None:
    compared = filecmp.dircmp(left, right)
    assert not compared.left_only
    assert not compared.right_only
    assert not compared.diff_files
    for name in compared.common_dirs:
        _same(left / name, right / name)


def _needs(program: str) -> None:
    try:
        installing.ensure_program(program)
    except servers.ServerUnavailable as error:
        if are_required():
            pytest.fail(str(error))
        pytest.skip(str(error))


def test_git_keeps_a_repository(mounting: Mounting, monkeypatch: pytest.MonkeyPatch) -> None:
    """Init, commits, branches, a clone, a merge, gc and fsck."""
    _needs("git")
    for who in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{who}_NAME", "someone")
        monkeypatch.setenv(f"GIT_{who}_EMAIL", "someone@example.org")
    path = mounting.mount(mounting.volume())
    repository = path / "repository"
    shutil.copytree(Path(stowstore.__file__).parent, repository, ignore=shutil.ignore_patterns("__pycache__"))
    _run("git", "init", "-q", "-b", "main", cwd=repository)
    _run("git", "add", ".", cwd=repository)
    _run("git", "commit", "-q", "-m", "one", cwd=repository)
    _run("git", "checkout", "-q", "-b", "side", cwd=repository)
    (repository / "new.txt").write_text("new\n")
    _run("git", "add", ".", cwd=repository)
    _run("git", "commit", "-q", "-m", "two", cwd=repository)
    _run("git", "clone", "-q", str(repository), str(path / "clone"), cwd=path)
    _run("git", "checkout", "-q", "main", cwd=repository)
    _run("git", "merge", "-q", "--no-ff", "-m", "three", "side", cwd=repository)
    _run("git", "gc", "-q", "--aggressive", cwd=repository)
    _run("git", "fsck", "--strict", cwd=repository)
    assert _run("git", "status", "--porcelain", cwd=repository) == ""
    assert _run("git", "log", "--oneline", cwd=path / "clone").count("\n") == 2


def test_tar_and_copies_bring_a_tree_there_and_back(mounting: Mounting, tmp_path: Path) -> None:
    """What was packed is what comes out: in, out by copy, and out by archive."""
    source = Path(stowstore.__file__).parent
    path = mounting.mount(mounting.volume())
    with tarfile.open(tmp_path / "tree.tar", "w") as archive:
        archive.add(source, "tree")
    _run("tar", "-xf", str(tmp_path / "tree.tar"), cwd=path)
    _same(source, path / "tree")
    _run("cp", "-a", "tree", "copy", cwd=path)
    _same(path / "tree", path / "copy")
    _run("tar", "-cf", str(tmp_path / "back.tar"), "copy", cwd=path)
    _run("tar", "--compare", "-f", str(tmp_path / "back.tar"), cwd=path)


@pytest.mark.parametrize("mode", ["wal", "delete", "truncate"])
def test_sqlite_keeps_a_database(mounting: Mounting, mode: str) -> None:
    """Two connections, many transactions, a rollback, and a database that is whole after another mount."""
    volume = mounting.volume()
    path = mounting.mount(volume)
    first, second = (sqlite3.connect(path / "data.db", timeout=30) for _ in range(2))
    first.execute(f"pragma journal_mode={mode}")
    first.execute("create table t (a integer primary key, b blob)")
    for number in range(50):
        with first if number % 2 else second as connection:
            connection.executemany("insert into t (b) values (?)", [(os.urandom(200),) for _ in range(20)])
    first.execute("delete from t")
    first.rollback()
    assert second.execute("select count(*) from t").fetchone() == (1000,)
    first.close()
    second.close()
    volume.blocking.unmount()
    again = mounting.mount(volume)
    third = sqlite3.connect(again / "data.db")
    assert third.execute("pragma integrity_check").fetchone() == ("ok",)
    assert third.execute("select count(*) from t").fetchone() == (1000,)
    third.close()


def test_python_installs_and_runs_from_there(mounting: Mounting) -> None:
    """A virtual environment on the mount runs its own interpreter and imports shared libraries from there."""
    path = mounting.mount(mounting.volume())
    _run(sys.executable, "-m", "venv", "--copies", "--without-pip", "environment", cwd=path)
    import msgspec

    shutil.copytree(Path(msgspec.__file__).parent, path / "library" / "msgspec")
    program = "import msgspec; assert 'library' in msgspec.__file__; print(msgspec.json.decode(b'[1]'))"
    found = subprocess.run(
        [str(path / "environment" / "bin" / "python"), "-c", program],
        env={"PYTHONPATH": str(path / "library"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert found.stdout == "[1]\n"


def test_a_compiler_builds_and_what_it_built_runs(mounting: Mounting) -> None:
    """Sources, objects, an archive and a program, all on the mount."""
    _needs("gcc")
    path = mounting.mount(mounting.volume())
    for number in range(5):
        (path / f"part{number}.c").write_text(f"int part{number}(void) {{ return {number}; }}\n")
    declared = "".join(f"int part{number}(void);" for number in range(5))
    summed = "+".join(f"part{number}()" for number in range(5))
    (path / "main.c").write_text(f'#include <stdio.h>\n{declared}int main(){{printf("%d", {summed});return 0;}}\n')
    _run("sh", "-c", "gcc -c part*.c && ar rcs libparts.a part*.o && gcc -o program main.c libparts.a", cwd=path)
    assert _run("./program", cwd=path) == "10"


def test_a_large_tree_is_listed_found_and_removed(mounting: Mounting) -> None:
    """find, du and rm over a few thousand files in nested directories."""
    path = mounting.mount(mounting.volume())
    for number in range(2000):
        directory = path / f"a{number % 7}" / f"b{number % 31}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"c{number}").write_bytes(b"x" * number)
    assert _run("find", ".", "-type", "f", cwd=path).count("\n") == 2000
    assert int(_run("du", "-sb", "--apparent-size", ".", cwd=path).split()[0]) >= sum(range(2000))
    _run("sh", "-c", "rm -rf a*", cwd=path)
    assert os.listdir(path) == []
