"""``stowstore volume`` with plain names: what it prints, what it exits with, and that addresses still mean stores."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from stowstore.cli.app import main
from stowstore.locations.local.faults import translate
from stowstore.named import Holder, NamedVolumes
from stowstore.named.leases import take
from stowstore.named.versions import opened
from tests.explore.terminal import leave_terminal
from tests.named.conftest import Run
from tests.versions.test_merging import apply


def _rows(text: str) -> list[list[str]]:
    return [re.split(r"\s{2,}", line) for line in text.splitlines()]


def test_a_volume_is_created_listed_and_removed(host: NamedVolumes, stow: Run) -> None:
    """The words that guides and scripts look for."""
    done = stow("volume", "list")
    assert (done.returncode, done.stdout) == (0, "No volumes found\n")
    assert json.loads(stow("volume", "list", "--json").stdout) == []
    done = stow("volume", "create", "data", "--size=1.5GB", "--label", "team=ml")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Volume created successfully:"
    assert {"  Name: data", "  Size: 1.5GB", "  Type: filesystem", f"  Path: {host.base}/data/data"} <= set(lines)
    assert stow("volume", "create", "cache", "--type=memory", "--size", "50MB").returncode == 0
    assert stow("volume", "create", "default").returncode == 0
    found = _rows(stow("volume", "ls").stdout)
    assert found[0][:4] == ["NAME", "SIZE", "TYPE", "CREATED"]
    assert [row[:3] for row in found[1:]] == [
        ["cache", "50MB", "memory"],
        ["data", "1.5GB", "filesystem"],
        ["default", "1GB", "filesystem"],
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", row[3]) for row in found[1:])
    listed = json.loads(stow("volume", "list", "--format", "json", "--filter", "label=team").stdout)
    assert [(one["name"], one["size_bytes"], one["size_total"]) for one in listed] == [
        ("data", 1_610_612_736, 1_610_612_736)
    ]
    assert set(listed[0]) >= {
        *("name", "type", "size", "size_bytes", "created_time", "path", "mount_path", "job_count", "jobs"),
        *("used_bytes", "available_bytes", "inodes_used", "enforced", "backing", "labels", "head", "snapshots"),
        *("parent", "size_total", "size_used"),
    }
    assert stow("volume", "list", "-q", "--filter", "type=memory").stdout == "cache\n"
    done = stow("volume", "rm", "data", "cache", "nope", "default")
    assert done.returncode == 3
    assert done.stdout.splitlines() == [
        f"Volume '{name}' removed successfully" for name in ("data", "cache", "default")
    ]
    assert "volume nope not found" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["create", "1data"], 2, "invalid volume name: '1data'"),
        (["create", "../x"], 2, "invalid volume name: '../x'"),
        (["create", ""], 2, "volume name cannot be empty"),
        (["create"], 2, "Missing argument"),
        (["create", "x", "--size=0"], 2, "volume size must be positive"),
        (["create", "x", "--size=ten"], 2, "invalid size"),
        (["create", "x", "--type=tape"], 2, "invalid volume type: tape"),
        (["create", "x", "--backing=nfs"], 2, "invalid backing: nfs"),
        (["create", "x", "--type=memory", "--size=1PB"], 5, "No space left on device"),
        (["create", "taken"], 4, "volume already exists: taken"),
        (["inspect", "nope"], 3, "volume nope not found"),
        (["remove", "nope"], 3, "volume nope not found"),
        (["delete", "busy"], 4, "in use by 1 job(s): job-1"),
        (["resize", "nope", "1GB"], 3, "volume nope not found"),
        (["resize", "taken", "many"], 2, "invalid size"),
        (["resize", "taken"], 2, "which size is taken to have?"),
        (["resize", "taken", "1GB", "--size=2GB"], 2, "one size"),
        (["resize", "taken", "-9999PB"], 2, "invalid size: '9999PB' is above"),
        (["resize", "taken", "-2PB"], 2, "volume size must be positive"),
        (["create", "x", "--from=full", "--inodes=9"], 2, "--inodes does not go with --from"),
        (["create", "x", "--from=full", "--backing=loop"], 2, "--backing does not go with --from"),
        (["restore", "x", "nope.tar.gz"], 3, "nope.tar.gz: No such file or directory"),
        (["backup", "taken", "/nope/taken.tar"], 3, "/nope: No such directory"),
        (["import", "nope", "x.tar"], 3, "volume nope not found"),
        (["import", "x.tar", "nope"], 3, "volume nope not found"),
        (["resize", "full", "10B"], 5, "holds 4096 bytes, and 10 are asked for"),
        (["snapshot", "nope"], 3, "volume nope not found"),
        (["restore", "taken@v1"], 1, "has no versions"),
        (["restore", "taken"], 2, "which version"),
        (["clone", "nope", "x"], 3, "volume nope not found"),
        (["clone", "taken", "full"], 4, "volume already exists: full"),
        (["log", "nope"], 3, "volume nope not found"),
        (["log", "../x"], 2, "names no volume"),
        (["cp", "a", "b"], 2, "one side is a volume"),
        (["cp", "taken:/nope", "b"], 3, "stowstore: nope: No such file"),
        (["usage", "nope"], 3, "volume nope not found"),
        (["list", "--filter", "color=red"], 2, "--filter"),
        (["jobs", "nope"], 3, "volume nope not found"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_goes_wrong_has_its_status_and_its_words(
    three: NamedVolumes, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str
) -> None:
    """2 usage, 3 not found, 4 in use or exists, 5 no space; nothing on standard output, nothing changed."""
    before = three.names()
    with pytest.raises(SystemExit) as caught:
        main(["volume", *arguments])
    out, errors = capsys.readouterr()
    assert (status, "") == (caught.value.code, out)
    assert said in errors
    assert before == three.names()


def test_errors_are_json_for_programs(plain: NamedVolumes, stow: Run) -> None:
    """With --json the error has its code and its reason."""
    error = json.loads(stow("volume", "inspect", "nope", "--json").stderr)
    assert (error["code"], error["reason"]) == ("NOT_FOUND", "not_found")
    error = json.loads(stow("volume", "restore", "x", "nope.tar", "--json").stderr)
    assert (error["code"], error["error"]) == ("NOT_FOUND", "nope.tar: No such file or directory")


def test_a_size_is_changed_as_people_write_it(plain: NamedVolumes, capsys: pytest.CaptureFixture[str]) -> None:
    """As an argument or an option, absolute or by how much, a minus included; or the inodes alone."""

    def resize(*arguments: str) -> tuple[str, int, int | None]:
        with pytest.raises(SystemExit) as caught:
            main(["volume", "resize", *arguments])
        assert caught.value.code == 0, capsys.readouterr().err
        record = plain.inspect("data").record
        assert record is not None
        return record.size, record.size_bytes, record.inodes

    plain.create("data", size="8MB")
    assert resize("data", "4MB") == ("4MB", 4 << 20, None)
    assert resize("data", "--size", "6MB") == ("6MB", 6 << 20, None)
    assert resize("data", "--size=+2MB") == ("8MB", 8 << 20, None)
    assert resize("data", "--size", "-1MB") == ("7MB", 7 << 20, None)
    assert resize("data", "-.5MB") == ("6656KB", 6656 << 10, None)
    assert resize("-512KB", "data") == ("6MB", 6 << 20, None)
    assert resize("data", "--", "-1MB") == ("5MB", 5 << 20, None)
    assert resize("data", "1.5GB") == ("1.5GB", 1536 << 20, None)
    assert resize("data", "--inodes=50") == ("1.5GB", 1536 << 20, 50)


def test_usage_is_told_where_there_is_no_index_and_of_all(three: NamedVolumes, stow: Run) -> None:
    """A plain directory has no index of its directories, and what it holds all the same."""
    done = stow("volume", "usage", "full")
    assert done.returncode == 0
    assert re.fullmatch(r"full: \S+ KiB of 1\.0 MiB in 2 inodes\n\n", done.stdout)
    assert "has no index" in done.stderr
    assert json.loads(stow("volume", "usage", "full", "--json").stdout)["directories"] == []
    assert stow("volume", "usage").stdout == stow("volume", "df").stdout


def test_verbs_that_publish_versions_leave_nothing_behind(
    host: NamedVolumes, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """merge, repair and pull work on what is in no version too, migrate is refused, and a stranded journal is saved."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, status: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["volume", *arguments])
        out, errors = capfd.readouterr()
        assert caught.value.code == status, (arguments, out, errors)
        return out, errors

    def put(name: str, path: str) -> None:
        """Leaves a file in what is in no version, as a job does, without a mount."""
        record = host.inspect(name).record
        assert record is not None
        with opened(host.base / name, record) as session:
            apply(session.files, {path: path.encode()})

    run("create", "data", "--size=1MB")
    put("data", "one")
    run("clone", "data", "copy")
    put("copy", "two")
    put("data", "three")
    assert json.loads(run("merge", "data", "copy", "--json")[0])["merged"] is True
    assert run("ls", "data")[0].split() == ["one", "three", "two"]
    assert run("diff", "data", "copy")[0] == "D three\n"
    for where in ("data", host.address("data").partition("#")[0]):
        assert run("check", where)[0].startswith("whole: looked at ")
    assert "volume nope not found in" in run("merge", "data", "nope", status=3)[1]
    lease = take(host.base / "data", Holder(job="trainer"))
    refusal = run("merge", "data", "copy", status=4)[1]
    lease.release()
    assert "in use by 1 job(s): trainer; data cannot be merged into (wait for them; stowstore" in refusal
    # Nothing of this strands what no version has.
    put("data", "four")
    assert "is one of this host" in run("migrate", "data", "--to", "memory", status=1)[1]
    root = host.address("data")
    run("fork", root, "branch")
    (tmp_path / "two").write_text("two")
    run("cp", "two", f"{root.partition('#')[0]}#branch:/branched")
    run("merge", "data", "branch")
    assert {"four", "branched"} <= set(run("ls", "data")[0].split())
    # What somebody publishes in the root itself does, and it is got back.
    put("data", "late")
    run("restore", root, "branch")
    assert "holds uncommitted changes" in run("snapshot", "data", status=1)[1]
    run("recover", "data", "saved")
    run("merge", "data", "saved")
    assert run("cat", "data:/late")[0] == "late"
    said = run("pull", root, "data")[0]
    assert said.startswith("Volume 'data' is at "), said
    assert json.loads(run("remove", "data", "copy", "--json")[0]) == [
        {"name": "data", "removed": True},
        {"name": "copy", "removed": True},
    ]


