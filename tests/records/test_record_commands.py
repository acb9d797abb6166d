"""``stowstore record``, run as its users run it."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

from stowstore.cli import main
from tests.records.places import fill, make, tree


@frozen
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``stowstore record`` in this process, with a cache of its own."""
    for name in [name for name in os.environ if name.startswith("STOWSTORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(*args: object, status: int = 0) -> Done:
        with pytest.raises(SystemExit) as left:
            main(["record", *map(str, args)])
        printed = capsys.readouterr()
        assert status == left.value.code, printed.err
        return Done(printed.out, printed.err)

    return run


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A root that does not exist yet."""
    return f"file://{tmp_path}/store"


def test_a_record_goes_round(tmp_path: Path, root: str, record: Run) -> None:
    """Pushed, listed, shown, changed, pulled, exported; the second push sends what changed."""
    made = make(tmp_path / "a", {"result.json": b"{}", "out/x": b"1"}, config={"lr": 0.5}, label="best")
    run = make(tmp_path / "a" / "runner" / "now", {"log": b"2"}, kind="Execution", parent=made.uuid)

    assert f"{root}/records/{made.uuid}\n" == record("push", root, made.path).stdout
    fill(made, {"out/x": b"two"})
    (receipt,) = json.loads(record("push", root, made.path, "--json").stdout)
    assert (1, 3, [run.uuid]) == (receipt["sent_files"], receipt["sent_bytes"], receipt["runs"])
    assert {made.uuid, run.uuid} == {found["uuid"] for found in json.loads(record("ls", root, "--json").stdout)}
    assert made.uuid in record("ls", root, "--label", "best").stdout
    assert run.uuid not in record("ls", root, "--label", "best", "--since", "1h").stdout
    shown = record("show", root, made.uuid, "--files").stdout
    assert '{"lr": 0.5}' in shown
    assert "out/x" in shown
    assert f"{tmp_path}/new/{made.uuid}\n" == record("pull", root, made.uuid, "--to", tmp_path / "new").stdout
    assert tree(made.path) == tree(tmp_path / "new" / made.uuid)
    record("export", root, made.uuid, tmp_path / "a.tar.gz")
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert f"{made.uuid}/runner/now/log" in tar.getnames()


def test_the_words_of_machinable(tmp_path: Path, root: str, record: Run) -> None:
    """The verbs of its storage do what the record commands of other names do."""
    made = make(tmp_path / "a", {"x": b"1"})
    for verb in ("upload", "commit", "update"):
        assert f"{root}/records/{made.uuid}\n" == record(verb, root, made.path).stdout
    for verb in ("download", "retrieve", "fetch"):
        record(verb, root, made.uuid, "--to", tmp_path / verb)
        assert tree(made.path) == tree(tmp_path / verb / made.uuid)
    assert made.uuid in record("walk", root).stdout == record("list", root).stdout
    assert made.uuid in record("delete", root, made.uuid, "--now").stdout
    record("pull", root, made.uuid, status=3)
    assert made.uuid not in record("ls", root).stdout


def test_searches(tmp_path: Path, root: str, record: Run) -> None:
    """By values, by label, by likeness; conditions that are none are refused."""
    made = [make(tmp_path / str(n), config={"lr": n / 10, "opt": {"name": "adam"}}, label=f"n{n}") for n in range(3)]
    record("push", root, *(each.path for each in made))

    assert {made[1].uuid, made[2].uuid} == {
        found["uuid"] for found in json.loads(record("search", root, "lr>=0.1", "opt.name=adam", "--json").stdout)
    }
    assert made[0].uuid in record("search", root, "label=n0").stdout
    assert f"{made[2].uuid}\n" == record("search", root, "--like", made[2].path).stdout
    assert "is no condition" in record("search", root, "nonsense", status=2).stderr
    record("label", root, made[0].uuid, "renamed")
    assert "renamed\n" == record("label", root, made[0].uuid).stdout
    assert made[0].uuid in record("search", root, "label=renamed", "--no-reindex").stdout


def test_relations(tmp_path: Path, root: str, record: Run) -> None:
    """Everything related goes along, and its graph can be drawn."""
    one, two = make(tmp_path / "1"), make(tmp_path / "2", config={"n": 2})
    one.relate("Interface.Interface.using", two)

    assert two.uuid in record("push", root, one.path, "--related", "all", status=3).stderr
    record("push", root, one.path, two.path, "--related", "all")
    assert 2 == len(record("pull", root, one.uuid, "--to", "new", "--related", "direct").stdout.splitlines())
    assert f'"{one.uuid}" -> "{two.uuid}" [label="using"]' in record("graph", root, one.uuid, "--dot").stdout
    assert {one.uuid, two.uuid} == {
        node["uuid"] for node in json.loads(record("graph", root, two.uuid, "--json").stdout)["records"]
    }
    record("graph", root, "nothing", status=3)


def test_two_steps(tmp_path: Path, root: str, record: Run) -> None:
    """Removed, restored, removed again and collected; a dry run of each changes nothing."""
    made = make(tmp_path / "a", {"a": b"1"})
    record("push", root, made.path)
    record("rm", root, made.uuid, "--dry-run")
    record("rm", root, made.uuid)
    assert "no record" in record("show", root, made.uuid, status=3).stderr
    record("restore", root, made.uuid)
    record("verify", root, made.uuid, "--deep")
    record("rm", root, made.uuid)
    assert "0 objects removed" in record("gc", root).stdout
    assert "would be listed" in record("gc", root, "--grace", "0s", "--dry-run").stdout
    record("gc", root, "--grace", "0s")
    assert made.uuid not in "".join(tree(tmp_path / "store")) or "condemned" in tree(tmp_path / "store")
    record("gc", root, "--grace", "0s")
    assert not any(made.uuid in path for path in tree(tmp_path / "store"))
    record("restore", root, made.uuid, status=3)
    record("rm", root, made.uuid, status=3)
    record("rm", root, made.uuid, "--skip-missing")


def test_damage_is_told(tmp_path: Path, root: str, record: Run) -> None:
    """A damaged record makes the status 1, and is never put in place or evicted."""
    made = make(tmp_path / "a", {"a": b"12345"})
    record("push", root, made.path)
    (tmp_path / "store" / "records" / made.uuid / "f" / "a").write_bytes(b"12a45")

    record("verify", root)
    assert f"{made.uuid}: a: other content" in record("verify", root, "--deep", status=1).stdout
    assert "is not what its manifest says" in record("pull", root, made.uuid, "--to", "new", status=1).stderr
    assert "push it first" in record("evict", root, made.path, status=1).stderr
    assert made.path.exists()
    assert not (tmp_path / "new" / made.uuid).exists()


def test_evicted_and_indexed_again(tmp_path: Path, root: str, record: Run) -> None:
    """A local copy the store has goes, and the index is made anew from the store."""
    made = make(tmp_path / "local" / "a", {"a": b"1"})
    record("push", root, made.path)
    record("touch", made.path)
    record("evict", root, made.path, status=1)
    record("push", root, made.path)
    record("evict", root, made.path, "--dry-run")
    assert made.path.exists()
    record("evict", root, made.path)
    assert not made.path.exists()
    make(tmp_path / "local" / "b")
    assert "1 records in the store, 1 in directories\n" == record("reindex", root, tmp_path / "local").stdout


def test_wrong_use_is_told(tmp_path: Path, root: str, record: Run) -> None:
    """What is no record, no root and no uuid is named, with what to do."""
    (tmp_path / "plain").mkdir()
    make(tmp_path / "a", {"link": "->/etc/passwd"})

    assert ".machinable" in record("push", root, tmp_path / "plain", status=1).stderr
    assert "leads to '/etc/passwd'" in record("push", root, tmp_path / "a", status=1).stderr
    assert "is no root" in record("push", "nowhere", tmp_path / "a", status=2).stderr
    record("push", root, make(tmp_path / "b").path)
    for verb in (
        ("show",),
        ("pull",),
        ("rm", "--now"),
        ("restore",),
        ("verify",),
        ("graph",),
        ("label",),
        ("ls", "--parent"),
    ):
        told = record(verb[0], root, *verb[1:], "../../etc", status=2).stderr
        assert "'../../etc' is no uuid of a record: a uuid is letters and digits" in told
    assert "is no uuid" in record("export", root, "", tmp_path / "a.tar", status=2).stderr
    record("pull", root, "nothing", status=3)
    assert "there is no record nothing" in record("pull", root, "nothing", "--skip-missing").stderr
