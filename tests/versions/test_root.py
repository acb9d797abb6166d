"""Roots: making and opening them, heads, tags, versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from datastore import DataReference, MemoryStore, Store, errors
from datastore.errors import StoreError
from datastore.metric_names import Operation
from datastore.wrappers.faulty import FaultyStore, Raise, Rule, When
from stowstore import open_store
from stowstore.config import ContainerPolicy
from stowstore.index.snapshot import SnapshotRef
from stowstore.namespace.metastore import open_metastore
from stowstore.namespace.permissions import ROOT
from stowstore.versions.address import open_root
from stowstore.versions.errors import CorruptManifest, FormatTooNew, NoSuchVersion, NoSuchVolume, RootInUse, VolumeError
from stowstore.versions.manifest import Manifest, VersionName
from stowstore.versions.options import SessionOptions
from stowstore.versions.root import Root, RootFormat
from stowstore.versions.session import Session


@pytest.fixture(params=["mem", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with MemoryStore() if request.param == "mem" else open_store(f"file://{tmp_path}/main") as store:
        yield store


@pytest.fixture
def base(store: Store) -> DataReference:
    return (store.base_container_fqn if store.base_container_fqn.container else DataReference("mem://main")).join(
        "vols"
    )


@pytest.fixture
def root(store: Store, base: DataReference) -> Root:
    return Root.create(store, base)


def commit(root: Root, volume: str, message: str) -> VersionName:
    """A version without content on top of the head."""
    head = root.head(volume) if root.has_volume(volume) else None
    parents = () if head is None else (head,)
    name = root.write_manifest(Manifest(volume=volume, snapshot=SnapshotRef(), parents=parents, message=message))
    root.set_head(volume, name, head)
    return name


def test_root_is_made_once(store: Store, base: DataReference) -> None:
    """A root is made where nothing lies, and opened afterwards."""
    with pytest.raises(NoSuchVolume, match="no root of volumes"):
        Root.open(store, base)
    made = Root.create(store, base)

    assert made.format == Root.open(store, base).format == Root.open_or_create(store, base).format
    with pytest.raises(RootInUse, match="is not empty"):
        Root.create(store, base)


def test_prefix_that_holds_something_else_is_refused(store: Store, base: DataReference) -> None:
    """A prefix with foreign objects does not become a root."""
    store.write_bytes(base.join("precious"), b"x")

    with pytest.raises(RootInUse, match="precious"):
        Root.open_or_create(store, base)


def test_newer_and_damaged_formats(store: Store, base: DataReference) -> None:
    """A newer root is refused in words, a damaged one as damaged."""
    for raw, error in (
        (RootFormat(version=2).encode(), FormatTooNew),
        (RootFormat(hash="md6").encode(), FormatTooNew),
        (b"{}", CorruptManifest),
        (b"\xff", CorruptManifest),
    ):
        store.write_bytes(base.join("format.json"), raw)
        with pytest.raises(error):
            Root.open(store, base)


def test_head_follows_commits(root: Root) -> None:
    """The head names the newest version; versions are found by id, beginning, tag, and none at all."""
    first, second = commit(root, "data", "one"), commit(root, "data", "two")
    root.set_tag("data", "best", first)

    assert second == root.head("data") == root.resolve("data") == root.resolve("data", "head")
    assert first == root.resolve("data", "best") == root.resolve("data", first.id)
    assert second == root.resolve("data", second.id[:25] + second.id[25])
    assert {"best": first} == root.tags("data")
    assert [first.id, second.id] == list(root.version_ids("data"))
    assert "two" == root.load(second).message
    assert (first,) == root.load(second).parents
    assert ["data"] == root.volumes()


def test_what_does_not_exist(root: Root) -> None:
    """Missing volumes, versions and tags are told apart, each with what to do."""
    commit(root, "data", "one")

    with pytest.raises(NoSuchVolume, match="no volume 'other'"):
        root.head("other")
    with pytest.raises(NoSuchVolume):
        root.resolve("other", "tag")
    with pytest.raises(NoSuchVersion, match="no version or tag is called so"):
        root.resolve("data", "nightly")
    with pytest.raises(NoSuchVersion):
        root.delete_tag("data", "nightly")
    with pytest.raises(errors.InvalidReference):
        root.head("../etc")


def test_head_is_not_moved_past_somebody_else(root: Root) -> None:
    """A writer that did not see the newest version cannot replace it."""
    first = commit(root, "data", "one")
    commit(root, "data", "two")
    late = root.write_manifest(Manifest(volume="data", snapshot=SnapshotRef(), parents=(first,)))

    with pytest.raises(errors.PreconditionFailed):
        root.set_head("data", late, first)
    with pytest.raises(errors.PreconditionFailed):
        root.set_head("data", late, None)
    assert "two" == root.load(root.head("data")).message


def test_manifest_under_a_wrong_name(root: Root, store: Store) -> None:
    """A manifest moved to another name is noticed."""
    name = commit(root, "data", "one")
    other = Manifest(volume="data", snapshot=SnapshotRef())
    raw = store.read_bytes(root.base.join("versions", "data", name.id))
    store.write_bytes(root.base.join("versions", "data", other.id), raw)

    with pytest.raises(CorruptManifest, match="is that of"):
        root.manifest("data", other.id)


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"volume": "data"}', b"\xff"])
def test_damaged_reference(root: Root, store: Store, raw: bytes) -> None:
    """A head that names nothing is damaged, not missing."""
    commit(root, "data", "one")
    store.write_bytes(root.base.join("refs", "data", "head"), raw)

    with pytest.raises(CorruptManifest):
        root.head("data")


def test_new_volume_whose_answer_was_lost_is_recognised(store: Store, base: DataReference) -> None:
    """The write is looked for, at once or by the next try, which may be for a newer version; nobody else's is taken."""
    faulty = FaultyStore(store)
    root = Root.create(faulty, base)
    first, second = (root.write_manifest(Manifest(volume="data", snapshot=SnapshotRef())) for _ in range(2))
    lost = Rule(Raise(when=When.AFTER), operations={Operation.WRITE}, keys="*/refs/*")

    faulty.add(lost)
    root.make_volume("one", first)
    assert first == root.head("one")

    faulty.add(Rule(Raise(), operations={Operation.READ}, keys="*/refs/*"))
    with pytest.raises(StoreError, match="injected"):
        root.make_volume("two", first)
    faulty.clear()
    root.make_volume("two", second)
    assert second == root.head("two")
    for name in ("one", "two"):
        with pytest.raises(RootInUse, match=name):
            root.make_volume(name, root.head(name))
    with pytest.raises(RootInUse):
        Root.open(store, base).require_free("two")