def test_a_full_disk_behind_any_error_has_the_status_and_the_reason(
    plain: NamedVolumes, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a store, a journal or the system says of a full disk is one thing to a program."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    wrapped = translate(full)
    wrapped.__cause__ = full
    for error in (full, wrapped):
        monkeypatch.setattr(NamedVolumes, "snapshot", Mock(side_effect=error))
        monkeypatch.setattr(sys, "argv", ["stowstore", "volume", "snapshot", "data", "--json"])
        with pytest.raises(SystemExit) as caught:
            main(sys.argv[1:])
        assert (caught.value.code, json.loads(capfd.readouterr().err)["reason"]) == (5, "no_space")


def test_contents_and_versions_go_by_the_name(
    host: NamedVolumes, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cp, snapshot, log, ls, cat, diff, tag, export, usage, backup and restore of a volume of this host."""
    monkeypatch.chdir(tmp_path)

    def status(*arguments: str) -> tuple[int | str | None, str, str]:
        with pytest.raises(SystemExit) as caught:
            main(["volume", *arguments])
        return (caught.value.code, *capfd.readouterr())

    def run(*arguments: str) -> str:
        code, out, errors = status(*arguments)
        assert code == 0, (arguments, errors)
        return out

    (tmp_path / "f").write_text("one\n")
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "g").write_text("deep\n")
    run("create", "data", "--size=1MB")
    run("cp", "f", "data:/")
    run("cp", "-r", "d", "data:/tree")
    run("cp", "data:/tree/e/g", "data:/h")
    locator = run("commit", "data", "-m", "first", "--tag", "v1").strip()
    assert "first" in run("log", "data")
    assert run("ls", "data:/").split() == ["f", "h", "tree/"]
    assert run("cat", "data@v1:/tree/e/g") == "deep\n"
    (tmp_path / "f").write_text("two\n")
    run("cp", "f", "data:/")
    run("snapshot", "data")
    assert "f" in run("diff", "data@v1", "data").split()
    run("tag", "data", "v2")
    run("export", "data@v1", "out")
    assert (tmp_path / "out" / "f").read_text() == "one\n"
    run("export", "data@v1", "out.tar.gz")
    with tarfile.open("out.tar.gz", "r:gz") as archive:
        assert "f" in archive.getnames()
    run("restore", "data@v1")
    run("cp", "data:/f", "back")
    assert (tmp_path / "back").read_text() == "one\n"
    assert "/tree/e" in run("usage", "data")
    assert json.loads(run("usage", "data", "--json"))["used_bytes"] == 14
    run("backup", "data", "b.tar.gz")
    run("restore", "copy", "b.tar.gz", "--size=1MB")
    run("fork", "copy", "fork")
    run("push", "data", f"file://{tmp_path}/r#pushed")
    run("pull", f"file://{tmp_path}/r#pushed", "pulled", "--size=1MB")
    run("cp", "-r", "pulled:/tree", "fork:/again")
    assert run("import", "d", "fork") == ""
    run("cp", "-r", "fork:/", "all")
    assert sorted(os.listdir(tmp_path / "all")) == ["again", "e", "f", "h", "tree"]
    assert locator.startswith("file://")
    assert run("label", "fork", "a=b", "c=d") == "a=b c=d\n"
    assert 'stow_volume_size_bytes{backing="chunked",type="filesystem",volume="fork"} 1.048576e+06' in run("metrics")
    run("resize", "fork", "+1MB")
    assert ["fork", "2.0 MiB"] == _rows(run("df", "fork"))[1][:2]
    assert status("df", "data", "--alert", "0.001")[0] == 5


def test_a_report_and_the_explorer_take_a_name(host: NamedVolumes, stow: Run, tmp_path: Path) -> None:
    """They show the root of the volume; without a version they say how to make one."""
    pytest.importorskip("textual", reason="textual is not installed: pip install 'stowstore[explore]'")
    host.create("data", size="8MB")
    refused = stow("report", "data")
    assert (3, True) == (refused.returncode, "volume data has no version yet" in refused.stderr), refused.stderr
    assert "stowstore volume snapshot data" in refused.stderr
    with host.attach("data", holder=Holder(job="writer")) as attached:
        (attached.path / "seen-from-far").write_bytes(b"text")
    host.snapshot("data", "first one", tag="v1")

    told = json.loads(stow("report", "data", "--json").stdout)
    assert ["data"] == [volume["name"] for volume in told["volumes"]]
    assert ["first one"] == [version["message"] for version in told["versions"]]
    done = stow("report", "data", "--output", "page.html")
    assert (0, True) == (done.returncode, "first one" in (tmp_path / "page.html").read_text()), done.stderr
    refused = stow("report", "data@v1")
    assert (2, True) == (refused.returncode, "leave out @v1" in refused.stderr)
    for volume in ("data", "data@v1", "data@v1:/seen-from-far"):
        leave_terminal(["explore", volume], once=b"seen-from-far")


def test_a_directory_is_no_root(plain: NamedVolumes, stow: Run, tmp_path: Path) -> None:
    """The registry has a root for each volume, and a root is a URL: who names a directory is told."""
    plain.create("data", size="8MB", backing="directory")
    refused = stow("report", str(plain.base))
    assert (2, True) == (refused.returncode, "name one, such as data" in refused.stderr), refused.stderr
    (tmp_path / "elsewhere").mkdir()
    refused = stow("report", "./elsewhere")
    assert (2, True) == (refused.returncode, f"a root is a URL: file://{tmp_path}/elsewhere" in refused.stderr)
    assert [] == list((tmp_path / "elsewhere").iterdir())


def test_addresses_still_mean_volumes_in_stores(plain: NamedVolumes, stow: Run, tmp_path: Path) -> None:
    """The same verbs with ROOT#NAME do what they did, and touch no registry."""
    root = f"file://{tmp_path}/root"
    for arguments in (
        ["create", f"{root}#a", "--limit-bytes", "1MB"],
        ["list", root],
        ["ls", f"{root}#a"],
        ["usage", f"{root}#a"],
        ["fork", f"{root}#a", "b"],
        ["prune", f"{root}#a", "--keep-last", "1"],
        ["log", f"{root}#b"],
    ):
        done = stow("volume", *arguments)
        assert done.returncode == 0, (arguments, done.stderr)
    assert not plain.base.exists()


def test_prune_lists_before_it_asks(host: NamedVolumes, stow: Run) -> None:
    """Nothing is removed without an answer."""
    host.create("empty", size="1MB")
    done = stow("volume", "prune", input="n\n")
    assert (done.returncode, done.stdout) == (1, "empty: 0 B in 0 versions\n")
    assert host.names() == ["empty"]
    assert stow("volume", "prune", "--dry-run").returncode == 0
    assert host.names() == ["empty"]
    done = stow("volume", "prune", input="y\n")
    assert done.returncode == 0
    assert "Volume 'empty' removed successfully" in done.stdout
    assert host.names() == []


def test_the_registry_is_named_by_option_or_environment(plain: NamedVolumes, stow: Run, tmp_path: Path) -> None:
    """Before or after the verb."""
    for arguments in (["--root", "here", "create", "a"], ["create", "b", "--root", "here"]):
        assert stow("volume", *arguments, "--backing=directory", "--size=1MB").returncode == 0
    assert NamedVolumes(tmp_path / "here").names() == ["a", "b"]
    assert stow("volume", "list", "-q", "--root", str(tmp_path / "here")).stdout == "a\nb\n"
    assert plain.names() == []


def test_a_hundred_volumes_are_listed_from_their_records_and_counters(plain: NamedVolumes, tmp_path: Path) -> None:
    """However large volumes are: no daemon is asked and no file of theirs is looked at."""
    for number in range(100):
        plain.create(f"v{number}", size="1MB", backing="directory")
        (plain.base / f"v{number}" / "data" / "file").write_text("x")
    opened: list[str] = []
    recording = [True]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if recording[0] and event in (
            "open",
            "os.scandir",
            "os.listdir",
            "socket.connect",
            "subprocess.Popen",
            "sqlite3.connect",
        ):
            opened.append(str(arguments[0]))

    sys.addaudithook(hook)
    try:
        assert len(plain.list()) == 100
    finally:
        recording[0] = False
    ours = [path for path in opened if path.startswith(str(plain.base))]
    assert not [path for path in ours if "/data" in path]
    # The directory of the registry, and a record, counters and who has a lease for each volume.
    assert len(ours) <= 301
    assert not [path for path in opened if "sqlite" in path or ".sock" in path]


@pytest.fixture
def three(plain: NamedVolumes) -> Iterator[NamedVolumes]:
    """A registry with a volume that is used, one that holds something, and one that only has its name."""
    for name in ("taken", "busy", "full"):
        plain.create(name, size="1MB", backing="directory")
    with plain.attach("full", holder=Holder(job="writer")) as attached:
        (attached.path / "f").write_bytes(b"x" * 2000)
    with plain.attach("busy", holder=Holder(job="job-1")):
        yield plain
