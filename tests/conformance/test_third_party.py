"""The worked example of `docs/writing-a-kind.md` installs, is found by its entry point, and passes its own tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "stow_sqlite"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's code beside the metadata its build makes, as an installation has them."""
    target = tmp_path_factory.mktemp("installed")
    build = f"import setuptools.build_meta as backend; backend.prepare_metadata_for_build_wheel({str(target)!r})"
    source = tmp_path_factory.mktemp("source")
    _copy(_EXAMPLE, source)
    _run(build, cwd=source)
    _copy(source / "src", target)
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
    _run(f"import pytest; raise SystemExit(pytest.main({arguments!r}))", cwd=installed)


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


def _copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and not any(".egg-info" in part for part in path.parts):
            copied = target / path.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(path.read_bytes())
