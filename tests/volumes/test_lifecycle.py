"""The life of a volume: declared, opened, committed, forked, moved, finalized."""

from __future__ import annotations

import asyncio
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from datastore.errors import ConfigError, InvalidReference
from stowstore import ROVolume, RWVolume, Volume
from stowstore.versions.errors import NoSuchVersion, NotCommitted, RootInUse, VolumeError
from stowstore.volumes import reset_producer, set_producer
from stowstore.volumes.registry import registry


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


class TestDeclaring:
    """`Volume.new` and `Volume.empty` touch no store."""

    def test_names_are_made_up(self, root: str) -> None:
        """Without a name each volume gets one of its own."""
        assert Volume.new(bucket=root).name != Volume.new(bucket=root).name

    def test_the_bucket_is_the_users(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without a bucket it is that of the environment, else a directory of the user's."""
        assert f"file://{tmp_path}/home-data/stowstore/volumes" == Volume.new().bucket
        monkeypatch.setenv("STOWSTORE_VOLUME_ROOT", "s3://team/volumes/")
        assert "s3://team/volumes" == Volume.empty("x").bucket

    def test_a_volume_works_in_the_default_bucket(self, tmp_path: Path) -> None:
        """The user's own directory is made when it is needed."""
        with (volume := Volume.new("x")).blocking as files:
            files.write_text("a", "1")
            assert (volume.blocking.commit().locator or "").startswith(f"file://{tmp_path}/home-data/")

    @pytest.mark.parametrize("variable", ["STOWSTORE_VOLUME_METADATA_STORE", "UNION_VOLUME_METADATA_STORE"])
    def test_the_metadata_store_is_chosen_once(self, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The kind of metadata store comes from the argument, the environment, or is sqlite, and stays."""
        assert "sqlite" == Volume.new().metadata_store_type
        monkeypatch.setenv(variable, "memory")
        volume = Volume.new()
        assert "redis" == Volume.new(metadata_store_type="redis").metadata_store_type
        monkeypatch.delenv(variable)
        assert "memory" == volume.metadata_store_type
        with pytest.raises(ConfigError, match="redis"):
            Volume.new(metadata_store_type="rediss")

    def test_the_region_is_pinned_or_found_when_opened(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A region given is part of the volume; one of the environment is not."""
        monkeypatch.setenv("AWS_REGION", "eu-central-1")
        assert Volume.new(bucket="s3://b/p").region is None
        assert "us-west-2" == Volume.new(bucket="s3://b/p", region="us-west-2").region
        with pytest.raises(ConfigError, match="region"):
            Volume.new(bucket="mem://c/p", region="us-west-2")

    @pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 101])
    def test_bad_names_are_refused(self, name: str, root: str) -> None:
        """A name that cannot be one is refused at once."""
        with pytest.raises(InvalidReference, match="name"):
            Volume.empty(name, root)


