"""The commands that docs/named-volumes.md shows of volumes run, one section after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stowstore.named import NamedVolumes
from stowstore.named.metrics import NAMES
from stowstore.named.settings import VARIABLES

_DOCUMENT = Path(__file__).parents[2] / "docs" / "named-volumes.md"


def test_the_commands_of_the_document_run(host: NamedVolumes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From creating to removing, as a reader would type them; nothing is left of it."""
    section = _DOCUMENT.read_text().partition("\n## Volumes\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    program = tmp_path / "stowstore"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m stowstore "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(_DOCUMENT.parents[1]))
    done = subprocess.run(
        ["sh", "-euc", "\n".join(blocks)], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    assert "Volume 'scratch' removed successfully" in done.stdout
    assert host.names() == []


def test_the_document_names_every_metric() -> None:
    """And no other."""
    assert set(NAMES) == set(re.findall(r"`(stow_volume_\w+)`", _DOCUMENT.read_text()))


def test_the_document_names_every_setting() -> None:
    """With what it means, as the code has it."""
    rows = dict(re.findall(r"^\| `(STOWSTORE_VOLUMES_\w+)` \| (.*) \|$", _DOCUMENT.read_text(), re.MULTILINE))
    assert rows == VARIABLES
