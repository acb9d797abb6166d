"""The examples in the documents run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
#: The documents whose Python blocks are one program, read from top to bottom.
PROGRAMS = [
    path.relative_to(ROOT)
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if BLOCK.search(path.read_text(encoding="utf-8")) and path.name != "writing-a-kind.md"
]


@pytest.mark.parametrize("document", PROGRAMS, ids=str)
def test_python_of_a_document_runs(document: Path, tmp_path: Path) -> None:
    """Every Python block of a document runs, one after the other, without warnings, on a fresh directory."""
    program = "\n".join(BLOCK.findall((ROOT / document).read_text(encoding="utf-8")))
    program = program.replace("/tmp/stow", str(tmp_path))

    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert 0 == result.returncode, result.stderr


def test_commands_of_the_readme_exist() -> None:
    """The two commands the README begins with are there and executable."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert ".ci/bootstrap demo" in text
    assert ".ci/bootstrap tests" in text
    assert (ROOT / ".ci" / "bootstrap").stat().st_mode & 0o111
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
