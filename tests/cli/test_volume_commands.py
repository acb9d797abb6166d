"""Volumes from a shell: what each verb does to a root on local disk, what it prints, and its exit status."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from attrs import frozen

from stowstore.cli.app import main
from stowstore.cli.volume import _VolumeGroup
from stowstore.cli.volume_staging import staging_directory
from stowstore.config import ContainerPolicy
from stowstore.namespace.permissions import ROOT
from stowstore.store import open_store
from stowstore.versions.address import open_root, open_root_store
from stowstore.versions.options import SessionOptions
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from tests.servers import Server
from tests.transfer.trees import require_attributes


@frozen
class Answer:
    """What a command has answered."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Volume = Callable[..., Answer]


@pytest.fixture
def root(tmp_path: Path) -> str:
    """The URL of a root that does not exist yet."""
    return f"file://{tmp_path}/root"


@pytest.fixture
def volume(capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch) -> Volume:
    """Runs ``stowstore volume`` in this process."""
    for name in os.environ:
        if name.startswith("STOWSTORE_"):
            monkeypatch.delenv(name)

    def run(*args: str) -> Answer:
        command = ["volume", *args]
        monkeypatch.setattr(sys, "argv", ["stowstore", *command])
        capsysbinary.readouterr()
        with pytest.raises(SystemExit) as left:
            main(command)
        out, err = capsysbinary.readouterr()
        assert isinstance(left.value.code, int)
        return Answer(left.value.code, out.decode(), err.decode())

    return run


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory with a little of everything."""
    tree = tmp_path / "tree"
    (tree / "data").mkdir(parents=True)
    (tree / "readme.txt").write_text("hello\n", encoding="utf-8")
    (tree / "data" / "large.bin").write_bytes(os.urandom(200_000))
    (tree / "data" / "ü.txt").write_text("umlaut\n", encoding="utf-8")
    (tree / "link").symlink_to("readme.txt")
    return tree


@pytest.fixture
def data(volume: Volume, root: str, tree: Path) -> str:
    """A volume with an empty version and one of the tree, tagged v1."""
    address = f"{root}#data"
    for args in (("create", address), ("import", str(tree), address, "-m", "first"), ("tag", address, "v1")):
        assert 0 == volume(*args).status
    return address


def _put(volume: Volume, tmp_path: Path, target: str, content: str) -> str:
    (tmp_path / "one").write_text(content, encoding="utf-8")
    answer = volume("cp", str(tmp_path / "one"), target, "-m", f"write {content}")
    assert 0 == answer.status, answer.err
    return answer.out.strip()


# -- creating and filling ----------------------------------------------------------------------------------------------


def test_create_list_and_show(volume: Volume, root: str) -> None:
    """A new volume has one empty version, is listed, and shows its limits and a locator that works."""
    made = volume("create", f"{root}#data", "--limit-bytes", "1GiB", "--limit-inodes", "100", "-m", "begin", "--json")
    assert 0 == made.status
    (row,) = volume("list", root, "--json").json
    assert ("data", made.json["version"], 1, 0, "begin") == tuple(
        row[name] for name in ("volume", "version", "inodes", "used_bytes", "message")
    )
    shown = volume("show", f"{root}#data", "--json").json
    assert (1 << 30, 100, [], False) == (
        shown["limit_bytes"],
        shown["limit_inodes"],
        shown["parents"],
        shown["encrypted"],
    )
    assert shown["locator"] == made.json["locator"]
    assert 0 == volume("ls", shown["locator"]).status


def test_import_and_export_round_trip(volume: Volume, data: str, tree: Path, tmp_path: Path) -> None:
    """What was imported is exported as it was, links and names included."""
    assert 0 == volume("export", f"{data}@v1", str(tmp_path / "out")).status
    assert _contents(tree) == _contents(tmp_path / "out")


def test_importing_again_takes_only_what_changed(volume: Volume, data: str, tree: Path) -> None:
    """Unchanged files are told as such and bring no new version of themselves."""
    (tree / "new.txt").write_text("new", encoding="utf-8")
    again = volume("import", str(tree), data, "--json").json
    assert (1, 4) == (again["files"], again["unchanged"])
    assert ["A new.txt"] == volume("diff", f"{data}@v1", "@head").lines


def test_tar_streams_go_in_and_out(volume: Volume, data: str) -> None:
    """A tar archive on standard input is imported below a path, and the export is one with the same members."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("a/b.txt")
        member.size = 3
        tar.addfile(member, io.BytesIO(b"abc"))

    def pipe(*args: str, given: bytes = b"") -> bytes:
        command = [sys.executable, "-m", "stowstore", "volume", *args]
        return subprocess.run(command, input=given, capture_output=True, check=True, timeout=60).stdout

    pipe("import", "-", f"{data}:/from/tar", given=archive.getvalue())
    assert "abc" == volume("cat", f"{data}:/from/tar/a/b.txt").out
    with tarfile.open(fileobj=io.BytesIO(pipe("export", f"{data}:/from", "-"))) as tar:
        assert ["tar", "tar/a", "tar/a/b.txt"] == tar.getnames()


