"""The worked example of `docs/writing-a-kind.md` installs, is found by its entry point, and passes its own tests."""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import pytest

_EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "stow_sqlite"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's code beside the metadata of its project file, as an installation has them; needs no network."""
    target = tmp_path_factory.mktemp("installed")
    shutil.copytree(_EXAMPLE / "src", target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    project = tomllib.loads((_EXAMPLE / "pyproject.toml").read_text())["project"]
    metadata = target / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(groups))
    return target


def test_the_kind_is_found_by_its_entry_point(installed: Path) -> None:
    """Nothing imports the example by name: its distribution says which kind and scheme it serves."""
    _run(
        "from stowstore import open_store\n"
        "with open_store(f'sqlite://photos?path=objects.db') as store:\n"
        "    store.write_bytes('sqlite://photos/a', b'found')\n"
        "    assert store.read_bytes('sqlite://photos/a') == b'found'\n"
        "from stowstore.locations.registry import known_kinds\n"
        "assert 'sqlite' in known_kinds()\n",
        cwd=installed,
    )


@pytest.mark.timeout(600)
def test_the_example_passes_the_kit(installed: Path) -> None:
    """Its own test module, which the documentation shows, runs the whole kit and passes."""
    arguments = ["-q", "-p", "no:cacheprovider", "-W", "error", str(_EXAMPLE / "tests" / "test_sqlite.py")]
    # SQLite waits for the disk with every transaction: in memory the kit takes less than half as long.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        _run(
            f"import pytest; raise SystemExit(pytest.main({[*arguments, f'--basetemp={directory}/kit']!r}))",
            cwd=installed,
        )


def _run(code: str, *, cwd: Path) -> None:
    """Runs code in a process of its own, in which the example is installed beside the project."""
    paths = [str(cwd), str(_EXAMPLE.parents[2]), *(path for path in sys.path if "site-packages" in path)]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
