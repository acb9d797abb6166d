"""The registry under crashes and races: at every moment there is a whole volume of a name, or none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from stowstore.named import NamedVolumes
from stowstore.named.errors import (
    BackingUnsupported,
    InvalidName,
    NotPermitted,
    VolumeCorrupt,
    VolumeExists,
    VolumeInUse,
    VolumeNotFound,
)
from stowstore.named.record import RECORD
from stowstore.named.registry import Registry, default_base
from tests.named.conftest import mounted_below

#: Forks a process a point, which dies before the so manieth time it touches the file system.
_KILLER = """
import os, signal, sys
from stowstore.named import NamedVolumes

verb, base, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
TOUCHING = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "fcntl.flock",
            "os.chmod", "os.utime", "shutil.rmtree", "os.scandir"}

def attempt(volumes):
    if verb == "create":
        volumes.create("victim", size="1MB", backing=sys.argv[4])
    elif verb == "remove":
        volumes.remove("victim")
    else:
        volumes.resize("victim", "+1MB")

pid = os.fork()
if pid == 0:
    left = first

    def hook(event, arguments):
        global left
        if event in TOUCHING and str(arguments[:1]).find("/proc/") < 0:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    volumes = NamedVolumes(base)
    sys.addaudithook(hook)
    attempt(volumes)
    os._exit(0)
status = os.waitpid(pid, 0)[1]
print("killed" if os.WIFSIGNALED(status) else "done")
"""

_SERVER = """
import os, sys
source = sys.stdin.readline
import stowstore.named, stowstore.named.removing, stowstore.named.versions  # noqa: imported once for all points
code = compile(open(sys.argv[1]).read(), "killer", "exec")
for line in iter(sys.stdin.readline, ""):
    child = os.fork()
    if child == 0:
        sys.argv = ["killer", *line.split()]
        exec(code, {"__name__": "killer"})
        sys.stdout.flush()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print("" if status == 0 else f"failed {status}", flush=True)
"""


def _whole(volumes: NamedVolumes) -> set[str]:
    """The names of the volumes, each of which must be whole."""
    for name in volumes.names():
        assert volumes.inspect(name).problem is None
    return set(volumes.names())


def _clean(volumes: NamedVolumes) -> None:
    """Nothing is left that belongs to no volume, once what crashed was cleaned up."""
    registry = Registry(volumes.base)
    registry.sweep_new(grace=0)
    volumes.recover()
    ids = {registry.load(name).id for name in volumes.names()}
    assert ids == {path.name for path in (volumes.base / ".areas").glob("*")}
    assert not list((volumes.base / ".new").glob("*"))
    assert not list((volumes.base / ".gone").glob("*"))


def test_a_second_create_is_refused_and_destroys_nothing(plain: NamedVolumes) -> None:
    """Upstream formatted and then removed the volume that was there."""
    plain.create("data", size="1MB", backing="directory", labels={"a": "b"})
    (plain.base / "data" / "data" / "precious").write_text("kept")
    before = (plain.base / "data" / RECORD).read_bytes()
    for backing in ("directory", None):
        with pytest.raises(VolumeExists, match="volume already exists: data"):
            plain.create("data", size="2MB", backing=backing)
    assert (plain.base / "data" / "data" / "precious").read_text() == "kept"
    assert before == (plain.base / "data" / RECORD).read_bytes()
    _clean(plain)


@pytest.mark.parametrize(
    ("verb", "backing"),
    [(verb, "directory") for verb in ("create", "remove", "resize")] + [("create", "chunked"), ("create", "loop")],
)
def test_a_kill_at_any_point_leaves_a_whole_volume_or_none(
    plain: NamedVolumes, tmp_path: Path, verb: str, backing: str
) -> None:
    """SIGKILL before each single time the command touches the file system; afterwards everything works as ever."""
    plain.create("other", size="1MB", backing="directory")
    try:
        plain.create("probe", size="1MB", backing=backing)
    except BackingUnsupported as error:
        pytest.skip(f"{backing}: {error}")
    plain.remove("probe")
    (plain.base / "other" / "data" / "precious").write_text("kept")
    script = tmp_path / "killer.py"
    script.write_text(_KILLER)
    seen = Counter[str]()
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for point in range(1, 400):
            if verb != "create" and "victim" not in plain.names():
                plain.create("victim", size="1MB", backing=backing)
            server.stdin.write(f"{verb} {plain.base} {point} {backing}\n")
            server.stdin.flush()
            outcome = server.stdout.readline().strip()
            while not outcome:
                outcome = server.stdout.readline().strip()
            assert outcome in ("killed", "done")
            server.stdout.readline()
            seen[outcome] += 1
            assert {"other"} <= _whole(plain) <= {"other", "victim"}
            assert mounted_below(plain.base) == []
            if verb == "create" and "victim" in plain.names():
                plain.remove("victim")
            if outcome == "done":
                break
        server.stdin.close()
    assert seen["killed"] > 5
    assert seen["done"] == 1
    assert (plain.base / "other" / "data" / "precious").read_text() == "kept"
    _clean(plain)


_RACERS = """
import os, random, sys
from stowstore.named import NamedVolumes
from stowstore.named.errors import NamedError
import stowstore.named.removing  # noqa: imported once for all

