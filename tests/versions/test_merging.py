"""Forks and merges through sessions, against dictionaries of paths."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datastore import DataReference, MemoryStore
from stowstore.index.snapshot import Snapshot
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import ROOT
from stowstore.transfer.paths import attributes_or_none, entries, find, make_directories
from stowstore.versions.changes import ChangeKind, path_changes
from stowstore.versions.check import check
from stowstore.versions.errors import LeaseHeld, MergeConflict, NoSuchVersion, Unrelated
from stowstore.versions.history import common_ancestor, walk_history
from stowstore.versions.manifest import Manifest
from stowstore.versions.merging import Conflicts
from stowstore.versions.options import CommitOptions, SessionOptions, chunk_store
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from stowstore.versions.successors import merge_version, restore_version

DIRECTORIES = ("", "a", "b", "a/deep")
PATHS = [f"{directory}/{name}".strip("/") for directory in DIRECTORIES for name in ("x", "y", "z")]
#: One side's work: contents to write, None to remove.
WORK = st.dictionaries(st.sampled_from(PATHS), st.one_of(st.none(), st.binary(min_size=1, max_size=40)), max_size=8)


@pytest.fixture
def root() -> Root:
    return Root.create(MemoryStore(), DataReference("mem://main/root"))


def apply(files: FileSystem, work: dict[str, bytes | None]) -> None:
    for path, content in work.items():
        directory, _, name = path.rpartition("/")
        parent = make_directories(files, directory)
        if attributes_or_none(files, parent, name.encode()) is not None:
            files.unlink(parent, name.encode(), ROOT)
        if content is not None:
            _, handle = files.create(parent, name.encode(), 0o644, os.O_WRONLY, ROOT)
            files.write(handle, 0, content, ROOT)
            files.release(handle)


def harvest(session: Session) -> dict[str, bytes]:
    """Every file of a session, and that link counts and counters are what the files say."""
    found: dict[str, bytes] = {}
    waiting, inodes, used = [("", 1)], 1, 0
    while waiting:
        path, ino = waiting.pop()
        subdirectories = 0
        for entry in entries(session.files, ino):
            assert entry.attributes is not None
            below = f"{path}/{entry.name.decode()}".strip("/")
            inodes += 1
            if entry.kind == 0o040000:
                subdirectories += 1
                waiting.append((below, entry.ino))
                continue
            assert 1 == entry.attributes.nlink
            handle = session.files.open(entry.ino, os.O_RDONLY, ROOT)
            found[below] = session.files.read(handle, 0, 1 << 20)
            session.files.release(handle)
            used += len(found[below])
        assert 2 + subdirectories == session.files.getattr(ino).nlink
    assert session.base is not None
    assert (inodes, used) == (session.base.statistics.inode_count, session.base.statistics.used_bytes)
    return found


def commit(root: Root, volume: str, work: dict[str, bytes | None], message: str | None = None) -> Manifest:
    with Session.write(root, volume) as session:
        apply(session.files, work)
        return session.commit(CommitOptions(message=message))


def fork(root: Root, volume: str, name: str) -> None:
    with Session.write(root, volume) as session:
        session.branch(name)


def content(root: Root, volume: str) -> dict[str, bytes]:
    with Session.read(root, root.head(volume)) as session:
        return harvest(session)


def merged(root: Root, conflicts: Conflicts) -> tuple[str, ...]:
    with chunk_store(root, SessionOptions()) as chunks:
        return merge_version(root, chunks, "ours", root.head("theirs"), conflicts=conflicts).conflicts


def refusal(root: Root) -> set[str] | None:
    """The paths for which a merge without policy is refused, or None when it was made."""
    try:
        merged(root, Conflicts.FAIL)
    except MergeConflict as error:
        return set(error.paths)
    return None


def start(root: Root, base: dict[str, bytes | None]) -> None:
    commit(root, "ours", {"keep": b"kept", **{f"{name}/.d": b"." for name in ("a", "b", "a/deep")}, **base})
    fork(root, "ours", "theirs")


@given(
    base=st.dictionaries(st.sampled_from(PATHS), st.binary(min_size=1, max_size=40), max_size=8),
    ours=WORK,
    theirs=WORK,
    policy=st.sampled_from(Conflicts),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_merge_of_two_forks(
    base: dict[str, bytes], ours: dict[str, bytes | None], theirs: dict[str, bytes | None], policy: Conflicts
) -> None:
    """What one side changed is taken, what both changed differently is decided by the policy or refused, by path."""
    root = Root.create(MemoryStore(), DataReference("mem://main/root"))
    start(root, dict(base))
    commit(root, "ours", ours)
    commit(root, "theirs", theirs)
    before = content(root, "ours")
    mine = {path: value for path, value in ours.items() if base.get(path) != value}
    other = {path: value for path, value in theirs.items() if base.get(path) != value}
    # Writing a file anew is a change even when the bytes are the same, so equal work may be told as a conflict.
    touched = {path for path in {*ours} & {*theirs} if not (ours[path] is None and theirs[path] is None)}
    real = {path for path in {*mine} & {*other} if mine[path] != other[path]}

    if policy is Conflicts.FAIL:
        refused = refusal(root)
        if refused is not None:
            assert real <= refused <= touched
            assert before == content(root, "ours")
            return
        assert not real
        policy = Conflicts.OURS
    else:
        assert real <= set(merged(root, policy)) <= touched
    wanted = dict(before)
    for path, value in other.items():
        if path not in real or policy is Conflicts.THEIRS:
            if value is None:
                wanted.pop(path, None)
            else:
                wanted[path] = value
    assert wanted == content(root, "ours")


@pytest.mark.parametrize("policy", Conflicts)
def test_directories_moved_into_each_other_stay_in_reach(root: Root, policy: Conflicts) -> None:
    """One side moves a into b, the other b into a: both together nobody could enter, so it is a conflict."""
    commit(root, "ours", {"a/x": b"x", "b/y": b"y"})
    fork(root, "ours", "theirs")
    _move(root, "ours", b"a", b"b")
    _move(root, "theirs", b"b", b"a")
    before = content(root, "ours")
    if policy is Conflicts.FAIL:
        assert refusal(root) == {"b"}
        assert before == content(root, "ours")
        return
    assert merged(root, policy) == ("b",)
    wanted = {"a/b/y": b"y", "a/x": b"x"} if policy is Conflicts.THEIRS else {"b/y": b"y", "b/a/x": b"x"}
    assert wanted == content(root, "ours")
    _require_whole(root)


@pytest.mark.parametrize("seed", [*range(40), 166, 663])
def test_whatever_directories_are_moved_every_file_stays_in_reach(seed: int) -> None:
    """Both sides move directories about at random; the merged version has every file once, and is whole."""
    chance = random.Random(seed)
    root = Root.create(MemoryStore(), DataReference("mem://main/root"))
    names = ["a", "b", "c", "d", "e", "f"]
    places = ["", *(f"{name}/" for name in names[:3])]
    made = {name: chance.choice(places[: min(at, 3) + 1]) for at, name in enumerate(names)}
    with Session.write(root, "ours") as session:
        paths: dict[str, str] = {}
        for name, place in made.items():
            paths[name] = f"{paths.get(place.strip('/'), '')}/{name}"
            apply(session.files, {f"{paths[name]}/file".strip("/"): name.encode()})
        session.commit()
    fork(root, "ours", "theirs")
    for volume in ("ours", "theirs"):
        for _ in range(chance.randrange(1, 5)):
            _move(root, volume, *(name.encode() for name in chance.sample(names, 2)))
    policy = chance.choice([Conflicts.OURS, Conflicts.THEIRS])
    merged(root, policy)
    assert sorted(content(root, "ours").values()) == [name.encode() for name in names]
    _require_whole(root)


def test_forks_of_any_version_number_their_files_apart(root: Root) -> None:
    """A fork of a restored version, and of a fork, makes files that are not mistaken for those of its origin."""
    first = commit(root, "origin", {"keep": b"kept"})
    commit(root, "origin", {"keep": b"changed"})
    with chunk_store(root, SessionOptions()) as chunks:
        restore_version(root, chunks, "origin", first.name)
    volumes = ["origin", *(f"fork-{number}" for number in range(6)), "ours", "theirs"]
    for before, after in pairwise(volumes):
        fork(root, before, after)
        commit(root, before, {before: before.encode()})
        if after != "theirs":
            commit(root, after, {f"{after}.own": after.encode()})
            with chunk_store(root, SessionOptions()) as chunks:
                merged = merge_version(root, chunks, after, root.head(before))
            assert not merged.conflicts
    commit(root, "theirs", {"theirs": b"theirs"})
    with chunk_store(root, SessionOptions()) as chunks:
        merge_version(root, chunks, "ours", root.head("theirs"))
    found = content(root, "ours")
    assert found.pop("keep") == b"kept"
    assert found == {name: name.partition(".")[0].encode() for name in found}
    assert {name.partition(".")[0] for name in found} == set(volumes)
    _require_whole(root)


def test_merging_drops_directories_deeper_than_python_calls(root: Root) -> None:
    """A tree that gives way to a file of its name goes whole, however deep it is."""
    commit(root, "ours", {"kept": b"kept"})
    fork(root, "ours", "theirs")
    commit(root, "ours", {"/".join(["n"] * 1500): b"deep"})
    commit(root, "theirs", {"n": b"file"})
    assert merged(root, Conflicts.THEIRS) == ("n",)
    assert content(root, "ours") == {"kept": b"kept", "n": b"file"}
    _require_whole(root)


def _move(root: Root, volume: str, name: bytes, into: bytes) -> None:
    """Moves a directory of a name, wherever it lies, into another; not where that is inside of it."""
    with Session.write(root, volume) as session:
        found: dict[bytes, tuple[int, int]] = {}
        waiting = [1]
        while waiting:
            parent = waiting.pop()
            for entry in entries(session.files, parent):
                if entry.kind == 0o040000:
                    found[entry.name] = (parent, entry.ino)
                    waiting.append(entry.ino)
        # EINVAL: it would come to lie in itself.
        with suppress(OSError):
            session.files.rename(found[name][0], name, found[into][1], name, ROOT)
        session.commit()


def _require_whole(root: Root) -> None:
    with chunk_store(root, SessionOptions()) as chunks:
        report = check(root, chunks, "ours", "head")
    assert report.is_whole, "\n".join(map(str, report.findings))


def test_directories_made_on_both_sides_are_joined(root: Root) -> None:
    """A directory both forks made holds what either put there; only files of one name are in conflict."""
    start(root, {})
    commit(root, "ours", {"out/a": b"1", "out/same": b"ours", "out/sub/x": b"x"})
    commit(root, "theirs", {"out/b": b"2", "out/same": b"theirs", "out/sub/y": b"y", "out/more/z": b"z"})

    with pytest.raises(MergeConflict, match="both sides changed out/same") as caught:
        merged(root, Conflicts.FAIL)
    assert ("out/same",) == caught.value.paths
    assert ("out/same",) == merged(root, Conflicts.THEIRS)
    found = {path: value for path, value in content(root, "ours").items() if path.startswith("out")}
    assert {
        "out/a": b"1",
        "out/b": b"2",
        "out/same": b"theirs",
        "out/sub/x": b"x",
        "out/sub/y": b"y",
        "out/more/z": b"z",
    } == found


def test_merged_version_has_both_parents_and_can_be_merged_again(root: Root) -> None:
    """After a merge the other side's past is ours, so merging it again takes nothing."""
    start(root, {})
    commit(root, "theirs", {"x": b"1"})
    commit(root, "ours", {"y": b"2"})
    assert () == merged(root, Conflicts.FAIL)
    head = root.head("ours")

    assert 2 == len(root.load(head).parents)
    assert () == merged(root, Conflicts.FAIL)
    assert head == root.head("ours")
    commit(root, "theirs", {"z": b"3"})
    assert () == merged(root, Conflicts.FAIL)
    assert {"x", "y", "z"} <= set(content(root, "ours"))


