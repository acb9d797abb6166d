"""Pushing records from workers: the store then says what it says after a push without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stowstore.records import RecordDirectory
from stowstore.records.opening import open_records
from tests.cluster.conftest import Stow
from tests.records.places import make, tree


def test_a_push_commits_the_same(stow: Stow, dask: str, tmp_path: Path) -> None:
    """First, again with nothing changed, and with changes, a moved file among them; pulled, it is the directory."""
    record = make(
        tmp_path / "record",
        {
            **{f"data/{number}": b"%d " % number * number for number in range(1, 601)},
            "large": b"0123456789abcdef" * 400_000,
            "link": "->data/7",
        },
    )
    plain, spread = f"file://{tmp_path}/plain", f"file://{tmp_path}/spread"
    counts = ("uuid", "generation", "changed", "files", "bytes", "sent_files", "sent_bytes")

    def push_both() -> list[Any]:
        here = stow("record", "push", plain, str(record.path), "--json")
        there = stow("record", "push", spread, str(record.path), "--dask", dask, "--json")
        assert (0, 0) == (here.status, there.status), there.err
        assert [here.json[0][name] for name in counts] == [there.json[0][name] for name in counts]
        assert _files(plain, record) == _files(spread, record)
        return [there.json[0][name] for name in ("changed", "sent_files")]

    assert [True, 605] == push_both()
    assert [False, 0] == push_both()
    (record.path / "data" / "5").write_bytes(b"changed")
    (record.path / "large").rename(record.path / "elsewhere")
    assert [True, 1] == push_both()
    pulled = stow("record", "pull", spread, record.uuid, "--to", str(tmp_path / "pulled"), "--json")
    assert tree(record.path) == tree(Path(pulled.json["directories"][0]))
    assert 0 == stow("record", "verify", spread, record.uuid).status


def test_what_an_interrupted_push_has_left_is_found(stow: Stow, dask: str, tmp_path: Path) -> None:
    """Objects that were sent and never committed or noted, as a killed worker leaves them, are not sent again."""
    record = make(tmp_path / "record", {f"{number}": b"%d " % number * 50 for number in range(1, 300)})
    root = f"file://{tmp_path}/root"
    assert 0 == stow("record", "push", root, str(record.path), "--dask", dask).status
    before = _files(root, record)
    (tmp_path / "root" / "records" / record.uuid / "manifest.json").unlink()
    again = stow("record", "push", root, str(record.path), "--dask", dask, "--json")
    assert (0, 0, before) == (again.status, again.json[0]["sent_files"], _files(root, record))


def _files(root: str, record: RecordDirectory) -> list[tuple[Any, ...]]:
    """All that a manifest says of the files of a record."""
    with open_records(root) as records:
        return [tuple(file) for file in records.manifest(record.uuid).files]
