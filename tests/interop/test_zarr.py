"""zarr's own tests of stores, over ours; and arrays in stores and versions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import hypothesis
import pytest

zarr = pytest.importorskip("zarr", reason="zarr is not installed")
np = pytest.importorskip("numpy", reason="numpy is not installed")

from hypothesis.stateful import run_state_machine_as_test  # noqa: E402
from zarr.core.buffer import Buffer, cpu  # noqa: E402
from zarr.storage import FsspecStore  # noqa: E402
from zarr.testing.stateful import ZarrStoreStateMachine  # noqa: E402
from zarr.testing.store import StoreTests  # noqa: E402

from datastore.memory import MemoryStore  # noqa: E402
from stowstore import open_store  # noqa: E402
from stowstore.interop.fsspec import volume_url  # noqa: E402
from stowstore.interop.zarr import StowZarrStore  # noqa: E402
from stowstore.volumes import Volume  # noqa: E402


class TestStowZarrStore(StoreTests[StowZarrStore, cpu.Buffer]):
    """What zarr asks of a store."""

    store_cls = StowZarrStore
    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self, tmp_path: Path) -> dict[str, Any]:
        store = open_store(f"file://{tmp_path}/main")
        return {"store": store, "base": store.base_container_fqn.join("some", "where")}

    @pytest.fixture
    def store(self, open_kwargs: dict[str, Any]) -> StowZarrStore:
        return asyncio.run(self.store_cls.open(**open_kwargs))

    @pytest.fixture
    def store_not_open(self, store_kwargs: dict[str, Any]) -> StowZarrStore:
        return self.store_cls(**store_kwargs)

    async def set(self, store: StowZarrStore, key: str, value: Buffer) -> None:
        store.store.write_bytes(store.base.join(key), value.to_bytes())

    async def get(self, store: StowZarrStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(store.store.read_bytes(store.base.join(key)))

    def test_store_repr(self, store: StowZarrStore) -> None:
        """The text says where it is."""
        assert "StowZarrStore('file://main/some/where')" == repr(store)

    def test_store_supports_writes(self, store: StowZarrStore) -> None:
        """It can be written."""
        assert store.supports_writes

    def test_store_supports_listing(self, store: StowZarrStore) -> None:
        """It can be listed."""
        assert store.supports_listing


def test_any_history_of_a_store_of_zarr() -> None:
    """zarr's state machine finds no difference from a dictionary."""

    def machine() -> ZarrStoreStateMachine:
        return ZarrStoreStateMachine(StowZarrStore(MemoryStore(), "mem://main/zarr"))

    run_state_machine_as_test(
        machine,
        settings=hypothesis.settings(max_examples=5, stateful_step_count=15, deadline=None, database=None),
    )


def test_an_array_is_read_from_a_version(tmp_path: Path) -> None:
    """An array that is written through a volume is read from the version, in part and by another file system."""
    expected = np.arange(10_000, dtype="int64").reshape(100, 100)
    url = f"stowvol://file{tmp_path}/root#data/arrays/first"
    written = FsspecStore.from_url(url, storage_options={"access": "rw"})
    zarr.create_array(written, shape=(100, 100), chunks=(10, 50), dtype="int64")[:] = expected
    version = written.fs.sync_fs.commit(url) if hasattr(written.fs, "sync_fs") else written.fs.commit(url)
    read = zarr.open_array(FsspecStore.from_url(volume_url(version, "arrays/first"), read_only=True), mode="r")
    assert (expected[5:25, 40:60] == read[5:25, 40:60]).all()
    assert isinstance(Volume.blocking.from_locator(version.locator), type(version))


def test_an_array_is_written_in_place_of_another_by_many_chunks(tmp_path: Path) -> None:
    """Groups, attributes and chunks of an array lie in a store below one reference."""
    store = open_store(f"file://{tmp_path}/main")
    group = zarr.open_group(StowZarrStore(store, store.base_container_fqn.join("group")), mode="w")
    group.attrs["unit"] = "m"
    group.create_array("x", shape=(64,), chunks=(4,), dtype="f8")[:] = np.linspace(0, 1, 64)
    again = zarr.open_group(StowZarrStore(store, "file://main/group", read_only=True), mode="r")
    assert ("m", 64, 1.0) == (again.attrs["unit"], again["x"].shape[0], again["x"][-1])
    assert ["x"] == [name for name, _ in again.arrays()]