def test_unrelated_volumes_are_not_merged(root: Root) -> None:
    """Two volumes without a common past cannot be merged, and say so."""
    commit(root, "ours", {"x": b"1"})
    commit(root, "theirs", {"x": b"1"})

    with pytest.raises(Unrelated, match="no common ancestor"):
        merged(root, Conflicts.OURS)


def test_merge_waits_for_no_writer(root: Root) -> None:
    """A volume that is being written is not merged into behind its writer's back."""
    start(root, {})
    commit(root, "theirs", {"x": b"1"})

    with Session.write(root, "ours"), pytest.raises(LeaseHeld):
        merged(root, Conflicts.FAIL)


def test_restore_goes_back_and_keeps_the_history(root: Root) -> None:
    """Restoring makes a new version equal to an old one; the ones in between stay, inode numbers are not reused."""
    first = commit(root, "ours", {"x": b"1"}, "one")
    commit(root, "ours", {"x": b"2", "y": b"2"}, "two")
    with chunk_store(root, SessionOptions()) as chunks:
        restored = restore_version(root, chunks, "ours", first.name)

    assert {"x": b"1"} == content(root, "ours")
    assert [restored.id, "two", "one"] == [
        restored.id if manifest.id == restored.id else manifest.message
        for manifest in walk_history(root, root.head("ours"))
    ]
    numbers = {_ino(root, "ours", "x")}
    commit(root, "ours", {"z": b"3"})
    assert _ino(root, "ours", "z") not in {*numbers, 3, 4}


