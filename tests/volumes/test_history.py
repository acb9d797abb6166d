"""Histories of volumes: logs, differences, tags, merges, restores; in files, in memory and on S3."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from datastore.errors import ConfigError
from stowstore import ROVolume, RWVolume, Volume
from stowstore.versions.errors import (
    CorruptManifest,
    LeaseHeld,
    MergeConflict,
    NoSuchVersion,
    NoSuchVolume,
    NotCommitted,
    Unrelated,
    VolumeError,
)
from stowstore.volumes import ChangeKind
from tests.locations.s3_buckets import fresh_bucket
from tests.servers import Server


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


@pytest.fixture(params=["file", "mem", "s3"])
def anywhere(request: pytest.FixtureRequest) -> Iterator[str]:
    """A root on disk, in memory, and in a bucket of a real server."""
    if request.param != "s3":
        yield _local(request, request.param)
        return
    server: Server = request.getfixturevalue("radosgw")
    with fresh_bucket(server) as bucket:
        url = f"s3://{bucket}/some/where?endpoint={server.endpoint}"
        Volume.configure(url, options={"access_key_id": server.access_key, "secret_key": server.secret_key})
        yield url


def _local(request: pytest.FixtureRequest, kind: str) -> str:
    directory = request.getfixturevalue("tmp_path")
    return f"file://{directory}/root" if kind == "file" else f"mem://{directory.parent.name}-{directory.name}/root"


def test_a_whole_story(anywhere: str) -> None:
    """Three commits, a fork, a merge, a diff, a tag, a way back and a locator: each shows what it should."""
    volume = Volume.new("data", anywhere)

    async def story() -> None:
        async with volume as files:
            versions = []
            for number in range(3):
                files.write_text("count", str(number))
                files.makedirs(f"d{number}")
                files.write_bytes(f"d{number}/big", bytes([number]) * 100_000)
                versions.append(await volume.commit(f"v{number}"))
            assert [("count", ChangeKind.CONTENT), ("d2", ChangeKind.ADDED), ("d2/big", ChangeKind.ADDED)] == [
                (change.path, change.kind) for change in await versions[2].diff(versions[1])
            ]
            await volume.tag("first", versions[0].id)
            async with await versions[0].fork("side") as theirs:
                theirs.write_text("side", "new")
                made = await Volume.at(f"{anywhere}#side")
                assert isinstance(made, RWVolume)
                side = await made.commit("beside")
            merged = await volume.merge(side)
            assert ("new", "2") == (files.read_text("side"), files.read_text("count"))
            assert 2 == len((await merged.version.log(1))[0].parents)
            restored = await volume.restore("first")
            assert ["count", "d0"] == files.listdir()
            files.write_text("after", "1")
        last = await Volume.from_locator(restored.locator or "")
        assert (restored, "0") == (last, last.files.read_text("count"))
        assert bytes([0]) * 50_000 == last.files.read_range("d0/big", 25_000, 50_000)
        messages = [entry.message for entry in await last.log()]
        assert ["v0", "v1", "v2", "beside"] == messages[:1:-1]
        assert ["Restore", "Merge"] == [(message or "").split()[0] for message in messages[:2]]
        assert {"first"} == (await volume.tags()).keys()

    run(story())


class TestDiff:
    """What is different, by path."""

    def test_against_everything_that_names_a_version(self, root: str) -> None:
        """A diff takes a volume, a locator, an address, an id, a tag, or nothing for the version before."""
        volume = Volume.new("data", root)
        with volume.blocking as files:
            files.write_text("a", "1")
            first = volume.blocking.commit()
            volume.blocking.tag("t")
            files.write_text("b", "1")
            second = volume.blocking.commit()
            wanted = [("b", ChangeKind.ADDED)]
            for other in (first, first.locator, f"{root}#data@t", first.id, first.id[:20], "t", None):
                for newer in (second, volume):
                    assert wanted == [(change.path, change.kind) for change in run(newer.diff(other))]
            assert [("b", ChangeKind.REMOVED)] == [(change.path, change.kind) for change in run(first.diff(second))]
            assert ["a"] == [change.path for change in run(first.diff())]
            assert [] == run(volume.diff(second))

    def test_other_roots_are_unrelated(self, root: str) -> None:
        """Two roots have nothing in common."""
        with (volume := Volume.new("data", root)).blocking:
            version = volume.blocking.commit()
        with pytest.raises(Unrelated, match="another root"):
            run(version.diff(Volume.new("data", "mem://elsewhere/root")))
        with pytest.raises(NoSuchVersion):
            run(version.diff("no-such-tag"))


class TestMerge:
    """Forks come home."""

    def _two(self, root: str) -> tuple[RWVolume, ROVolume]:
        """A volume and a fork of it that disagree about one file."""
        volume = Volume.new("data", root)
        with volume.blocking as files:
            files.write_text("same", "base")
            fork = volume.blocking.commit().blocking.fork("fork")
            with fork.blocking as theirs:
                theirs.write_text("same", "theirs")
                theirs.write_text("their own", "1")
                other = fork.blocking.commit()
            files.write_text("same", "ours")
            volume.blocking.commit()
        return volume, other

    def test_conflicts_are_told_by_path(self, root: str) -> None:
        """By default nothing is published where both sides differ, and the error lists the paths."""
        volume, other = self._two(root)
        with volume.blocking as files:
            with pytest.raises(MergeConflict, match="same") as caught:
                run(volume.merge(other))
            assert ("same",) == caught.value.paths
            assert ["same"] == files.listdir()
            files.write_text("still", "writable")
            assert 3 == len(run(volume.commit()).blocking.log())

    @pytest.mark.parametrize("side", ["ours", "theirs"])
    def test_a_side_decides(self, root: str, side: str) -> None:
        """Asked to, a merge keeps ours or takes theirs, and reports where."""
        volume, other = self._two(root)
        merged = run(volume.merge(other, conflicts=side))
        assert ("same",) == merged.conflicts
        assert side == merged.version.files.read_text("same")
        assert "1" == merged.version.files.read_text("their own")

    def test_what_is_uncommitted_is_kept(self, root: str) -> None:
        """Changes not yet committed become a version before the merge, also those a journal holds."""
        volume, other = self._two(root)
        with volume.blocking as files:
            files.write_text("young", "1")
            merged = volume.blocking.merge(other, conflicts="ours")
            assert "1" == merged.version.files.read_text("young")

    def test_what_cannot_be_merged(self, root: str) -> None:
        """Open files, volumes without a common past, and bad ways are refused, and the volume stays open."""
        volume, other = self._two(root)
        stranger = Volume.new("stranger", root)
        with pytest.raises(NotCommitted):
            run(volume.merge(stranger))
        with stranger.blocking as files:
            files.write_text("x", "1")
            stranger.blocking.commit()
        with volume.blocking as files:
            with files.open("same") as file, pytest.raises(VolumeError, match="open files"):
                run(volume.merge(other))
            assert "ours" == files.read_text("same")
            assert file.closed
            with pytest.raises(Unrelated):
                run(volume.merge(stranger))
            with pytest.raises(ConfigError, match="mine"):
                run(volume.merge(other, conflicts="mine"))
            assert "ours" == files.read_text("same")

    def test_two_merges_of_one_fork(self, root: str) -> None:
        """Files made on both sides after a merge stay different files in the next one."""
        volume, other = self._two(root)
        with volume.blocking as files:
            volume.blocking.merge(other, conflicts="ours")
            fork = Volume.blocking.at(f"{root}#fork")
            with fork.blocking as theirs:
                theirs.write_text("made there", "there")
                later = fork.blocking.commit()
            files.write_text("made here", "here")
            volume.blocking.merge(later, conflicts="fail")
            assert ("here", "there") == (files.read_text("made here"), files.read_text("made there"))
            inodes = [entry.inode() for entry in files.scandir()]
            assert len(set(inodes)) == len(inodes)


class TestTagsAndRestore:
    """Names of versions, and ways back."""

    def test_tags_move_and_go(self, root: str) -> None:
        """A tag names one version at a time, until it is taken away."""
        volume = Volume.new("data", root)
        with volume.blocking as files:
            first = volume.blocking.commit()
            files.write_text("a", "1")
            second = volume.blocking.commit()
            run(first.tag("t"))
            assert {"t": first.locator} == run(volume.tags())
            run(volume.tag("t"))
            assert {"t": second.locator} == run(first.tags())
            assert second == run(Volume.at(f"{root}#data@t"))
            run(volume.untag("t"))
            assert {} == run(volume.tags())
            with pytest.raises(NoSuchVersion):
                run(volume.untag("t"))
            with pytest.raises(NoSuchVersion):
                run(volume.tag("t", "01ARZ3NDEKTSV4RRFFQ69G5FAV"))

    def test_a_fork_goes_back_before_it_was_one(self, root: str) -> None:
        """Versions of before the fork are its own past: they can be restored by their id."""
        volume = Volume.new("data", root)
        with volume.blocking as files:
            files.write_text("a", "old")
            first = volume.blocking.commit()
            files.write_text("a", "new")
            fork = volume.blocking.commit().blocking.fork("fork")
        with fork.blocking as theirs:
            theirs.write_text("b", "1")
            fork.blocking.commit()
            run(fork.restore(first.id))
            assert ["a"] == theirs.listdir()
            assert "old" == theirs.read_text("a")

    def test_restoring_keeps_what_was_uncommitted_in_the_log(self, root: str) -> None:
        """The state before going back is a version, too."""
        volume = Volume.new("data", root)
        with volume.blocking as files:
            first = volume.blocking.commit()
            files.write_text("a", "young")
            back = run(volume.restore(first, message="back"))
            assert ("back", []) == (back.message, files.listdir())
            assert "young" == run(volume.log())[1].version.files.read_text("a")


class TestFinding:
    """Locators and addresses."""

    def test_a_locator_verifies(self, root: str) -> None:
        """A locator gives the same version, and one of other bytes is refused."""
        with (volume := Volume.new("data", root)).blocking:
            version = volume.blocking.commit("m")
        locator = version.locator or ""
        assert version == run(Volume.from_locator(locator)) == run(ROVolume.from_locator(locator))
        with pytest.raises(CorruptManifest, match="digest"):
            run(Volume.from_locator(locator[:-1] + ("0" if locator[-1] != "0" else "1")))
        with pytest.raises(ConfigError, match="no locator"):
            run(Volume.from_locator(f"{root}#data"))
        with pytest.raises(NoSuchVolume):
            run(Volume.at(f"{root}#nobody"))

    def test_another_writer_is_named(self, root: str) -> None:
        """Merging into a volume that somebody else writes names the holder."""
        from stowstore.versions.lease import Lease
        from stowstore.volumes.registry import registry

        with (volume := Volume.new("data", root)).blocking:
            version = volume.blocking.commit()
        found = registry.root(root)
        lease = Lease(found.store, found.lease_reference("data"))
        try:
            with pytest.raises(LeaseHeld, match="process"):
                run(volume.restore(version))
        finally:
            lease.release()
