"""A root with a story to tell, and a browser to see it in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from stowstore import ROVolume, RWVolume, Volume
from stowstore.index.snapshot import SnapshotRef
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.root import Root
from stowstore.volumes.lineage import reset_producer, set_producer
from stowstore.volumes.registry import registry
from tests.servers import Chromium
from tests.servers.browser import Browser

#: What would run, load or break out, were it not escaped.
HOSTILE = (
    "<script>document.title = 'taken'</script><img src=http://127.0.0.1:1/x onerror=\"document.title='taken'\">"
    "</title></svg></style>'\"&amp;{{ 7 * 7 }}\u202egnp.exe\x1b[31m\x00\ud800"
)


def write_hostile(root: Root, volume: str, **changes: Any) -> str:
    """Writes a manifest as only somebody else's program does, and makes it the head of a volume; returns its id."""
    manifest = Manifest(volume=volume, snapshot=SnapshotRef())
    raw = json.dumps(json.loads(manifest.encode()) | changes).encode()
    root.store.write_bytes(root.base.join("versions", volume, manifest.id), raw)
    name = VersionName(volume, manifest.id, hashlib.sha256(raw).hexdigest())
    root.store.write_bytes(root.base.join("refs", volume, "head"), json.dumps(name.to_data()).encode())
    return manifest.id


def write_hostile_root(root: Root) -> None:
    """Fills a root with text that would take over a page which believes it."""
    write_hostile(root, "evil", message=HOSTILE, produced_by={HOSTILE: HOSTILE}, used_bytes=10**4000)
    write_hostile(root, "late", created="9999-12-31T23:59:59-14:00", message="\u2028\n", produced_by=[HOSTILE])
    write_hostile(root, "naive", created="2026-01-01T00:00:00", produced_by=HOSTILE)
    lease = {"token": "t", "holder": HOSTILE, "host": HOSTILE, "pid": 1, "process": "1", "base": None}
    root.store.write_bytes(
        root.base.join("leases", "evil"), json.dumps(lease | {"started": -1e300, "expires": 1e300}).encode()
    )
    root.store.write_bytes(root.base.join("versions", "<img src=x>", "<b>"), b"{}")
    root.store.write_bytes(root.base.join("refs", "<script>alert(1)", "head"), b"{}")
    root.store.write_bytes(root.base.join("refs", "evil", "tags", "broken"), b"<script>")
    root.store.write_bytes(root.base.join("garbage", "9.json"), b'{"written": "<script>"}')


@frozen
class Story:
    """A root with two volumes that were forked and merged, a fork without a version, and tags."""

    url: str
    first: ROVolume
    epochs: tuple[ROVolume, ...]
    side: ROVolume
    merged: ROVolume

    @property
    def root(self) -> Root:
        return registry.root(self.url)


@pytest.fixture(autouse=True)
def fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Directories of the user's own for each test, and volumes that are closed after it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home-data"))
    yield
    registry.close_all()


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """A root on disk; ``training`` is still being written."""
    url = f"file://{tmp_path}/root"
    volume = Volume.new("training", url)
    files = volume.blocking.open()
    files.makedirs("raw/deep")
    files.write_bytes("raw/deep/text", b"the same line again\n" * 50_000)
    first = volume.blocking.commit("first data")
    volume.blocking.tag("v1")
    token = set_producer({"run": "r7", "action": "train"})
    epochs = []
    for number in (1, 2):
        files.write_bytes(f"labels-{number}", bytes([number]) * 30_000)
        epochs.append(volume.blocking.commit(f"epoch {number}"))
    reset_producer(token)
    experiment: RWVolume = first.blocking.fork("experiment")
    with experiment.blocking as theirs:
        theirs.write_text("idea", "new")
        side = experiment.blocking.commit("higher learning rate")
    merged = volume.blocking.merge(side).version
    volume.blocking.tag("best", merged.id)
    merged.blocking.fork("untouched")
    return Story(url, first, tuple(epochs), side, merged)


@pytest.fixture(scope="module")
def browser(chromium: Chromium) -> Iterator[Browser]:
    """One browser for the tests of a module, which open pages that share nothing."""
    with chromium.start() as running:
        yield running