def test_cp_keeps_content_mode_time_and_attributes_both_ways(volume: Volume, data: str, tmp_path: Path) -> None:
    """One file goes in under its own name or another, replaces what was there, and comes out the same."""
    source = tmp_path / "run.sh"
    source.write_text("#!/bin/sh\n", encoding="utf-8")
    source.chmod(0o750)
    require_attributes(tmp_path)
    os.setxattr(source, "user.binary", b"\xff\0")
    os.utime(source, ns=(1, 1_700_000_000_123_456_789))

    assert 0 == volume("cp", str(source), f"{data}:/data").status
    assert 0 == volume("cp", str(source), f"{data}:/readme.txt").status
    assert 0 == volume("cp", f"{data}:/data/run.sh", str(tmp_path / "back.sh")).status

    back = tmp_path / "back.sh"
    assert source.read_bytes() == back.read_bytes()
    assert (source.stat().st_mode, source.stat().st_mtime_ns) == (back.stat().st_mode, back.stat().st_mtime_ns)
    assert b"\xff\0" == os.getxattr(back, "user.binary")
    assert "#!/bin/sh\n" == volume("cat", f"{data}:/readme.txt").out


def test_cp_over_a_file_keeps_its_other_names(volume: Volume, data: str, tmp_path: Path) -> None:
    """What is copied over one name of a file, longer or shorter, is what its other names show, too."""
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "one").write_text("a first and long text")
    (linked / "other").hardlink_to(linked / "one")
    assert 0 == volume("import", str(linked), f"{data}:/linked").status
    for text in ("short", "much longer than that"):
        _put(volume, tmp_path, f"{data}:/linked/one", text)
        assert text == volume("cat", f"{data}:/linked/other").out


def test_cp_of_directories(volume: Volume, data: str, tree: Path, tmp_path: Path) -> None:
    """Directories need -r, in both directions."""
    assert 2 == volume("cp", str(tree), f"{data}:/copy").status
    assert 2 == volume("cp", f"{data}:/data", str(tmp_path / "out")).status
    assert 0 == volume("cp", "-r", str(tree), f"{data}:/copy").status
    assert 0 == volume("cp", "-r", f"{data}:/copy", str(tmp_path / "out")).status
    assert _contents(tree) == _contents(tmp_path / "out")


# -- looking -----------------------------------------------------------------------------------------------------------


def test_listing_one_level_and_everything(volume: Volume, data: str) -> None:
    """ls lists names in order, with a slash behind directories; a file is listed as itself."""
    assert ["data/", "link", "readme.txt"] == volume("ls", data).lines
    assert ["data/", "data/large.bin", "data/ü.txt", "link", "readme.txt"] == volume("ls", "-r", f"{data}@v1").lines
    assert ["large.bin", "ü.txt"] == volume("ls", f"{data}:/data").lines
    assert ["readme.txt"] == volume("ls", f"{data}:/readme.txt").lines
    rows = {row["path"]: row for row in volume("ls", "--json", data).json}
    assert ("-rw-r--r--", 6, None) == tuple(rows["readme.txt"][name] for name in ("mode", "size", "target"))
    assert "readme.txt" == rows["link"]["target"]
    assert "link -> readme.txt" in volume("ls", "-l", data).out


