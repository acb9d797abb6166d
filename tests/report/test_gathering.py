"""What a report knows of a root, against roots made by the library itself."""

from __future__ import annotations

import random
from datetime import UTC
from pathlib import Path

import pytest

from datastore.errors import PermissionDenied
from datastore.memory import MemoryStore
from datastore.metric_names import Operation
from datastore.wrappers.faulty import FaultyStore, Raise, Rule
from stowstore import Volume
from stowstore.chunks.block import PackKind
from stowstore.chunks.store import ChunkStore
from stowstore.report.gathering import gather
from stowstore.report.indexing import read_index
from stowstore.report.model import Parent, RootFacts, VersionFacts, VolumeFacts
from stowstore.report.page import render
from stowstore.versions.collect import DAY, collect
from stowstore.versions.options import SessionOptions, chunk_store
from stowstore.versions.prune import prune_versions
from stowstore.versions.root import Root
from stowstore.volumes.registry import registry
from tests.locations.s3_buckets import fresh_bucket
from tests.report.conftest import HOSTILE, Story, write_hostile_root
from tests.servers import Server
from tests.versions.volumes import BASE, Volumes


def volume_of(facts: RootFacts, name: str) -> VolumeFacts:
    return next(volume for volume in facts.volumes if volume.name == name)


def version_of(facts: RootFacts, identity: str) -> VersionFacts:
    return next(version for version in facts.versions if version.id == identity)


class TestStory:
    """A root with forks, a merge, tags and a writer."""

    def test_volumes(self, story: Story) -> None:
        """Every volume is there with its size, versions, origin, tags, and who writes it."""
        facts = gather(story.root)
        assert ["experiment", "training", "untouched"] == [volume.name for volume in facts.volumes]
        training, experiment = volume_of(facts, "training"), volume_of(facts, "experiment")
        assert (4, 1, 0) == (training.versions, experiment.versions, volume_of(facts, "untouched").versions)
        assert (None, "training", "training") == tuple(
            volume.origin for volume in (training, experiment, facts.volumes[2])
        )
        assert ("best", "v1") == training.tags
        assert training.holder is not None
        assert not training.holder.is_over
        assert experiment.holder is None
        manifest = story.root.load(story.root.head("training"))
        assert manifest.statistics.used_bytes == training.used_bytes == training.sizes[-1]
        assert manifest.statistics.inode_count == training.inodes
        assert manifest.created == training.last_commit
        assert training.used_bytes == volume_of(facts, "untouched").used_bytes

    def test_versions(self, story: Story) -> None:
        """Every version is there with its message, parents, names and what made it."""
        facts = gather(story.root)
        first, epoch = version_of(facts, story.first.id), version_of(facts, story.epochs[0].id)
        side, merged = version_of(facts, story.side.id), version_of(facts, story.merged.id)
        assert ("first data", (), ("training@v1",)) == (first.message, first.parents, first.tags)
        assert (Parent("training", first.id),) == epoch.parents == side.parents
        assert "action=train, run=r7" == epoch.produced_by
        assert "" == first.produced_by
        assert {story.epochs[1].id, side.id} == {parent.id for parent in merged.parents}
        assert merged.is_merge
        assert ("training", "untouched") == merged.head_of
        assert ("experiment",) == side.head_of
        assert sorted(version.id for version in facts.versions) == [version.id for version in facts.versions]
        assert () == facts.problems

    def test_packs(self, story: Story) -> None:
        """What is stored is what lies in packs, and grows to that by the moments packs were made."""
        facts = gather(story.root)
        with ChunkStore(story.root.store, story.root.base) as chunks:
            sizes = {kind: [pack.size for pack in chunks.list_packs(kind)] for kind in PackKind}
        assert sum(sizes[PackKind.DATA]) == facts.packs.data_bytes
        assert sum(sizes[PackKind.INDEX]) == facts.packs.index_bytes
        assert len(sizes[PackKind.DATA] + sizes[PackKind.INDEX]) == facts.packs.packs
        moments = [moment for moment, _ in facts.packs.growth]
        assert sorted(moments) == moments
        assert facts.packs.bytes == facts.packs.growth[-1][1]
        assert [size for _, size in facts.packs.growth] == sorted(size for _, size in facts.packs.growth)

    def test_the_index_adds_up(self, story: Story) -> None:
        """With the index read, what versions added sums up to what is needed, and compression and directories show."""
        with ChunkStore(story.root.store, story.root.base) as chunks:
            facts = read_index(story.root, chunks, gather(story.root))
        assert facts.index is not None
        assert facts.index.live_bytes == sum(version.added_bytes or 0 for version in facts.versions)
        assert facts.index.live_bytes == sum(volume.added_bytes or 0 for volume in facts.volumes)
        assert 0 == volume_of(facts, "untouched").added_bytes
        content = 20 * 50_000 + 2 * 30_000 + len("new")
        assert content == facts.index.content_bytes
        assert facts.index.content_stored < content / 10
        assert (0, 0) == (facts.index.garbage_packs, facts.index.garbage_bytes)
        deep = next(
            found for found in facts.index.directories if (found.volume, found.path) == ("training", "/raw/deep")
        )
        assert (20 * 50_000, 1) == (deep.bytes, deep.files)