def test_common_ancestor_is_the_newest(root: Root) -> None:
    """Of several common ancestors the newest is found, without reading what is older."""
    start(root, {})
    base = root.head("ours")
    assert base == common_ancestor(root, root.head("ours"), root.head("theirs"))
    commit(root, "ours", {"x": b"1"})
    assert base == common_ancestor(root, root.head("ours"), root.head("theirs"))
    commit(root, "theirs", {"y": b"1"})
    assert base == common_ancestor(root, root.head("ours"), root.head("theirs"))


def test_differences_by_path(root: Root) -> None:
    """What was added, removed, rewritten, renamed and replaced is told by path."""
    old = commit(root, "ours", {"gone": b"1", "a/edited": b"1", "renamed": b"1", "kind": b"1", "same": b"1"})
    with Session.write(root, "ours") as session:
        files = session.files
        apply(files, {"gone": None, "a/new": b"2"})
        handle = files.open(find(files, "a/edited").ino, os.O_WRONLY, ROOT)
        files.write(handle, 0, b"2", ROOT)
        files.release(handle)
        files.rename(1, b"renamed", 1, b"moved", ROOT)
        files.unlink(1, b"kind", ROOT)
        files.mkdir(1, b"kind", 0o755, ROOT)
        new = session.commit()
    with Session.read(root, old.name) as before, Session.read(root, new.name) as after:
        changes = {change.path: change.kind for change in path_changes(before.files.snapshot, after.files.snapshot)}
        assert not list(path_changes(after.files.snapshot, after.files.snapshot))

    assert {
        "a/edited": ChangeKind.CONTENT,
        "a/new": ChangeKind.ADDED,
        "gone": ChangeKind.REMOVED,
        "kind": ChangeKind.REPLACED,
        "moved": ChangeKind.ADDED,
        "renamed": ChangeKind.REMOVED,
    } == changes


