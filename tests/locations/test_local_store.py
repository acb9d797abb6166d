"""The whole store over local disk, configured as upstream's users do."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from datastore.errors import ConfigError, InvalidReference, NotSupported
from datastore.model import SignedURLProperties, WriteOptions
from datastore.reference import DataReference
from stowstore import StoreConfig, StowStore, open_store


def test_a_store_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With path ``./`` and container ``testdata`` the reference ``file://testdata/config.yaml`` is that file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "testdata").mkdir()
    (tmp_path / "testdata" / "config.yaml").write_text("key: value")
    with StowStore.from_config(StoreConfig(kind="local", container="testdata", options={"path": "./"})) as store:
        assert store.read_bytes(DataReference("file://testdata/config.yaml")) == b"key: value"


@pytest.mark.parametrize("multi", [True, False])
def test_a_missing_root_is_made(tmp_path: Path, multi: bool) -> None:
    """The root and the base container are made when the store is opened, whatever containers it may use."""
    root = tmp_path / "not" / "yet"
    config = StoreConfig(kind="file", container="base", options={"path": str(root)}, enable_multicontainer=multi)
    with StowStore.from_config(config) as store:
        assert (root / "base").is_dir()
        store.write_bytes(store.base_container_fqn.join("a", "b"), b"1")
    assert (root / "base" / "a" / "b").read_bytes() == b"1"


def test_a_store_without_a_root_is_refused() -> None:
    """A store of kind ``file`` needs a path, and says so before anything is touched."""
    with pytest.raises(ConfigError, match="path"):
        StowStore.from_config(StoreConfig(kind="file", container="base"))


@pytest.mark.parametrize("text", ["file://c/../x", "file://c/a/../../x", "file://c/%2e%2e/x", "file://c/a/./b"])
def test_references_cannot_climb(tmp_path: Path, text: str) -> None:
    """``..`` in a reference, escaped or not, is refused by every operation (upstream went outside the root)."""
    with open_store(f"file://{tmp_path}/c") as store:
        for call in (store.head, store.read_bytes, store.delete, lambda ref: store.write_bytes(ref, b"x")):
            with pytest.raises(InvalidReference):
                call(text)
    assert sorted(os.listdir(tmp_path)) in (["c"], [".stow", "c"])


def test_a_seekable_source_is_copied_whole(tmp_path: Path) -> None:
    """Copies keep every byte and all metadata, and streams go into another store (upstream copied nothing)."""
    with open_store(f"file://{tmp_path}/c") as store, open_store("mem://m") as memory:
        ref = store.base_container_fqn.join("k")
        data = os.urandom(400_000)
        store.write_raw(ref, None, WriteOptions(metadata={"a": "1"}, content_type="text/csv"), io.BytesIO(data))
        copy = store.base_container_fqn.join("copy")
        store.copy_raw(ref, copy)
        assert store.read_bytes(copy) == data
        with store.read_raw(copy) as stream:
            known = memory.write_raw(memory.base_container_fqn.join("k"), stream.size, None, stream)
        assert known.size == len(data)
        assert (store.head(copy).user_metadata, store.head(copy).content_type) == ({"a": "1"}, "text/csv")


def test_there_are_no_signed_urls(tmp_path: Path) -> None:
    """Signing is refused honestly, with what to do instead."""
    with open_store(f"file://{tmp_path}/c") as store, pytest.raises(NotSupported, match="serve the object yourself"):
        store.create_signed_url(store.base_container_fqn.join("k"), SignedURLProperties())


def test_large_objects_take_little_memory(tmp_path: Path) -> None:
    """Streaming 300 MiB in and out needs a few pieces of memory, not the object."""
    script = """
import resource, sys
from stowstore import open_store
with open_store(f"file://{sys.argv[1]}/c") as store:
    ref = store.base_container_fqn.join("large")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    piece = bytes(1 << 20)
    store.write_raw(ref, 300 << 20, None, (piece for _ in range(300)))
    with store.read_raw(ref) as stream:
        assert sum(len(part) for part in stream) == 300 << 20
    store.copy_raw(ref, store.base_container_fqn.join("copy"))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert grown < 40, f"{grown} MiB"
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=100)