class TestOpening:
    """`open` bootstraps, recovers and refuses."""

    def test_it_refuses_a_prefix_with_something_else(self, tmp_path: Path) -> None:
        """A root is never made among other people's files."""
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "file").write_text("mine")
        with pytest.raises(RootInUse, match="not empty"):
            run(Volume.empty("x", f"file://{tmp_path}/taken").open())
        assert ["file"] == os.listdir(tmp_path / "taken")

    def test_it_refuses_the_name_of_a_volume(self, root: str) -> None:
        """A new volume does not take the name of another one, and the hint says how to go on with that."""
        first = Volume.new("data", root)
        with first.blocking:
            first.blocking.commit()
        registry.start_over()
        with pytest.raises(RootInUse, match=r"Volume\.at"):
            run(Volume.empty("data", root).open())
        again = run(Volume.at(f"{root}#data"))
        assert isinstance(again, RWVolume)
        with again.blocking:
            pass

    @pytest.mark.parametrize("method", ["commit", "finalize"])
    def test_a_closed_volume_says_so(self, root: str, method: str) -> None:
        """What needs an open volume says what became of it."""
        volume = Volume.new("data", root)
        with pytest.raises(VolumeError, match="was not opened"):
            run(getattr(volume, method)())
        run(volume.open())
        run(volume.close())
        run(volume.close())
        with pytest.raises(VolumeError, match="was closed"):
            run(getattr(volume, method)())
        with pytest.raises(VolumeError, match="was closed"):
            volume.files.listdir()

    def test_files_end_with_the_session(self, root: str) -> None:
        """What was opened in a volume is of no use once it is closed; its loss is told."""
        volume = Volume.new("data", root)
        files = run(volume.open())
        file = files.open("a", "wb", 0)
        run(volume.close())
        with pytest.raises(VolumeError, match="was closed"):
            file.write(b"1")
        file.close()
        with pytest.raises(VolumeError, match="was closed"):
            files.stat("a")

    def test_opening_again_gives_the_same(self, root: str, tmp_path: Path) -> None:
        """A volume is open once in a process; other options are refused."""
        volume = Volume.new("data", root)
        files = run(volume.open(meta_dir=tmp_path / "m", cache_dir=tmp_path / "c"))
        assert files is run(volume.open())
        assert files is run(volume.open(meta_dir=tmp_path / "m", cache_dir=tmp_path / "c"))
        with pytest.raises(VolumeError, match="other options"):
            run(volume.open(meta_dir=tmp_path / "elsewhere"))

    def test_directories_are_where_they_are_said_to_be(self, tmp_path: Path) -> None:
        """The journal is in `meta_dir`, staged data in `cache_dir`; else below the user's cache directory."""
        volume = Volume.new("data", f"file://{tmp_path}/root")
        run(volume.open(meta_dir=tmp_path / "m", cache_dir=str(tmp_path / "c")))
        volume.files.write_bytes("a", b"1")
        volume.files.fsync()
        assert (tmp_path / "m" / "journal.sqlite").exists()
        assert any((tmp_path / "c" / "staging").iterdir())
        assert not (tmp_path / "home-cache").exists()
        run(volume.close())
        run(Volume.new("other", f"file://{tmp_path}/root").open())
        assert 1 == len(list((tmp_path / "home-cache" / "stowstore" / "volumes").glob("other-*/meta/journal.sqlite")))

    @pytest.mark.parametrize("kind", ["sqlite", "redis"])
    def test_what_is_not_committed_is_there_again(self, tmp_path: Path, kind: str) -> None:
        """Closing leaves the journal, and the next open takes it up; discarding does not."""
        volume = Volume.new("data", f"file://{tmp_path}/root", metadata_store_type=kind)
        with volume.blocking as files:
            files.write_text("a", "kept")
        with volume.blocking as files:
            assert "kept" == files.read_text("a")
            run(volume.close(discard=True))
        with volume.blocking as files:
            assert [] == files.listdir()

    def test_read_only_takes_no_lease(self, root: str) -> None:
        """With `read_only` the newest version is read, beside the one who writes."""
        volume = Volume.new("data", root)
        with pytest.raises(NotCommitted):
            run(volume.open(read_only=True))
        with volume.blocking as files:
            files.write_text("a", "1")
            volume.blocking.commit()
        files = run(volume.open(read_only=True))
        assert files.read_only
        assert "1" == files.read_text("a")
        with pytest.raises(OSError, match="Read-only") as caught:
            files.write_text("a", "2")
        assert "a" == caught.value.filename
        with pytest.raises(VolumeError, match="reading only"):
            run(volume.commit())

    @pytest.mark.parametrize(
        ("options", "words"),
        [({"max_uploads": 0}, "max_uploads"), ({"upload_delay": "soon"}, "soon"), ({"upload_delay": -1.0}, "-1")],
    )
    def test_bad_options_are_refused(self, root: str, options: dict[str, Any], words: str) -> None:
        """An option that cannot be is refused by name and value."""
        with pytest.raises(ConfigError, match=words):
            run(Volume.new("x", root).open(**options))

    def test_options_reach_the_session(self, root: str) -> None:
        """Delays are durations in words or seconds, and uploads are bounded as asked."""
        volume = Volume.new("data", root)
        run(volume.open(upload_delay="1m30s", max_uploads=3))
        opened = registry.require(volume._key())
        assert (90.0, 3) == (opened.options.upload_delay, opened.options.max_uploads)
        assert (90.0, 3) == (opened.session._options.upload_delay, opened.session._options.max_uploads)

    def test_an_encrypted_root_needs_its_key(self, root: str) -> None:
        """A key given for a new root encrypts it; without it nobody opens a volume there."""
        Volume.configure(root, key=b"k" * 32)
        volume = Volume.new("data", root)
        with volume.blocking as files:
            files.write_bytes("a", b"secret" * 100)
            version = volume.blocking.commit()
        assert b"secret" * 100 == version.files.read_bytes("a")
        version.blocking.close()
        Volume.configure(root)
        with pytest.raises(PermissionError, match="encrypted"):
            version.files.read_bytes("a")