def test_tree_is_drawn(volume: Volume, data: str) -> None:
    """tree shows what lies where, as deep as asked."""
    drawn = ["/", "├── data/", "│   ├── large.bin", "│   └── ü.txt", "├── link -> readme.txt", "└── readme.txt"]
    assert [*drawn, "", "1 directories, 4 files"] == volume("tree", data).lines
    assert ["/", "└── data/", "", "1 directories"] == volume("tree", "-d", "-L", "1", data).lines


def test_names_that_drive_terminals_are_escaped(volume: Volume, data: str, tmp_path: Path) -> None:
    """Control characters and bytes that are no UTF-8 reach no terminal, and break no JSON."""
    evil = tmp_path / "evil"
    evil.mkdir()
    Path(os.fsdecode(os.fsencode(evil) + b"/a\x1b[31m\n\xff")).write_bytes(b"")
    volume("import", str(evil), f"{data}:/evil")
    shown = "a\\x1b[31m\\n\\xff"
    assert [shown] == volume("ls", f"{data}:/evil").lines
    assert [shown] == [row["path"] for row in volume("ls", f"{data}:/evil", "--json").json]
    assert f"A evil/{shown}" in volume("diff", f"{data}@v1", "@head").lines


def test_ranges_of_files(volume: Volume, data: str, tree: Path) -> None:
    """cat writes a range of a file, and of several files one after the other."""
    assert "ell" == volume("cat", f"{data}:/readme.txt", "--start", "1", "--length", "3").out
    assert "hello\numlaut\n" == volume("cat", f"{data}:/readme.txt", f"{data}:/data/ü.txt").out


def test_browsing_reads_only_the_index(volume: Volume, data: str, tmp_path: Path) -> None:
    """With every pack of file data gone, a version can still be looked at from all sides but its content."""
    _put(volume, tmp_path, f"{data}:/two", "2")
    packs = [path for path in (tmp_path / "root" / "packs").rglob("*") if path.is_file()]
    assert packs
    for pack in packs:
        pack.unlink()
    for args in (
        ("ls", "-lr", data),
        ("tree", data),
        ("log", data),
        ("show", data),
        ("diff", f"{data}@v1", data),
        ("usage", data),
        ("list", data.partition("#")[0]),
    ):
        assert 0 == volume(*args).status, args
    assert 1 == volume("cat", f"{data}:/readme.txt").status


# -- history -----------------------------------------------------------------------------------------------------------


def test_log_goes_back_newest_first(volume: Volume, data: str, tmp_path: Path) -> None:
    """The log tells versions, their parents, tags and messages; -n stops it."""
    newest = _put(volume, tmp_path, f"{data}:/two", "2")
    rows = volume("log", data, "--json").json
    assert ["write 2", "first", None] == [row["message"] for row in rows]
    assert [newest, [f"data@{rows[1]['version']}"], ["v1"]] == [
        rows[0]["version"],
        rows[0]["parents"],
        rows[1]["tags"],
    ]
    assert 2 == len(volume("log", "-n", "1", data).lines)


def test_diff_tells_what_happened_to_each_path(volume: Volume, data: str, tree: Path, tmp_path: Path) -> None:
    """Added, removed and modified paths, in full or counted, in either direction."""
    _put(volume, tmp_path, f"{data}:/readme.txt", "changed")
    _put(volume, tmp_path, f"{data}:/data/new.txt", "new")
    assert {"A data/new.txt", "M readme.txt"} == set(volume("diff", f"{data}@v1", "@head").lines)
    assert {"D data/new.txt", "M readme.txt"} == set(volume("diff", data, "@v1").lines)
    counts = volume("diff", "--stat", "--json", f"{data}@v1", data).json
    assert (1, 0, 1) == (counts["added"], counts["removed"], counts["content"])
    assert ["no difference"] == volume("diff", "--stat", data, data).lines


def test_forks_are_merged(volume: Volume, data: str, root: str, tmp_path: Path) -> None:
    """What a fork and its origin changed apart comes together; merging again finds nothing."""
    assert 0 == volume("fork", f"{data}@v1", "experiment").status
    _put(volume, tmp_path, f"{root}#experiment:/theirs", "t")
    _put(volume, tmp_path, f"{data}:/ours", "o")

    merged = volume("merge", data, "experiment", "--json").json

    assert (True, []) == (merged["merged"], merged["conflicts"])
    assert ["data/", "link", "ours", "readme.txt", "theirs"] == volume("ls", data).lines
    assert "nothing to merge" in volume("merge", data, "experiment").err
    assert {"data", "experiment"} == {row["volume"] for row in volume("log", data, "--json").json}


