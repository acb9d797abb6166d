"""The site is built from the documents: no link, anchor or page is missing, and nothing comes from elsewhere."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.hooks import PAGE, page
from stowstore.cli.app import cli
from tests.documents.blocks import ROOT

#: What the reference has every public name of.
_PACKAGES = {
    "datastore": "datastore",
    "metrics": "metrics",
    "stowstore": "stowstore.config",
    "volumes": "stowstore.volumes",
    "named": "stowstore.named",
    "jobs": "stowstore.jobs",
    "records": "stowstore.records",
    "testing": "datastore.testing",
}
_FETCHED = re.compile(r"<(?:link|script|img|iframe|source)\b[^>]*?(?:href|src)=[\"']?(?:https?:)?//[^\s>]*")


@pytest.mark.timeout(300)
def test_the_site(tmp_path: Path) -> None:
    """It is built without a warning, holds every public name and command, and a browser fetches nothing else for it."""
    site = _built(tmp_path / "site")

    fetched = {found for file in site.rglob("*.html") for found in _FETCHED.findall(file.read_text(encoding="utf-8"))}
    assert set() == fetched
    assert (site / "search" / "search_index.json").stat().st_size > 100_000
    for name, package in _PACKAGES.items():
        shown = (site / "reference" / f"{name}.html").read_text(encoding="utf-8")
        assert [] == [public for public in importlib.import_module(package).__all__ if not _is_there(public, shown)]
    commands = (site / PAGE).with_suffix(".html").read_text(encoding="utf-8")
    assert [] == [command for command in cli.commands if f"stowstore {command}" not in commands]


def test_a_command_that_means_two_things_is_there_twice() -> None:
    """Verbs of volumes are told apart by what they are given, and so are they in the list of commands."""
    text = page()
    assert "### stowstore volume create (on this host)" in text
    assert "### stowstore volume create (in a store)" in text
    assert 1 == text.count("### stowstore volume gc")


def test_the_messages_that_are_explained_exist() -> None:
    """Whoever looks for a message finds it as the code says it."""
    text = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|", text.partition("\n## In Python\n")[0], re.MULTILINE)
    sources = "\n".join(
        file.read_text(encoding="utf-8")
        for package in ("datastore", "stowstore")
        for file in (ROOT / package).rglob("*.py")
    )
    sources = sources.replace("{FUSE_DEVICE}", "/dev/fuse").replace("{_HELPER}", "fusermount3")
    assert len(rows) >= 25
    assert [] == [row for row in rows if row not in sources]


def _built(site: Path) -> Path:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return site


def _is_there(name: str, shown: str) -> bool:
    return re.search(rf'id="[\w.]+\.{re.escape(name)}"', shown) is not None