class TestCommitting:
    """`commit` publishes and goes on, `finalize` ends."""

    def test_commits_make_a_line(self, root: str) -> None:
        """Each commit is a version of its own, readable at any time, and the volume stays writable."""
        volume = Volume.new("data", root)
        versions = []
        with volume.blocking as files:
            assert volume.locator is None
            for epoch in range(3):
                files.write_text("weights", str(epoch))
                versions.append(run(volume.commit(message=f"epoch {epoch}")))
                assert versions[-1].locator == volume.locator
        assert ["0", "1", "2"] == [version.files.read_text("weights") for version in versions]
        assert ["epoch 2", "epoch 1", "epoch 0"] == [entry.message for entry in run(versions[-1].log())]
        assert [1, 1, 0] == [len(entry.parents) for entry in run(volume.log())]
        assert ["epoch 2"] == [entry.message for entry in run(volume.log(limit=1))]

    def test_statistics_are_part_of_the_version(self, root: str) -> None:
        """A version says how large it is."""
        volume = Volume.new("data", root)
        with volume.blocking as files:
            files.write_bytes("d", os.urandom(5000))
            files.makedirs("a/b")
            version = volume.blocking.commit("m")
            assert (5000, 4, "m") == (version.used_bytes, version.inode_count, version.message)
            assert (version.index_bytes or 0) > 0
            files.write_bytes("e", b"123")
            usage = run(volume.usage())
            assert (5003, 5, 1) == (usage.used_bytes, usage.inode_count, usage.versions)
            assert usage.uncommitted_inodes == 2
            assert usage.root_data_bytes >= 5000

    def test_an_unchanged_volume_commits_to_the_same_version(self, root: str) -> None:
        """Nothing changed is no new version."""
        with (volume := Volume.new("data", root)).blocking:
            assert volume.blocking.commit("one") == volume.blocking.commit("two")

    def test_finalize_publishes_and_closes(self, root: str) -> None:
        """After `finalize` the version is there, the volume is closed and says what became of it."""
        volume = Volume.new("data", root)
        run(volume.open())
        volume.files.write_text("a", "1")
        version = run(volume.finalize(message="done", timeout=60))
        assert ("done", "1") == (version.message, version.files.read_text("a"))
        assert version.locator == volume.locator
        with pytest.raises(VolumeError, match="was finalized as"):
            volume.files.listdir()

    def test_meta_dir_commits_what_a_journal_holds(self, tmp_path: Path) -> None:
        """A volume that is not open is committed from the journal that is named, and another one is refused."""
        volume = Volume.new("data", f"file://{tmp_path}/root")
        run(volume.open(meta_dir=tmp_path / "m"))
        volume.files.write_text("a", "1")
        with pytest.raises(VolumeError, match="journal in"):
            run(volume.commit(meta_dir=tmp_path / "other"))
        run(volume.close())
        assert "1" == run(volume.commit(meta_dir=tmp_path / "m")).files.read_text("a")
        assert registry.find(volume._key()) is None

    def test_the_old_spelling_warns(self, root: str) -> None:
        """`Volume.commit` still drains, closes and publishes, and says what to use."""
        volume = Volume.empty("data", root)
        assert isinstance(volume, RWVolume)
        run(volume.open())
        with pytest.warns(DeprecationWarning, match="finalize"):
            version = run(Volume.commit(volume, message="old"))
        assert ("old", ROVolume) == (version.message, type(version))
        assert registry.find(volume._key()) is None
        with pytest.warns(DeprecationWarning, match="version"):
            assert version == run(version.commit())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            run(volume.open())
            run(volume.commit())

    def test_versions_know_who_made_them(self, root: str) -> None:
        """The producer of a context is that of its versions, and of their successors the parent's."""
        volume = Volume.new("data", root)
        with volume.blocking as files:
            token = set_producer({"run": "r1"})
            first = run(volume.commit())
            reset_producer(token)
            token = set_producer(lambda: {"run": "r2"})
            files.write_text("a", "1")
            second = run(volume.commit())
            reset_producer(token)
        assert ({"run": "r1"}, None) == (first.produced_by, first.parent_produced_by)
        assert ({"run": "r2"}, {"run": "r1"}) == (second.produced_by, second.parent_produced_by)
        fork = run(second.fork())
        assert (None, {"run": "r2"}) == (fork.produced_by, fork.parent_produced_by)
        with pytest.raises(ConfigError, match="object"):
            set_producer(object())


