"""Mounting from the command line, as a person types it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stowstore.cli.app import main
from tests.mounts.conftest import Mounting


def _stow(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stowstore", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _done(*words: object) -> str:
    done = _stow(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def path(mounting: Mounting) -> Path:
    """Where a volume is going to be mounted; whatever is mounted there goes with the test."""
    found = mounting.directory / "mnt"
    mounting._paths.append(found)
    return found


def test_a_volume_is_made_mounted_published_and_unmounted(mounting: Mounting, path: Path) -> None:
    """mount --create, commit, stats, warmup, mounts and umount; what was not committed is there at the next mount."""
    volume = f"{mounting.root}#made"
    assert _done("mount", "--create", volume, path).startswith(f"mounted {volume} at")
    (path / "file").write_text("text")
    assert _done("commit", path, "-m", "by hand").startswith(f"{volume}@")
    assert json.loads(_done("stats", path, "--json"))["inodes"] == 2
    assert "holds" in _done("stats", path)
    assert "read 1 files" in _done("warmup", path)
    (listed,) = json.loads(_done("mounts", "--json"))
    assert (listed["path"], listed["state"], listed["volume"]) == (str(path), "writing", volume)
    (path / "later").write_text("not committed")
    _done("umount", path)
    assert json.loads(_done("mounts", "--json")) == []
    _done("mount", volume, path)
    assert (path / "later").read_text() == "not committed"
    locator = _done("finalize", path, "-m", "all").strip()
    assert "later" in _done("volume", "ls", locator)


def test_a_reader_is_refreshed(mounting: Mounting, path: Path) -> None:
    """A read-only mount shows the newest version of when it was made, until it is refreshed."""
    volume = f"{mounting.root}#made"
    shown = mounting.directory / "shown"
    mounting._paths.append(shown)
    _done("mount", "--create", volume, path)
    _done("mount", "--read-only", volume, shown)
    (path / "file").write_text("text")
    locator = _done("commit", path).strip()
    assert list(shown.iterdir()) == []
    assert locator in _done("refresh", shown)
    assert [found.name for found in shown.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("umount", "PATH"), 1, "no volume is mounted"),
        (("commit", "PATH"), 1, "no volume is mounted"),
        (("mount", "ROOT#absent", "PATH"), 3, "--create"),
        (("mount", "nonsense", "PATH"), 2, "nonsense"),
        (("mount", "ROOT#v", "PATH", "--kernel-cache", "none"), 2, "kernel-cache"),
        (("mount",), 2, "Missing argument"),
    ],
)
def test_wrong_usage_is_told_with_its_exit_status(
    mounting: Mounting, path: Path, words: tuple[str, ...], code: int, text: str
) -> None:
    """What cannot be done says why and what to do."""
    known = {"PATH": str(path)}
    done = _stow(*(known.get(word, word.replace("ROOT", mounting.root)) for word in words))
    assert done.returncode == code, done.stderr
    assert text in done.stderr


def test_a_store_that_never_answers_is_not_waited_for(mounting: Mounting) -> None:
    """`--wait` holds for the whole command, whose first look at the store is its own and not the daemon's."""
    path = mounting.directory / "mnt"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"endpoint=http://127.0.0.1:{silent.getsockname()[1]}"
        keys = ("-o", "access_key_id=key", "-o", "secret_key=secret")
        done = _stow("mount", "--wait", "0.3", "-o", endpoint, *keys, "s3://bucket/root#volume", path)
    assert done.returncode == 1
    assert "s3://bucket/root/format.json: the deadline of 0.3 s has passed" in done.stderr
    assert not path.exists()


def test_a_mounted_path_is_measured(mounting: Mounting, path: Path) -> None:
    """bench PATH tells rates of small files and of a large one, and leaves nothing behind."""
    _done("mount", "--create", f"{mounting.root}#made", path)
    rows = json.loads(_done("bench", path, "--small", "20", "--large", "1", "--json"))
    assert {"create 4 KiB", "unlink", "write 1 MiB"} <= {row["what"] for row in rows}
    assert list(path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "small", "status", "message"),
    [
        ("full", 3, 5, "full has no room for 1.0 MiB: No space left on device (--small and --large take less)"),
        ("full", 900, 5, "full has no room for 3.5 MiB: No space left on device"),
        ("missing", 1, 3, "missing: No such file or directory"),
    ],
)
def test_what_cannot_be_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str, small: int, status: int, message: str
) -> None:
    """The error names the path that was asked for, and nothing is left there."""
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", full], check=True)
    try:
        with pytest.raises(SystemExit) as caught:
            main(["bench", str(tmp_path / path), "--small", str(small), "--large", "1"])
        assert list(full.iterdir()) == []
    finally:
        subprocess.run(["umount", full], check=True)
    assert caught.value.code == status
    assert message in capsys.readouterr().err


def test_the_demo_mounts() -> None:
    """demo --mount works in a mounted volume and publishes it twice."""
    said = _done("demo", "--mount")
    for word in ("Mounted", "Committed", "Forked", "Finalized"):
        assert word in said