class TestCosts:
    """A report asks for listings and small objects, and says how many."""

    def test_nothing_large_is_read(self) -> None:
        """Without the index neither packs nor index are opened, and what is read is what the report says."""
        with Volumes() as volumes:
            for number in range(5):
                volumes.commit("data", {f"f{number}": b"x" * 5000})
            volumes.root.set_tag("data", "t", volumes.root.head("data"))
            forbidden = [
                Rule(Raise(PermissionDenied), operations={Operation.READ}, keys=f"root/{prefix}/*")
                for prefix in ("packs", "index")
            ]
            store = FaultyStore(volumes.store, forbidden)
            root = Root.open(store, BASE)
            store.calls.clear()
            facts = gather(root)
        assert 5 == len(facts.versions)
        assert 5 + 2 == facts.reads == store.calls[Operation.READ], "every version, the head and the tag"
        assert facts.listings == store.calls[Operation.LIST]

    def test_a_store_that_does_not_answer(self) -> None:
        """What the store refuses is an error, not a smaller report."""
        store = FaultyStore(MemoryStore())
        with Volumes(store) as volumes:
            volumes.commit("data", {"f": b"x"})
            for keys in ("root/versions/*", "root/refs/*/head"):
                store.clear()
                store.add(Rule(Raise(PermissionDenied), operations={Operation.READ}, keys=keys))
                with pytest.raises(PermissionDenied):
                    gather(volumes.root)


class TestChanges:
    """What goes on in a root shows."""

    def test_garbage_once_it_was_looked_for(self) -> None:
        """The last list of a collection is told; reading the index finds the same packs."""
        with Volumes() as volumes:
            first = volumes.commit("data", {"old": random.Random(1).randbytes(9000)})
            volumes.commit("data", {"new": b"y"})
            assert gather(volumes.root).collection is None
            prune_versions(volumes.root, "data", [first.id], dry_run=False)
            volumes.clock.ahead += 2 * DAY
            found = collect(volumes.root, volumes.chunks, now=volumes.clock.time)
            facts = read_index(volumes.root, volumes.chunks, gather(volumes.root))
        assert facts.collection is not None
        assert facts.index is not None
        assert found.garbage_bytes == facts.collection.bytes > 9000
        assert (True, len(found.garbage)) == (facts.collection.dry_run, facts.collection.packs)
        assert (found.garbage_bytes, len(found.garbage)) == (facts.index.garbage_bytes, facts.index.garbage_packs)
        assert first.id == facts.versions[0].parents[0].id, "a parent that is gone is still named"

    def test_deleted_volumes(self) -> None:
        """A volume of which only versions are left is there, marked, and counts for nothing."""
        with Volumes() as volumes:
            volumes.commit("gone", {"f": b"x" * 5000})
            volumes.root.delete_refs("gone")
            facts = gather(volumes.root)
        assert volume_of(facts, "gone").is_deleted
        assert 0 == facts.newest_bytes
        assert 1 == len(facts.versions)

    def test_an_empty_root(self) -> None:
        """A root in which nothing was committed has nothing to tell."""
        with Volumes() as volumes:
            facts = read_index(volumes.root, volumes.chunks, gather(volumes.root))
        assert ((), (), 0) == (facts.volumes, facts.versions, facts.packs.packs)