def test_differences_are_of_what_stands_at_a_path(root: Root) -> None:
    """What is written beside its place and renamed over it differs by what it holds, as editors and git save files."""
    anew = {"edited": b"1", "grown": b"1", "same": b"1", "moved over": b"1"}
    old = commit(root, "ours", {**anew, "origin": b"22", "directory/kept": b"1", "directory/lost": b"1", "link": b"1"})
    with Session.write(root, "ours") as session:
        files = session.files
        for name, content in (("edited", b"2"), ("grown", b"123"), ("same", b"1")):
            apply(files, {"draft": content})
            files.rename(1, b"draft", 1, name.encode(), ROOT)
        files.rename(1, b"origin", 1, b"moved over", ROOT)
        apply(files, {"directory/kept": None, "directory/lost": None})
        files.rmdir(1, b"directory", ROOT)
        apply(files, {"directory/kept": b"2"})
        files.unlink(1, b"link", ROOT)
        files.symlink(1, b"link", b"edited", ROOT)
        new = session.commit()
    with Session.read(root, old.name) as before, Session.read(root, new.name) as after:
        sides = before.files.snapshot, after.files.snapshot
        forwards = {change.path: change.kind for change in path_changes(*sides)}
        backwards = {change.path: change.kind for change in path_changes(*reversed(sides))}

    same = {
        "directory/kept": ChangeKind.CONTENT,
        "edited": ChangeKind.CONTENT,
        "grown": ChangeKind.CONTENT,
        "link": ChangeKind.REPLACED,
        "moved over": ChangeKind.CONTENT,
        "same": ChangeKind.ATTRIBUTES,
    }
    assert {**same, "directory/lost": ChangeKind.REMOVED, "origin": ChangeKind.REMOVED} == forwards
    assert {**same, "directory/lost": ChangeKind.ADDED, "origin": ChangeKind.ADDED} == backwards


