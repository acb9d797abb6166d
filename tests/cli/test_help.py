"""What the command line says of itself, also where it was installed without extras."""

from __future__ import annotations

import subprocess
import sys

import pytest

from stowstore.cli.app import _Commands
from stowstore.cli.lazy import LazyGroup
from stowstore.cli.records import _RecordGroup
from stowstore.cli.volume import _VolumeGroup

GROUPS: tuple[tuple[type[LazyGroup], list[str]], ...] = (
    (_Commands, []),
    (_VolumeGroup, ["volume"]),
    (_RecordGroup, ["record"]),
)
EXTRAS = ("blake3", "cryptography", "dask", "fsspec", "jinja2", "msgspec", "redis", "textual", "zstandard")


def _run_without_extras(code: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs Python where nothing that an extra brings can be imported."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS}))\n"
    command = [sys.executable, "-c", blocked + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


@pytest.mark.parametrize(("group", "words"), GROUPS, ids=lambda value: "-".join(value) if type(value) is list else "")
def test_a_group_lists_its_commands_without_extras(group: type[LazyGroup], words: list[str]) -> None:
    """--help of a group needs nothing of what its commands import, and shows each in a whole line."""
    run = _run_without_extras(f"from stowstore.cli.app import main\nmain({[*words, '--help']})")

    assert (0, "") == (run.returncode, run.stderr)
    lines = [line.strip() for line in run.stdout.splitlines()]
    for name, verb in group.verbs().items():
        assert any(line.startswith(f"{name} ") and line.endswith(verb.summary) for line in lines), name


@pytest.mark.parametrize(("typed", "expected"), [("stowstore vol", "volume"), ("stowstore volume res", "resize")])
def test_the_shell_completes_commands_without_extras(typed: str, expected: str) -> None:
    """Completion, click's protocol for bash, offers the names of commands and imports none of them."""
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1), "_STOWSTORE_COMPLETE": "bash_complete"}
    code = f"import os\nos.environ.update({words})\nfrom stowstore.cli.app import cli\ncli(prog_name='stowstore')"
    run = _run_without_extras(code)

    assert f"plain,{expected}" in run.stdout.splitlines()


def test_doctor_names_each_extra_that_is_missing() -> None:
    """Where packages are missing the doctor says which extra brings them."""
    code = (
        "import importlib.metadata as metadata\n"
        "asked = metadata.version\n"
        "def version(name):\n"
        "    if name in ('textual', 'blake3'):\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return asked(name)\n"
        "metadata.version = version\n"
        "from stowstore.cli.app import main\n"
        "main(['doctor', '--json'])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    for words in ("without blake3", "textual", "stowstore[explore]", "stowstore[volumes]", "extra fsspec"):
        assert words in run.stdout
