"""``stowstore explore`` from a shell."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from stowstore.cli.app import main
from stowstore.config import ContainerPolicy
from stowstore.versions.address import open_root
from stowstore.versions.root import Root, RootFormat
from tests.explore.conftest import fill
from tests.explore.driving import explorer
from tests.explore.terminal import leave_terminal
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
    leave_terminal(["explore", f"{filled.address}{volume}"], once=seen)


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