@pytest.mark.parametrize(("policy", "kept"), [("ours", "ours"), ("theirs", "theirs")])
def test_conflicts_are_told_and_decided(
    volume: Volume, data: str, root: str, tmp_path: Path, policy: str, kept: str
) -> None:
    """A path both sides changed stops the merge with status 4, or is taken from the side that was named."""
    volume("fork", data, "experiment")
    _put(volume, tmp_path, f"{root}#experiment:/readme.txt", "theirs")
    _put(volume, tmp_path, f"{data}:/readme.txt", "ours")

    refused = volume("merge", data, "experiment")
    assert (4, True) == (refused.status, "readme.txt" in refused.err)
    assert ["readme.txt"] == json.loads(volume("merge", data, "experiment", "--json").err)["conflicts"]
    assert "ours" == volume("cat", f"{data}:/readme.txt").out
    assert ["readme.txt"] == volume("merge", data, "experiment", "--conflicts", policy, "--json").json["conflicts"]
    assert kept == volume("cat", f"{data}:/readme.txt").out


def test_tags_are_set_moved_listed_and_taken_away(volume: Volume, data: str, tmp_path: Path) -> None:
    """A tag names a version until it is moved or deleted."""
    first = volume("tag", data, "--list", "--json").json["v1"]["id"]
    newest = _put(volume, tmp_path, f"{data}:/two", "2")
    assert 0 == volume("tag", data, "best").status
    assert 0 == volume("tag", f"{data}@v1", "best").status
    assert first == volume("tag", data, "--json").json["best"]["id"] != newest
    assert 0 == volume("tag", data, "best", "--delete").status
    assert {"v1"} == set(volume("tag", data, "--json").json)
    assert 3 == volume("ls", f"{data}@best").status


def test_restore_goes_back_and_keeps_what_came_between(volume: Volume, data: str, root: str, tmp_path: Path) -> None:
    """The newest version equals the older one again, the log has both; a fork restores from its origin."""
    between = _put(volume, tmp_path, f"{data}:/readme.txt", "changed")
    assert 0 == volume("restore", f"{data}@v1", "-m", "back").status
    assert "hello\n" == volume("cat", f"{data}:/readme.txt").out
    assert ["back", "write changed"] == [row["message"] for row in volume("log", data, "--json").json][:2]
    volume("fork", data, "experiment")
    assert 0 == volume("restore", f"{root}#experiment", f"data@{between}").status
    assert "changed" == volume("cat", f"{root}#experiment:/readme.txt").out
    assert 0 == volume("restore", data, "v1").status
    assert "hello\n" == volume("cat", f"{data}:/readme.txt").out
    assert 3 == volume("restore", data, "v9").status


# -- upkeep ------------------------------------------------------------------------------------------------------------


def test_usage_adds_up(volume: Volume, data: str, tmp_path: Path) -> None:
    """Directories hold what lies below them, versions tell what they added, forks share."""
    _put(volume, tmp_path, f"{data}:/two", "2")
    volume("fork", data, "experiment")
    found = volume("usage", data, "--json").json
    held = {row["path"]: (row["bytes"], row["files"]) for row in found["directories"]}
    assert {"/": (200_000 + 6 + 7 + 1, 5), "/data": (200_007, 2)} == held
    added = [row["added_bytes"] for row in found["versions"]]
    assert added[1] > 200_000 > 2000 > added[2] > 0
    assert found["stored"]["volume_bytes"] == sum(added) <= found["stored"]["pack_bytes"]
    assert "/data" in volume("usage", data).out


def test_prune_rehearses_unless_told(volume: Volume, data: str, tmp_path: Path) -> None:
    """Without --yes nothing goes; with it, all but what rules, tags and the head keep."""
    for number in range(3):
        _put(volume, tmp_path, f"{data}:/two", str(number))
    rehearsed = volume("prune", data, "--keep-last", "2", "--json").json
    assert (True, 2) == (rehearsed["dry_run"], len(rehearsed["pruned"]))
    assert rehearsed["freed_bytes"] > 0
    assert 5 == len(volume("log", data, "--json").json)
    done = volume("prune", data, "--keep-last", "2", "--yes", "--json").json
    assert rehearsed["pruned"][0]["version"] == done["pruned"][0]["version"]
    assert ["tag", "last", "head"] == list(done["kept"].values())
    assert 0 == len(volume("prune", data, "--keep-within", "30d", "--json").json["pruned"])