def test_fork_is_one_write(root: Root) -> None:
    """A fork's head names the version it came from, and pins it."""
    name = commit(root, "data", "one")
    root.set_head("fork", name, None)

    assert name == root.head("fork") == root.resolve("fork")
    assert ["data", "fork"] == root.volumes()
    assert {name: ["data", "fork"]} == root.pinned()


def test_root_on_the_local_disk_is_called_by_its_whole_path(tmp_path: Path) -> None:
    """Errors tell two directories of one name apart, however the URL says which is meant."""
    for url, options in (
        (f"file://{tmp_path}/one/root", {}),
        (f"file://root?path={tmp_path}/one", {}),
        ("file://root", {"path": f"{tmp_path}/one"}),
    ):
        made = open_root(url, options=options, containers=ContainerPolicy.IF_MISSING, create=RootFormat())
        assert f"file://{tmp_path}/one/root" == made.address
        with pytest.raises(NoSuchVolume, match=f"file://{tmp_path}/one/root"):
            made.head("data")
    (tmp_path / "two" / "root").mkdir(parents=True)
    with pytest.raises(NoSuchVolume, match=f"file://{tmp_path}/two/root is no root"):
        open_root(f"file://{tmp_path}/two/root")
    (tmp_path / "two" / "root" / "stranger").write_bytes(b"")
    with pytest.raises(RootInUse, match=f"file://{tmp_path}/two/root is not empty: stranger lies there"):
        open_root(f"file://{tmp_path}/two/root", create=RootFormat())


def test_journal_of_another_directory_of_that_name_is_refused(tmp_path: Path) -> None:
    """Not even before the first commit is a journal taken for that of a volume and root with the same last names."""
    one, two = (
        open_root(f"file://{tmp_path}/{name}/root", containers=ContainerPolicy.IF_MISSING, create=RootFormat())
        for name in ("one", "two")
    )
    options = SessionOptions(meta_dir=tmp_path / "meta", cache_dir=tmp_path / "cache")
    with Session.write(one, "data", options) as session:
        session.files.mkdir(1, b"of one", 0o755, ROOT)
    with pytest.raises(VolumeError, match=f"{tmp_path}/one/root") as caught:
        Session.write(two, "data", options)
    assert f"{tmp_path}/two/root" in str(caught.value)
    # The way there does not matter, only where it leads.
    (tmp_path / "link").symlink_to("one")
    with Session.write(open_root(f"file://{tmp_path}/link/root"), "data", options) as session:
        assert session.files.lookup(1, b"of one", ROOT)


def test_journal_of_an_earlier_release_is_found(tmp_path: Path) -> None:
    """Those called a directory by its last part alone."""
    root = open_root(f"file://{tmp_path}/root", containers=ContainerPolicy.IF_MISSING, create=RootFormat())
    options = SessionOptions(meta_dir=tmp_path / "meta", cache_dir=tmp_path / "cache")
    with Session.write(root, "data", options) as session:
        session.files.mkdir(1, b"left", 0o755, ROOT)
    with closing(open_metastore("sqlite", tmp_path / "meta")) as journal:
        journal.set_meta("root", b"file://root")
    with Session.write(root, "data", options) as session:
        assert session.files.lookup(1, b"left", ROOT)
        session.commit()