base, count = sys.argv[1], int(sys.argv[2])
gate, go = os.pipe()
children = []
for seed in range(count):
    child = os.fork()
    if child:
        children.append(child)
        continue
    os.close(go)
    # Everybody begins when nobody holds the other end any more.
    os.read(gate, 1)
    chance = random.Random(seed)
    volumes = NamedVolumes(base)
    done = []
    for _ in range(8):
        name = chance.choice("ab")
        verb = chance.choice(["create", "create", "remove", "list", "resize", "label"])
        try:
            if verb == "create":
                made = volumes.create(name, size="1MB", backing="directory", labels={"by": str(seed)})
            elif verb == "remove":
                volumes.remove(name)
            elif verb == "list":
                assert all(info.problem is None for info in volumes.list())
            elif verb == "resize":
                volumes.resize(name, "+1MB")
            else:
                volumes.label(name, {"x": str(seed)})
            done.append(verb)
        except NamedError as error:
            done.append(error.reason)
    os.write(1, (" ".join(done) + "\\n").encode())
    os._exit(0)
os.close(go)
sys.exit(any([os.waitpid(child, 0)[1] for child in children]))
"""


def test_thirty_two_processes_race_and_each_step_is_whole(plain: NamedVolumes) -> None:
    """Creates, removes, resizes and listings of two names: one create wins, one remove wins, nothing is left over."""
    done = subprocess.run(
        [sys.executable, "-c", _RACERS, str(plain.base), "32"], check=False, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    total = Counter(done.stdout.split())
    assert set(total) <= {"create", "remove", "list", "resize", "label", "exists", "not_found", "in_use", "busy"}
    # Whatever was made was removed once at most, and what is left was not.
    assert total["create"] - total["remove"] == len(plain.names())
    assert total["create"] > 0
    assert total["exists"] > 0
    _whole(plain)
    _clean(plain)


def test_a_half_removed_volume_is_finished_by_the_next_command(plain: NamedVolumes) -> None:
    """Whoever removes may die as soon as the name is free."""
    plain.create("data", size="1MB", backing="directory")
    Registry(plain.base).withdraw("data")
    assert plain.names() == []
    plain.create("other", size="1MB", backing="directory")
    assert not list((plain.base / ".gone").glob("*"))


def test_a_damaged_record_is_reported_and_never_guessed(plain: NamedVolumes) -> None:
    """A volume without a readable record is listed as such; only --force removes it, and its neighbours work."""
    plain.create("good", size="1MB", backing="directory")
    plain.create("bad", size="1MB", backing="directory")
    (plain.base / "bad" / RECORD).write_text('{"name": "bad"')
    found = {info.name: info for info in plain.list()}
    assert found["good"].problem is None
    assert found["bad"].record is None
    assert RECORD in str(found["bad"].problem)
    for attempt in (plain.inspect, plain.remove):
        with pytest.raises(VolumeCorrupt):
            attempt("bad")
    with pytest.raises(VolumeExists):
        plain.create("bad", size="1MB")
    plain.remove("bad", force=True)
    assert plain.names() == ["good"]


def test_a_missing_record_is_a_damaged_volume_and_foreign_directories_are_none(plain: NamedVolumes) -> None:
    """What lies about in the registry is neither shown nor touched."""
    plain.create("data", size="1MB", backing="directory")
    (plain.base / "data" / RECORD).unlink()
    (plain.base / "notes").mkdir()
    (plain.base / "notes" / "todo").write_text("mine")
    assert [info.name for info in plain.list()] == ["data"]
    with pytest.raises(VolumeCorrupt, match="missing"):
        plain.inspect("data")
    with pytest.raises(VolumeNotFound):
        plain.inspect("notes")
    with pytest.raises(VolumeExists):
        plain.create("notes", size="1MB", backing="directory")
    assert (plain.base / "notes" / "todo").read_text() == "mine"


def test_volumes_of_upstream_that_begin_with_a_digit_are_read(plain: NamedVolumes) -> None:
    """They cannot be created, and can be listed and removed."""
    with pytest.raises(InvalidName):
        plain.create("1data", size="1MB", backing="directory")
    plain.create("data", size="1MB", backing="directory")
    os.rename(plain.base / "data", plain.base / "1data")
    record = json.loads((plain.base / "1data" / RECORD).read_text())
    (plain.base / "1data" / RECORD).write_text(json.dumps(record | {"name": "1data"}))
    assert [info.name for info in plain.list()] == ["1data"]
    plain.remove("1data")


def test_a_registry_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    """A file in the way is an error with a hint, not a stack of frames."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NotPermitted, match="--root"):
        NamedVolumes(tmp_path / "file" / "base").create("data", size="1MB", backing="directory")