def test_what_is_pinned_is_not_pruned_by_name(volume: Volume, data: str, tmp_path: Path) -> None:
    """Asking for a tagged version's end is refused with status 4; any other goes."""
    middle = _put(volume, tmp_path, f"{data}:/two", "2")
    tagged = volume("tag", data, "--json").json["v1"]["id"]
    _put(volume, tmp_path, f"{data}:/two", "3")
    assert 4 == volume("prune", data, "--version", tagged, "--yes").status
    assert 0 == volume("prune", data, "--version", middle, "--yes").status
    assert middle not in volume("log", data).out


def test_gc_rehearses_unless_told(volume: Volume, data: str, root: str, tmp_path: Path) -> None:
    """What pruning left is listed first, deleted when told so, and what is needed stays whole."""
    for number in range(3):
        _put(volume, tmp_path, f"{data}:/two", str(number))
    volume("prune", data, "--keep-last", "1", "--yes")
    assert [] == volume("gc", root, "--json").json["garbage"]
    rehearsed = volume("gc", root, "--grace", "0s", "--json").json
    assert rehearsed["garbage"]
    assert 0 == rehearsed["deleted"]
    done = volume("gc", root, "--grace", "0s", "--settle", "0s", "--yes", "--json").json
    assert len(rehearsed["garbage"]) == done["deleted"]
    assert 0 == volume("check", root, "--depth", "data").status


def test_gc_rewrites_sparse_packs_when_asked(volume: Volume, root: str, tmp_path: Path) -> None:
    """A pack of which little is needed is listed with its share, then copied from, and goes once nothing needs it."""
    data = f"{root}#data"
    many = tmp_path / "many"
    many.mkdir()
    for number in range(20):
        (many / f"{number:02}").write_bytes(os.urandom(20_000))
    kept = (many / "07").read_bytes()
    volume("create", data)
    volume("import", str(many), f"{data}:/many")
    volume("export", f"{data}:/many", str(tmp_path / "out"))
    with Session.write(open_root(root), "data") as session:
        parent = session.files.lookup(1, b"many", ROOT).ino
        for number in range(20):
            if number != 7:
                session.files.unlink(parent, b"%02d" % number, ROOT)
        session.commit()
    volume("prune", data, "--keep-last", "1", "--yes")
    before = volume("log", data, "--json").json[0]["version"]

    (sparse,) = [
        pack
        for pack in volume("gc", root, "--rewrite", "--json").json["rewrite"]["packs"]
        if pack["pack"].startswith("data/")
    ]
    assert 20_000 <= sparse["needed"] < 25_000 < 400_000 < sparse["bytes"]
    assert [] == volume("gc", root, "--rewrite", "--below", "1", "--json").json["rewrite"]["packs"]
    said = volume("gc", root, "--rewrite")
    assert 0 == said.status
    assert sparse["pack"] in said.out
    assert "--yes rewrites what data needs" in said.out
    assert before == volume("log", data, "--json").json[0]["version"]

    done = volume("gc", root, "--rewrite", "--yes", "--json").json["rewrite"]
    assert volume("log", data, "--json").json[0]["version"] == done["versions"]["data"] != before
    volume("prune", data, "--keep-last", "1", "--yes")
    gone = volume("gc", root, "--grace", "0s", "--settle", "0s", "--force", "--yes", "--json").json
    assert sparse["pack"] in gone["garbage"]
    volume("cp", f"{data}:/many/07", str(tmp_path / "07"))
    assert kept == (tmp_path / "07").read_bytes()
    assert 0 == volume("check", root, "--depth", "data").status


def test_gc_leaves_what_is_written(volume: Volume, data: str, root: str, tree: Path) -> None:
    """Rewriting passes a volume over that somebody writes, with status 4 and its name."""
    with Session.write(open_root(root), "data"):
        said = volume("gc", root, "--rewrite", "--below", "100", "--yes")
    assert 4 == said.status
    assert "data is being written" in said.err


