"""Checking and collecting on a cluster: what is found is what is found without one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Stow


@pytest.fixture
def root(tmp_path: Path, stow: Stow) -> str:
    """A root with two volumes of several versions, and packs that nothing needs."""
    url = f"file://{tmp_path}/root"
    source = tmp_path / "source"
    source.mkdir()
    for volume in ("one", "two"):
        assert 0 == stow("volume", "create", f"{url}#{volume}").status
        for turn in range(3):
            for number in range(40):
                (source / f"{volume}-{turn}-{number}").write_bytes(os.urandom(20_000))
            (source / "changing").write_bytes(os.urandom(3_000_000))
            assert 0 == stow("volume", "import", str(source), f"{url}#{volume}").status
    versions = stow("volume", "log", f"{url}#one", "--json").json
    pruned = [arg for version in versions[1:] for arg in ("--version", version["version"])]
    assert 0 == stow("volume", "prune", f"{url}#one", *pruned, "--yes").status
    return url


def test_a_check_finds_the_same(stow: Stow, root: str, dask: str, tmp_path: Path) -> None:
    """Of a whole root and of one with a damaged, a shortened and a missing pack, with the paths they hurt."""
    plain = ("volume", "check", root, "--depth", "data", "--json")
    whole = stow(*plain)
    assert (0, whole.json) == (0, stow(*plain, "--dask", dask).json)
    packs = sorted(path for path in (tmp_path / "root" / "packs").rglob("*") if path.is_file())
    for number, pack in enumerate(packs):
        data = pack.read_bytes()
        if number % 3 == 0:
            pack.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
        elif number % 3 == 1:
            pack.write_bytes(data[: len(data) // 2])
        else:
            pack.unlink()
    damaged = stow(*plain)
    spread = stow(*plain, "--dask", dask)
    assert (1, 1) == (damaged.status, spread.status)
    assert _comparable(damaged.json) == _comparable(spread.json)
    assert {"missing_pack", "short_pack", "bad_block"} <= {finding["kind"] for finding in spread.json["findings"]}


def test_a_collection_finds_the_same_garbage(stow: Stow, root: str, dask: str) -> None:
    """What may go, what is needed and what is sparse is the same, and so is what a collection leaves."""
    plain = ("volume", "gc", root, "--grace", "0s", "--json")
    here, spread = stow(*plain), stow(*plain, "--dask", dask)
    assert 0 == here.status == spread.status, spread.err
    assert 0 < len(here.json["garbage"])
    assert _without(here.json, "candidates") == _without(spread.json, "candidates")
    done = stow(*plain, "--dask", dask, "--yes", "--force", "--settle", "0s")
    assert (0, len(here.json["garbage"])) == (done.status, done.json["deleted"])
    assert stow("volume", "check", root, "--depth", "data", "--json", "--dask", dask).json["whole"]


def _comparable(report: dict[str, Any]) -> dict[str, Any]:
    """A report whose findings are in one order."""
    return {**report, "findings": sorted(report["findings"], key=str)}


def _without(data: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in data.items() if key != name}
