"""``mount.stowstore``, called as mount(8) calls it for a line of /etc/fstab."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stowstore.cli.mount_helper import MountLine
from tests.mounts.conftest import Mounting


def _mount(*words: object) -> subprocess.CompletedProcess[str]:
    code = "from stowstore.cli.mount_helper import main; main()"
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("rw,_netdev,nofail,noauto,x-systemd.automount,user", []),
        ("ro", ["--read-only"]),
        (
            "create,cache-dir=/var/cache/a,upload_delay=30s",
            ["--create", "--cache-dir=/var/cache/a", "--upload-delay=30s"],
        ),
        ("option.secret_key_path=/run/s3,option.region=", ["--option=secret_key_path=/run/s3", "--option=region="]),
        ("nosuid,noexec,,rw", []),
    ],
)
def test_options_are_those_of_the_command(options: str, expected: list[str]) -> None:
    """What mount(8) and systemd know is theirs; the rest is said as the command knows it."""
    line = MountLine.parse(["file:///r#v", "/mnt", "-n", "-o", options])

    assert ["mount", *expected, "--", "file:///r#v", "/mnt"] == list(line.words())


def test_a_line_of_fstab_is_mounted(mounting: Mounting) -> None:
    """The volume is there, with the flags the kernel was to be told, and nothing is printed."""
    path = mounting.directory / "mnt"
    mounting._paths.append(path)
    done = _mount(f"{mounting.root}#made", path, "-s", "-o", "rw,noauto,create,nosuid,nodev")

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    (path / "file").write_text("text")
    (line,) = (line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {path} " in line)
    assert {"rw", "nosuid", "nodev"} <= set(line.split()[5].split(","))
    assert "stowstore" in line


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["ROOT#made"], 1, "a volume and a directory"),
        (["ROOT#made", "PATH", "-o"], 1, "-o is followed by nothing"),
        (["ROOT#made", "PATH", "-x"], 1, "no option -x"),
        (["ROOT#made", "PATH", "-o", "nonsense=1"], 1, "--nonsense"),
        (["ROOT#missing", "PATH", "-o", "ro"], 32, "is no root of volumes"),
        (["ROOT#missing", "PATH", "-f"], 0, ""),
    ],
)
def test_what_cannot_be_mounted_has_a_status_of_mount(
    mounting: Mounting, words: list[str], status: int, says: str
) -> None:
    """1 is a wrong call and 32 a failure, as mount(8) has them; nothing stays mounted."""
    path = mounting.directory / "mnt"
    mounting._paths.append(path)
    done = _mount(*(word.replace("ROOT", mounting.root).replace("PATH", str(path)) for word in words))

    assert (status, True) == (done.returncode, says in done.stderr)
    assert not os.path.ismount(path)