def test_gc_refuses_what_looks_like_a_mistake(volume: Volume, data: str, root: str, tree: Path) -> None:
    """When most of a root would go, status 4 says so until it is forced."""
    empty = volume("log", data, "--json").json[-1]["version"]
    volume("restore", f"{data}@{empty}")
    volume("tag", data, "v1", "--delete")
    volume("prune", data, "--keep-last", "1", "--yes")
    collecting = ("gc", root, "--grace", "0s", "--settle", "0s", "--yes")
    assert 4 == volume(*collecting).status
    assert 0 == volume(*collecting, "--force").status


def test_check_and_repair_name_what_is_hurt(volume: Volume, data: str, tmp_path: Path) -> None:
    """A damaged pack is found at the depth that reads it, with status 1 and its paths; repair saves the rest."""
    assert "whole" in volume("check", data, "--depth", "data").out
    largest = max((tmp_path / "root" / "packs").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[100_000] ^= 0xFF
    largest.write_bytes(content)

    shallow = volume("check", data, "--depth", "existence")
    assert (0, True) == (shallow.status, "what files hold was not read" in shallow.out)
    found = volume("check", data, "--depth", "data", "--json")
    assert 1 == found.status
    assert ["data/large.bin"] in [finding["paths"] for finding in found.json["findings"]]

    rehearsed = volume("repair", data, "--json")
    assert (1, True) == (rehearsed.status, rehearsed.json["dry_run"])
    assert ["data/large.bin"] == [part["path"] for part in rehearsed.json["lost"]]
    assert 1 == volume("repair", data, "--yes").status
    assert "lost+found/" in volume("ls", data).lines
    assert 0 == volume("check", f"{data}@head", "--depth", "data").status


def test_on_s3(volume: Volume, radosgw: Server, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same verbs on S3, below a prefix of a bucket that exists, with credentials from the environment."""
    for name, value in radosgw.address.environment.items():
        monkeypatch.setenv(name, value)
    root = f"s3://volumes-{uuid4().hex[:12]}/a/root"
    missing = volume("create", f"{root}#data")
    assert (3, True) == (missing.status, "NoSuchBucket" in missing.err)
    with open_store(root.removesuffix("/a/root"), create_container=ContainerPolicy.IF_MISSING):
        assert 0 == volume("create", f"{root}#data").status
        assert 0 == volume("import", str(tree), f"{root}#data").status
        assert 0 == volume("fork", f"{root}#data", "experiment").status
        assert "hello\n" == volume("cat", f"{root}#experiment:/readme.txt").out
        assert 0 == volume("check", root, "--depth", "data").status


def test_migrate_moves_the_journal(volume: Volume, data: str, root: str, tmp_path: Path) -> None:
    """What was written and not committed moves to the other kind of store; the next session there has it."""
    old, new = tmp_path / "old", tmp_path / "new"
    cache = tmp_path / "cache"
    store, base = open_root_store(root)
    with store:
        opened = Root.open(store, base)
        with Session.write(opened, "data", SessionOptions(meta_dir=old, cache_dir=cache)) as session:
            session.files.mkdir(1, b"uncommitted", 0o755, ROOT)
            session.files.fsync()
        assert 2 == volume("migrate", data, "--to", "sqlite", "--meta-dir", str(old)).status
        assert 2 == volume("migrate", data, "--to", "sqlight").status
        moved = volume("migrate", data, "--to", "redis", "--meta-dir", str(old), "--new-meta-dir", str(new))
        if "redis-server" in moved.err:
            pytest.skip(moved.err)
        assert 0 == moved.status, moved.err
        assert "redis" == volume("show", data, "--json").json["metadata_store_type"]
        options = SessionOptions(meta_dir=new, cache_dir=cache, metadata_store_type="redis")
        with Session.write(opened, "data", options) as session:
            assert session.files.lookup(1, b"uncommitted", ROOT)


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_volume_that_is_written_is_in_use(volume: Volume, data: str, root: str, tree: Path) -> None:
    """A second writer gets status 4 and the holder's name; reading goes on."""
    store, base = open_root_store(root)
    with store, Session.write(Root.open(store, base), "data"):
        refused = volume("import", str(tree), data)
        assert 4 == refused.status
        assert str(os.getpid()) in refused.err
        assert 0 == volume("ls", data).status
    assert 0 == volume("import", str(tree), data).status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_import_leaves_nothing_behind(
    volume: Volume, data: str, tmp_path: Path, number: signal.Signals
) -> None:
    """Interrupted or terminated while it waits for more, it lets the volume go as it was, with what it had staged."""
    staging = tmp_path / "staging"
    staging.mkdir()
    command = [sys.executable, "-m", "stowstore", "volume", "import", "-", data]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(staging)}
    ) as running:
        while not list((tmp_path / "root" / "leases").glob("*")) or not list(staging.iterdir()):
            assert running.poll() is None
            time.sleep(0.02)
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    assert (130, b"interrupted") == (running.returncode, said.strip())
    assert [] == list(staging.iterdir())
    assert [] == list((tmp_path / "root" / "leases").glob("*"))
    assert 2 == len(volume("log", data, "--json").json)