def test_an_encrypted_root(tmp_path: Path) -> None:
    """Its key is needed for what the index says, not for the rest; names, messages and sizes are no secret of it."""
    url = f"file://{tmp_path}/sealed"
    key = bytes(range(32))
    Volume.configure(url, key=key)
    with (volume := Volume.new("sealed", url)).blocking as files:
        files.write_text("secret", "hush" * 1000)
        volume.blocking.commit("sealed data")
    root = registry.root(url)
    facts = gather(root)
    assert facts.is_encrypted
    assert (1, "sealed data") == (len(facts.versions), facts.versions[0].message)
    with chunk_store(root, SessionOptions(key=key)) as chunks:
        found = read_index(root, chunks, facts, key=key)
    assert found.index is not None
    assert 4000 == found.index.content_bytes
    assert () == found.problems


def test_a_root_in_a_bucket(radosgw: Server) -> None:
    """A root below a prefix of a bucket is told as one on disk."""
    with fresh_bucket(radosgw) as bucket:
        url = f"s3://{bucket}/some/where?endpoint={radosgw.endpoint}&region=us-east-1"
        Volume.configure(url, options={"access_key_id": radosgw.access_key, "secret_key": radosgw.secret_key})
        with (volume := Volume.new("data", url)).blocking as files:
            files.write_text("f", "1" * 5000)
            version = volume.blocking.commit("one")
            volume.blocking.tag("v1")
            version.blocking.fork("other")
            facts = gather(registry.root(url))
        assert [("data", 1, None), ("other", 0, "data")] == [
            (one.name, one.versions, one.origin) for one in facts.volumes
        ]
        assert (("data@v1",), ("data", "other")) == (facts.versions[0].tags, facts.versions[0].head_of)
        assert facts.packs.packs == 2
        assert radosgw.secret_key not in f"{facts}{render(facts)}"


class TestDamage:
    """What cannot be read is missing, and said."""

    def test_hostile_values(self, story: Story) -> None:
        """Objects that are damaged or lie become problems; the rest of the root is told as it is."""
        write_hostile_root(story.root)
        facts = gather(story.root)
        assert "training" in [volume.name for volume in facts.volumes]
        assert {
            "the list of the last collection",
            "the tags of evil",
            "volume <script>alert(1)",
        } <= {problem.where for problem in facts.problems}
        assert any("<b>" in problem.where for problem in facts.problems)
        evil, late = volume_of(facts, "evil"), volume_of(facts, "late")
        assert 1 << 63 == evil.used_bytes
        assert evil.holder is not None
        assert (None, None) == (evil.holder.since, evil.holder.expires)
        assert late.last_commit is not None
        assert all(version.created.tzinfo is UTC for version in facts.versions)
        assert HOSTILE == version_of(facts, facts.volumes[0].head.id if facts.volumes[0].head else "").message

    def test_a_damaged_index(self) -> None:
        """An index that cannot be read is a problem of its version; what others add is still told."""
        with Volumes() as volumes:
            volumes.commit("good", {"f": b"x" * 5000})
            packs = volumes.packs()[PackKind.INDEX]
            bad = volumes.commit("bad", {"f": b"y" * 5000})
            (broken,) = volumes.packs()[PackKind.INDEX] - packs
            volumes.store.write_bytes(volumes.chunks.pack_reference(PackKind.INDEX, broken), b"garbage")
            with ChunkStore(volumes.store, BASE, max_fetches=2) as chunks:
                facts = read_index(volumes.root, chunks, gather(volumes.root))
        assert [f"the index of bad@{bad.id}", "the directories of bad"] == [problem.where for problem in facts.problems]
        assert (volume_of(facts, "good").added_bytes or 0) > 0