class TestForking:
    """Forks from both kinds."""

    def test_a_fork_of_a_version_goes_its_own_way(self, root: str) -> None:
        """A fork begins with the version's files, and neither side sees what the other does."""
        volume = Volume.new("data", root)
        with volume.blocking as files:
            files.write_text("a", "base")
            version = volume.blocking.commit()
            fork = run(version.fork(name="b"))
            assert ("b", version.index, "sqlite") == (fork.name, fork.index, fork.metadata_store_type)
            with fork.blocking as theirs:
                theirs.write_text("a", "theirs")
                files.write_text("a", "ours")
                made = fork.blocking.commit()
            assert ("base", "ours", "theirs") == (
                version.files.read_text("a"),
                files.read_text("a"),
                made.files.read_text("a"),
            )
        assert ["b", "data"] == [entry.version.name for entry in run(made.log())]

    def test_a_fork_takes_what_is_uncommitted(self, root: str) -> None:
        """Both kinds of fork of a working copy have its present state; the working copy stays as it was."""
        volume = Volume.new("data", root)
        with volume.blocking as files:
            volume.blocking.commit()
            files.write_text("a", "young")
            branch = run(volume.fork("branch"))
            beside = run(volume.fork("beside", as_="ro"))
            assert isinstance(branch, RWVolume)
            assert isinstance(beside, ROVolume)
            assert "young" == beside.files.read_text("a")
            with branch.blocking as theirs:
                assert "young" == theirs.read_text("a")
            assert 1 == len(run(volume.log()))
            files.write_text("a", "older")
            assert "older" == volume.blocking.commit().files.read_text("a")

    def test_what_cannot_be_forked(self, root: str) -> None:
        """Taken names, nothing committed, versions that are gone and bad ways are refused."""
        volume = Volume.new("data", root)
        with volume.blocking:
            version = volume.blocking.commit()
            with pytest.raises(RootInUse, match="data"):
                run(version.fork("data"))
            with pytest.raises(RootInUse, match="data"):
                run(volume.fork("data"))
            with pytest.raises(ConfigError, match="both"):
                run(volume.fork("x", as_="both"))  # type: ignore[call-overload]
        with pytest.raises(NotCommitted):
            run(Volume.new("empty", root).fork("x"))
        registry.root(root).delete_version("data", version.id)
        with pytest.raises(NoSuchVersion):
            run(version.fork("late"))

    def test_a_fork_has_its_journal_where_it_was_said(self, tmp_path: Path) -> None:
        """`meta_dir` of a fork is where it is opened."""
        with (volume := Volume.new("data", f"file://{tmp_path}/root")).blocking:
            version = volume.blocking.commit()
        fork = run(version.fork("f", meta_dir=tmp_path / "f"))
        with fork.blocking:
            assert (tmp_path / "f" / "journal.sqlite").exists()


