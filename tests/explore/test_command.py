"""``stowstore explore`` from a shell."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
import uuid
from pathlib import Path

import pytest

from stowstore.cli.app import main
from stowstore.config import ContainerPolicy
from stowstore.versions.address import open_root
from stowstore.versions.root import Root, RootFormat
from tests.explore.conftest import fill
from tests.explore.driving import explorer
from tests.servers import Server


def test_without_a_terminal_there_is_a_plain_error(filled: Root, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what to use instead, with the status of wrong usage."""
    with pytest.raises(SystemExit) as left:
        main(["explore", f"{filled.address}#data"])
    assert 2 == left.value.code
    assert "explore needs a terminal" in capsys.readouterr().err


@pytest.mark.parametrize(("volume", "seen"), [("#data@v1:/images/two.PNG", b"two.PNG"), ("", b"Volumes of this root")])
def test_in_a_terminal(filled: Root, volume: str, seen: bytes) -> None:
    """It draws the volume, or the volumes of a root, and Ctrl+Q leaves with status 0."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "stowstore", "explore", f"{filled.address}{volume}"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    drawn = b""
    try:
        end = time.monotonic() + 30
        is_told = False
        while process.poll() is None and time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    drawn += os.read(ours, 1 << 16)
                except OSError:
                    break
            if seen in drawn and not is_told:
                is_told = True
                os.write(ours, b"\x11")
        assert seen in drawn, drawn[-2000:]
        assert 0 == process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


async def test_on_s3(radosgw: Server, tmp_path: Path) -> None:
    """The same over a bucket of a real server."""
    options = {
        "endpoint": radosgw.endpoint,
        "access_key_id": radosgw.access_key,
        "secret_key": radosgw.secret_key,
        "region": "us-east-1",
    }
    url = f"s3://explore-{uuid.uuid4().hex[:12]}/some/root"
    root = open_root(url, options=options, containers=ContainerPolicy.IF_MISSING, create=RootFormat())
    with root.store:
        fill(root, tmp_path)
        async with explorer(root, version="v1") as found:
            await found.go("readme.txt")
            await found.press("p")
            assert "hello [b]you[/b]" in found.text("#preview")
            await found.press("t", "d")
            assert "/ | +1 -1 ~1" == found.lines[0]