def test_the_base_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """STOWSTORE_ROOT, else the variable of upstream's configuration, else by who the user is."""
    monkeypatch.delenv("STOWSTORE_ROOT", raising=False)
    monkeypatch.delenv("STOWSTORE_VOLUMES_BASE_PATH", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_base() == Path("/var/lib/stowstore/volumes")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_base() == tmp_path / "stowstore" / "named"
    monkeypatch.setenv("STOWSTORE_VOLUMES_BASE_PATH", "/b")
    assert default_base() == Path("/b")
    monkeypatch.setenv("STOWSTORE_ROOT", "/a")
    assert default_base() == Path("/a")


def test_leases_end_with_their_processes(plain: NamedVolumes) -> None:
    """A job killed by SIGKILL frees the volume at once; one that inherited the lease keeps it beyond its parent."""
    plain.create("data", size="1MB", backing="directory")
    holder = """
import subprocess, sys, time
from stowstore.named import Access, Holder, NamedVolumes
attached = NamedVolumes(sys.argv[1]).attach("data", holder=Holder(job="train", command="train.py"))
child = subprocess.Popen(["sleep", "1000"], pass_fds=attached.pass_fds)
print(child.pid, flush=True)
time.sleep(1000)
"""
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(plain.base)], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        child = int(supervisor.stdout.readline())
        for stage in ("supervised", "orphaned"):
            with pytest.raises(VolumeInUse, match=r"1 job\(s\): train") as caught:
                plain.remove("data")
            assert caught.value.jobs == ("train",), stage
            assert [one.command for one in plain.jobs("data")["data"]] == ["train.py"]
            supervisor.kill()
            supervisor.wait()
        os.kill(child, signal.SIGKILL)
        while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split(")")[-1]:
            pass
    assert plain.jobs() == {}
    plain.remove("data")
    _clean(plain)