def test_differences_look_through_each_directory_once(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths of changed files are found by one look into each directory above them, however many changed there."""
    paths = [f"top/{number}/deep/{name}" for number in range(5) for name in "xyz"]
    old = commit(root, "ours", dict.fromkeys(paths, b"1"))
    with Session.write(root, "ours") as session:
        for path in paths:
            handle = session.files.open(find(session.files, path).ino, os.O_WRONLY, ROOT)
            session.files.write(handle, 0, b"2", ROOT)
            session.files.release(handle)
        new = session.commit()
    looks: Counter[bytes] = Counter()
    having = Snapshot.having

    def counted(
        self: Snapshot, values: AbstractSet[bytes], start: bytes = b"", stop: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        looks[start] += 1
        return having(self, values, start, stop)

    monkeypatch.setattr(Snapshot, "having", counted)
    with Session.read(root, old.name) as before, Session.read(root, new.name) as after:
        changes = {change.path: change.kind for change in path_changes(before.files.snapshot, after.files.snapshot)}

    assert dict.fromkeys(paths, ChangeKind.CONTENT) == changes
    # The five directories of files, the five they lie in, the one above, and the root.
    assert 12 == len(looks)
    assert {1} == set(looks.values())


def test_pruned_ancestors_end_the_history(root: Root) -> None:
    """A history whose beginning was pruned ends there, and a locator of a pruned version says so."""
    first = commit(root, "ours", {"x": b"1"})
    second = commit(root, "ours", {"x": b"2"})
    root.delete_version("ours", first.id)

    assert [second.id] == [manifest.id for manifest in walk_history(root, second.name)]
    with pytest.raises(NoSuchVersion, match="may have been pruned"):
        root.load(first.name)


def _ino(root: Root, volume: str, path: str) -> int:
    with Session.read(root, root.head(volume)) as session:
        assert isinstance(session.files.snapshot, Snapshot)
        return find(session.files, path).ino


def test_sessions_of_one_volume_in_one_directory(tmp_path: Path, root: Root) -> None:
    """A session that was not committed is taken up by the next one on the same directories."""
    options = SessionOptions(meta_dir=tmp_path / "meta", cache_dir=tmp_path / "cache")
    with Session.write(root, "ours", options) as session:
        apply(session.files, {"x": b"uncommitted"})
    with Session.write(root, "ours", options) as session:
        session.commit()

    assert {"x": b"uncommitted"} == content(root, "ours")