def test_what_a_killed_import_has_staged_goes_with_the_next(
    volume: Volume, data: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can clean up after SIGKILL but the next command, which leaves alone what is still in use."""
    staging = tmp_path / "staging"
    staging.mkdir()
    monkeypatch.setenv("TMPDIR", str(staging))
    monkeypatch.setattr(tempfile, "tempdir", None)
    command = [sys.executable, "-m", "stowstore", "volume", "import", "-", data]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as killed:
        while not list(staging.glob("*/staging/lock")):
            assert killed.poll() is None
            time.sleep(0.02)
        killed.kill()
    (left,) = staging.iterdir()

    with staging_directory() as used:
        assert not left.exists()
        (used / "mine").write_bytes(b"mine")
        assert 0 == volume("import", str(tree), f"{data}:/again").status
        assert [used] == list(staging.iterdir())
        assert b"mine" == (used / "mine").read_bytes()
    assert [] == list(staging.iterdir())


def test_a_full_volume_stays_as_it_was(volume: Volume, root: str, tree: Path) -> None:
    """What does not fit is refused with status 5, and no version is made."""
    volume("create", f"{root}#small", "--limit-bytes", "100k")
    assert 5 == volume("import", str(tree), f"{root}#small").status
    assert 1 == len(volume("log", f"{root}#small", "--json").json)


def test_encrypted_roots_need_their_key(
    volume: Volume, root: str, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the key, or with another one, status 6; nothing readable lies in the store."""
    monkeypatch.setenv("VOLUME_KEY", "5a" * 32)
    monkeypatch.setenv("OTHER_KEY", "a5" * 32)
    key = ("--key", "env:VOLUME_KEY")
    assert 0 == volume("create", f"{root}#safe", "--encrypt", *key).status
    assert 0 == volume("import", str(tree), f"{root}#safe", *key).status
    assert "hello\n" == volume("cat", f"{root}#safe:/readme.txt", *key).out
    assert 6 == volume("ls", f"{root}#safe").status
    assert 6 == volume("ls", f"{root}#safe", "--key", "env:OTHER_KEY").status
    assert 2 == volume("ls", f"{root}#safe", "--key", "5a" * 32).status
    stored = b"".join(path.read_bytes() for path in (tmp_path / "root").rglob("*") if path.is_file())
    assert b"readme" not in stored


_ERRORS = [
    (("ls", "no-such-volume"), 3, "a volume in a store is ROOT#NAME"),
    (("ls", "no.name"), 2, "names no volume"),
    (("ls", "ROOT"), 2, "names no volume"),
    (("ls", "ROOT#bad name"), 2, "is no name of a volume"),
    (("ls", "ROOT#data@"), 2, "ends before its version"),
    (("ls", "ROOT#data@v1:beef"), 2, "damaged locator"),
    (("ls", "ROOT#missing"), 3, "there is no volume 'missing'"),
    (("ls", "ROOT#data@missing"), 3, "no version or tag is called so"),
    (("ls", "ROOT#data:/missing"), 3, "/missing"),
    (("ls", "ROOT-none#data"), 3, "-none"),
    (("cat", "ROOT#data:/data"), 2, "no regular file"),
    (("cat", "ROOT#data:/link"), 2, "symbolic link to readme.txt"),
    (("create", "ROOT#data"), 4, "there is a volume 'data' already"),
    (("create", "ROOT#new", "--encrypt"), 2, "--encrypt needs --key"),
    (("create", "ROOT#new", "--limit-bytes", "many"), 2, "is no size"),
    (("create", "s3://b/r?secret_key=hush#data"), 2, "holds a secret"),
    (("fork", "ROOT#data", "data"), 4, "choose another name"),
    (("fork", "ROOT#data", "ROOT#other"), 2, "in the same root"),
    (("import", ".", "ROOT#missing"), 3, "stowstore volume create"),
    (("import", ".", "ROOT#data@v1"), 2, "versions never change"),
    (("diff", "ROOT#data", "file:///elsewhere#data"), 2, "different roots"),
    (("merge", "ROOT#data@v1", "other"), 2, "goes into a volume"),
    (("merge", "ROOT#data", "other"), 3, "there is no volume 'other'"),
    (("restore", "ROOT#data"), 2, "which version?"),
    (("tag", "ROOT#data", "missing", "--delete"), 3, "no tag 'missing'"),
    (("prune", "ROOT#data"), 2, "give rules"),
    (("prune", "ROOT#data", "--keep-within", "soon"), 2, "is no duration"),
    (("gc", "ROOT#data"), 2, "give the root"),
    (("check", "ROOT", "--depth", "bottom"), 2, "bottom"),
    (("cp", "a", "b"), 2, "one side is a volume"),
    (("cp", "ROOT#data:/a", "ROOT#data:/b"), 2, "one side is a local path"),
    (("ls", "ROOT#data", "-o", "path"), 2, "NAME=VALUE"),
]


def test_bad_input_says_what_is_wrong(volume: Volume, data: str, root: str) -> None:
    """Every mistake has its exit status and names what is wrong."""
    for args, status, says in _ERRORS:
        answer = volume(*(arg.replace("ROOT", root) for arg in args))
        assert (status, True) == (answer.status, says in answer.err), (args, answer)
        assert "hush" not in answer.err


def test_errors_are_json_when_asked(volume: Volume, root: str, data: str) -> None:
    """With --json an error is a JSON object too."""
    answer = volume("ls", f"{root}#missing", "--json")
    assert ("NOT_FOUND", "list volumes to see which") == tuple(json.loads(answer.err)[n] for n in ("code", "hint"))


@pytest.mark.parametrize("verb", list(_VolumeGroup.verbs()))
def test_every_verb_has_help(volume: Volume, verb: str) -> None:
    """Help says what a verb does, and shows an example."""
    answer = volume(verb, "--help")
    assert 0 == answer.status
    assert "stowstore volume" in answer.out
    assert "Example" in answer.out


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("blake3", "volumes", ["volume", "ls", "file:///r#d"]),
        ("blake3", "report", ["report", "file:///r"]),
        ("textual", "explore", ["explore", "file:///r"]),
        ("blake3", "volumes", ["mounts"]),
    ],
)
def test_without_the_extra_it_says_how_to_get_it(package: str, extra: str, command: list[str]) -> None:
    """Where a package of a command's extra is missing, the command names it and the way to install it."""
    code = f"import sys; sys.modules[{package!r}] = None\nfrom stowstore.cli.app import main\nmain({command})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert 1 == run.returncode
    assert f"needs the package {package}: pip install 'stowstore[{extra}]'" in run.stderr


def test_the_demo_keeps_versions(tmp_path: Path) -> None:
    """The demo commits, forks, merges, compares and checks, and cleans up after itself."""
    (tmp_path / "main").mkdir()
    command = [sys.executable, "-m", "stowstore", "demo", "--store", f"file://{tmp_path}/main"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    for word, times in (("Committed", 5), ("Forked", 2), ("Merged", 2), ("Compared", 1), ("Checked", 1)):
        assert times == sum(line.startswith(word) for line in run.stdout.splitlines())
    assert "everything is whole" in run.stdout
    assert not [path for path in (tmp_path / "main").rglob("*") if path.is_file()]


def _contents(directory: Path) -> dict[str, tuple[int, bytes | str]]:
    found: dict[str, tuple[int, bytes | str]] = {}
    for path in sorted(directory.rglob("*")):
        content: bytes | str = b""
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        found[str(path.relative_to(directory))] = (path.lstat().st_mode, content)
    return found
