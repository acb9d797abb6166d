"""Importing and exporting on a cluster: the tree that comes of it is the one that comes without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cluster.conftest import Stow
from tests.cluster.trees import make_tree
from tests.transfer.trees import attributes, require_attributes, snapshot


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("source") / "tree")


@pytest.fixture
def root(tmp_path: Path, stow: Stow) -> str:
    """A root with an empty volume."""
    url = f"file://{tmp_path}/root"
    assert 0 == stow("volume", "create", f"{url}#data").status
    return url


def test_an_import_makes_the_same_version(stow: Stow, root: str, dask: str, tree: Path, tmp_path: Path) -> None:
    """One of everything comes out as it went in; a second import finds its files unchanged."""
    first = stow("volume", "import", str(tree), f"{root}#data", "--dask", dask, "--json")
    assert 0 == first.status, first.err
    assert 0 == stow("volume", "create", f"{root}#plain").status
    plain = stow("volume", "import", str(tree), f"{root}#plain", "--json")
    counts = ("files", "directories", "unchanged", "bytes", "skipped")
    assert [plain.json[name] for name in counts] == [first.json[name] for name in counts]
    assert 0 == stow("volume", "export", f"{root}#data", str(tmp_path / "out")).status
    assert snapshot(tree) == snapshot(tmp_path / "out")
    assert stow("volume", "check", root, "--depth", "data", "--json").json["whole"]
    again = stow("volume", "import", str(tree), f"{root}#data", "--dask", dask, "--json")
    plain = stow("volume", "import", str(tree), f"{root}#plain", "--json")
    assert [plain.json[name] for name in counts] == [again.json[name] for name in counts]
    assert first.json["files"] == again.json["unchanged"]
    assert [] == [path for name in ("imports", "leases") for path in (tmp_path / "root" / name).rglob("*")]


def test_extended_attributes_go_both_ways(stow: Stow, root: str, dask: str, tmp_path: Path) -> None:
    """With attributes alone changed, an import takes them without reading a byte; so does an export see to them."""
    source, out = tmp_path / "source", tmp_path / "out"
    (source / "below").mkdir(parents=True)
    require_attributes(source)
    for path in (source / "below", source / "file", source / "below" / "other"):
        if not path.is_dir():
            path.write_bytes(b"content")
        os.setxattr(path, "user.binary", b"\xff\0")
    assert 0 == stow("volume", "import", str(source), f"{root}#data", "--dask", dask).status
    assert 0 == stow("volume", "export", f"{root}#data", str(out), "--dask", dask).status
    assert attributes(source) == attributes(out)
    os.setxattr(source / "file", "user.binary", b"new")
    again = stow("volume", "import", str(source), f"{root}#data", "--dask", dask, "--json").json
    assert (1, 1, 0) == (again["files"], again["unchanged"], again["bytes"])
    again = stow("volume", "export", f"{root}#data", str(out), "--dask", dask, "--json").json
    assert (1, 1) == (again["files"], again["unchanged"])
    assert attributes(source) == attributes(out)


def test_an_export_writes_the_same_tree(stow: Stow, root: str, dask: str, tree: Path, tmp_path: Path) -> None:
    """One of everything; a second export leaves what is there whole and writes what is not."""
    assert 0 == stow("volume", "import", str(tree), f"{root}#data").status
    here = stow("volume", "export", f"{root}#data", str(tmp_path / "here"), "--json")
    spread = stow("volume", "export", f"{root}#data", str(tmp_path / "spread"), "--dask", dask, "--json")
    assert (0, here.json) == (0, spread.json), spread.err
    assert snapshot(tree) == snapshot(tmp_path / "here") == snapshot(tmp_path / "spread")
    (tmp_path / "spread" / "many" / "0042").unlink()
    (tmp_path / "spread" / "many" / "0043").write_bytes(b"")
    again = stow("volume", "export", f"{root}#data", str(tmp_path / "spread"), "--dask", dask, "--json")
    assert snapshot(tree) == snapshot(tmp_path / "spread")
    # The two, the link and the fifo, and the second name.
    assert (5, spread.json["files"] - 5) == (again.json["files"], again.json["unchanged"])


def test_workers_find_the_key_of_an_encrypted_root(stow: Stow, dask: str, tmp_path: Path) -> None:
    """By the file that has it: import, check and export are as ever, and nothing lies there in the clear."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / f"{number}").write_bytes(b"in the clear" * 1000)
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    root, more = f"file://{tmp_path}/safe", ("--key", f"file:{key}")
    assert 0 == stow("volume", "create", f"{root}#data", "--encrypt", *more).status
    assert 0 == stow("volume", "import", str(source), f"{root}#data", "--dask", dask, *more).status
    assert 0 == stow("volume", "check", root, "--depth", "data", "--dask", dask, *more).status
    assert 0 == stow("volume", "export", f"{root}#data", str(tmp_path / "out"), "--dask", dask, *more).status
    assert snapshot(source) == snapshot(tmp_path / "out")
    assert not [path for path in (tmp_path / "safe").rglob("*") if path.is_file() and b"clear" in path.read_bytes()]