class TestMigrating:
    """`migrate_metadata_store_type` moves records, and nothing else."""

    @pytest.mark.parametrize(("old", "new"), [("sqlite", "redis"), ("redis", "sqlite")])
    def test_uncommitted_changes_move(self, tmp_path: Path, old: str, new: str) -> None:
        """The new store has what the old one had, numbers go on far away, and no pack is written."""
        volume = Volume.new("data", f"file://{tmp_path}/root", metadata_store_type=old)
        token = set_producer("before")
        with volume.blocking as files:
            files.write_text("a", "committed")
            before = volume.blocking.commit()
            files.write_text("b", "young")
            known = files.stat("b").st_ino
        reset_producer(token)
        packs = sorted((tmp_path / "root" / "packs").rglob("*"))
        moved = run(volume.migrate_metadata_store_type(new, new_meta_dir=tmp_path / "new"))
        assert packs == sorted((tmp_path / "root" / "packs").rglob("*"))
        assert (new, "data", volume.bucket) == (moved.metadata_store_type, moved.name, moved.bucket)
        assert ("before", before.index) == (moved.parent_produced_by, run(moved.log())[1].version.index)
        with pytest.raises(VolumeError, match=new):
            run(volume.open())
        with moved.blocking as files:
            assert ("committed", "young", known) == (files.read_text("a"), files.read_text("b"), files.stat("b").st_ino)
            files.write_text("c", "new")
            assert files.stat("c").st_ino > known + (1 << 32)
            assert "young" == moved.blocking.finalize().files.read_text("b")
        assert [] == list((tmp_path / "home-cache").rglob("journal.*"))

    def test_a_version_moves_without_being_the_newest(self, root: str) -> None:
        """A version's migration is a version beside it, and forks of it use the new store."""
        with (volume := Volume.new("data", root)).blocking as files:
            files.write_text("a", "1")
            version = volume.blocking.commit()
            moved = run(version.migrate_metadata_store_type("redis"))
            assert moved.index != volume.locator
        assert "redis" == run(moved.fork("f")).metadata_store_type
        assert "1" == moved.files.read_text("a")

    def test_what_cannot_be_moved(self, tmp_path: Path) -> None:
        """The same store, an unknown one, an open volume, and changes that memory would lose are refused."""
        volume = Volume.new("data", f"file://{tmp_path}/root")
        with volume.blocking as files:
            files.write_text("a", "young")
            with pytest.raises(VolumeError, match="open"):
                run(volume.migrate_metadata_store_type("redis"))
        for wrong in ("sqlite", "sqlit"):
            with pytest.raises(ConfigError, match="sqlite"):
                run(volume.migrate_metadata_store_type(wrong))
        with pytest.raises(VolumeError, match="commit first"):
            run(volume.migrate_metadata_store_type("memory"))
        with volume.blocking as files:
            assert "young" == files.read_text("a")

    def test_a_volume_without_versions_moves_too(self, tmp_path: Path) -> None:
        """Only the journal moves, and there is no version yet."""
        volume = Volume.new("data", f"file://{tmp_path}/root")
        with volume.blocking as files:
            files.write_text("a", "young")
        moved = run(volume.migrate_metadata_store_type("redis"))
        assert moved.index is None
        with moved.blocking as files:
            assert "young" == files.read_text("a")
