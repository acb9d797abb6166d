"""``stowstore report`` in a shell."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from stowstore.report import gather
from tests.cli.conftest import Run, root, stow
from tests.report.conftest import HOSTILE, Story, write_hostile_root

__all__ = ["root", "stow"]


def test_a_page(story: Story, stow: Run, tmp_path: Path) -> None:
    """The page goes into a file, whole and readable as other files are, or to standard output."""
    path = tmp_path / "page.html"
    done = stow("report", story.url, "--output", str(path), store=None)
    assert (0, "") == (done.returncode, done.stdout), done.stderr
    assert f"{path}: 3 volumes, 5 versions" in done.stderr
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    (tmp_path / "plain").touch()
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == stat.S_IMODE(path.stat().st_mode)
    assert [] == list(tmp_path.glob(".page*"))
    printed = stow("report", story.url, store=None).stdout
    assert printed.startswith("<!doctype html>")
    assert printed.rstrip().endswith("</html>")


def test_json(story: Story, stow: Run) -> None:
    """Programs get all that the page shows, whatever text there is in the root."""
    write_hostile_root(story.root)
    found = json.loads(stow("report", story.url, "--index", "--json", store=None).stdout)
    facts = gather(story.root)
    assert [volume.name for volume in facts.volumes] == [volume["name"] for volume in found["volumes"]]
    assert [version.id for version in facts.versions] == [version["id"] for version in found["versions"]]
    assert HOSTILE in [version["message"] for version in found["versions"]]
    assert facts.packs.bytes == found["stored_bytes"]
    assert found["index"]["content_bytes"] > 0
    assert found["versions"][0]["created"].endswith("+00:00")


def test_refusals(story: Story, stow: Run, tmp_path: Path) -> None:
    """A volume is no root, and what is no root is named; no file is left."""
    whole = stow("report", f"{story.url}#training", store=None)
    assert (2, True) == (whole.returncode, "leave out #training" in whole.stderr)
    none = stow("report", f"file://{tmp_path}/nothing", "--output", str(tmp_path / "x.html"), store=None)
    assert 3 == none.returncode
    assert "nothing" in none.stderr
    assert not (tmp_path / "x.html").exists()
