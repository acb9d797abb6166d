"""Roots of format version 1, made when it was new: every later release reads them as they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datastore.errors import StoreError
from stowstore import Volume
from stowstore.chunks.encryption import Passphrase
from stowstore.chunks.store import ChunkStore
from stowstore.versions.check import check
from stowstore.versions.errors import FormatTooNew
from stowstore.versions.findings import CheckDepth
from stowstore.versions.options import SessionOptions, chunk_store
from stowstore.volumes.registry import registry
from tests.golden.make import KEY, describe
from tests.golden.unpacking import unpack

_ARCHIVE = Path(__file__).with_name("v1.tar.xz")


@pytest.fixture(params=["plain", "sealed"])
def golden(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The URL of a copy of a golden root, and what its versions held."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    unpack(_ARCHIVE, tmp_path)
    root = f"file://{tmp_path}/{request.param}"
    Volume.configure(root, key=KEY if request.param == "sealed" else None)
    yield root, json.loads((tmp_path / "expected.json").read_text())[request.param]
    registry.close_all()


def _chunks(root: str) -> ChunkStore:
    return chunk_store(registry.root(root), SessionOptions(key=registry.key_source(root)))


def test_every_file_of_every_version_is_what_it_was(golden: tuple[str, dict[str, Any]]) -> None:
    """Names, kinds, owners, times, attributes, links, holes and bytes are read as they were written."""
    root, expected = golden
    assert len(expected) == 7
    for version, about in expected.items():
        found = Volume.blocking.at(f"{root}#{about['volume']}@{version}")
        assert found.message == about["message"]
        with found.blocking as files:
            assert describe(files) == about["files"]


def test_every_byte_is_proved(golden: tuple[str, dict[str, Any]]) -> None:
    """A check that reads everything finds nothing damaged."""
    root, _ = golden
    with _chunks(root) as chunks:
        report = check(registry.root(root), chunks, depth=CheckDepth.DATA)
    assert report.findings == ()


def test_history_and_tags_are_what_they_were(golden: tuple[str, dict[str, Any]]) -> None:
    """The log runs from the restored state over the merge to the first commit, and tags name their versions."""
    root, expected = golden
    volume = Volume.blocking.at(f"{root}#golden")
    messages = [entry.version.message for entry in volume.blocking.log()]
    assert messages[0] == "back to everything"
    assert messages[-1] == "everything"
    assert {"merged", "on the fork", "on the main line", "changes"} <= set(messages)
    tagged = Volume.blocking.at(f"{root}#golden@everything")
    assert expected[tagged.id]["message"] == "everything"  # type: ignore[attr-defined]


def test_versions_are_compared(golden: tuple[str, dict[str, Any]]) -> None:
    """What the second commit changed is told by path."""
    root, expected = golden
    (changed,) = [version for version, about in expected.items() if about["message"] == "changes"]
    found = Volume.blocking.at(f"{root}#golden@{changed}").blocking.diff()
    assert {(change.path, change.kind.value) for change in found} == {
        ("tree/deep/moved", "added"),
        ("tree/small-10", "removed"),
        ("tree/small-11", "removed"),
        ("tree/small-12", "content"),
        ("tree/text", "content"),
    }


def test_a_golden_volume_is_written_on(golden: tuple[str, dict[str, Any]]) -> None:
    """A new commit lies over the old versions, and takes in what is written on one of their forks."""
    root, expected = golden
    volume = Volume.blocking.at(f"{root}#golden")
    with volume.blocking as files:
        files.write_text("/new", "written by this release")
        before = files.read_bytes("/tree/random")
        version = volume.blocking.commit("new")  # type: ignore[attr-defined]
        fork = Volume.blocking.at(f"{root}#fork")
        with fork.blocking as forked:
            forked.write_text("/of the fork", "hello")
            fork.blocking.commit("more")  # type: ignore[attr-defined]
        volume.blocking.merge(f"{root}#fork")  # type: ignore[attr-defined]
        assert files.read_text("/of the fork") == "hello"
    with version.blocking as files:
        assert files.read_text("/new") == "written by this release"
        assert files.read_bytes("/tree/random") == before
    for identity, about in expected.items():
        assert Volume.blocking.at(f"{root}#{about['volume']}@{identity}").message == about["message"]


def test_a_sealed_root_stays_shut(golden: tuple[str, dict[str, Any]]) -> None:
    """Another passphrase opens nothing of a sealed root."""
    root, _ = golden
    if not root.endswith("sealed"):
        pytest.skip("the plain root has no key")
    Volume.configure(root, key=Passphrase("another one"))
    with pytest.raises(StoreError, match=r"key|passphrase"):
        Volume.blocking.at(f"{root}#golden@everything").files.listdir("/")


def test_a_newer_format_is_refused_in_words(golden: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    """A root of format 2 is not guessed at: the error names both numbers and what to do."""
    root, _ = golden
    form = Path(root.removeprefix("file://"), "format.json")
    data = json.loads(form.read_text())
    form.write_text(json.dumps(data | {"version": 2}))
    with pytest.raises(FormatTooNew, match=r"format 2.* up to 1"):
        Volume.blocking.at(f"{root}#golden")
