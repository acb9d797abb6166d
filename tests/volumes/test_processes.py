"""Several processes and one volume: who writes, who waits, and what an ending process leaves."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stowstore import Volume
from stowstore.versions.errors import LeaseHeld, VolumeError


def script(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    """While another process writes, opening names it; once it has ended, opening works and finds its versions."""
    root = f"file://{tmp_path}/root"
    with script(
        """
        import sys
        from stowstore import Volume
        volume = Volume.new("data", sys.argv[1])
        with volume.blocking as files:
            files.write_text("a", "theirs")
            volume.blocking.commit()
            print("open", flush=True)
            sys.stdin.readline()
        """,
        root,
    ) as other:
        assert other.stdout is not None
        assert "open\n" == other.stdout.readline()
        volume = Volume.blocking.at(f"{root}#data")
        with pytest.raises(LeaseHeld, match=f"process {other.pid}"):
            volume.blocking.open(meta_dir=tmp_path / "m", cache_dir=tmp_path / "c")
        assert "theirs" == volume._version(_manifest(volume)).files.read_text("a")
        other.communicate("\n", timeout=60)
    assert 0 == other.returncode
    with volume.blocking as files:
        assert "theirs" == files.read_text("a")


def _manifest(volume: Volume):  # type: ignore[no-untyped-def]
    from stowstore.volumes.registry import registry

    root = registry.root(volume.bucket)
    return root.load(root.head(volume.name))


def test_a_process_that_just_ends_leaves_its_journal(tmp_path: Path) -> None:
    """A script that never closes ends without a word, gives up its lease, and its next run goes on."""
    code = """
        import sys
        from stowstore import Volume
        volume = Volume.new("data", sys.argv[1])
        files = volume.blocking.open()
        print(files.listdir())
        files.write_text(f"file{len(files.listdir())}", "1")
        files.write_bytes("big", b"x" * 5_000_000)
    """
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code), f"file://{tmp_path}/root"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "" == done.stderr
        outputs.append(done.stdout.strip())
    assert ["[]", "['big', 'file0']"] == outputs
    assert [] == list((tmp_path / "root" / "leases").glob("*"))


def test_a_version_travels_to_another_process(tmp_path: Path) -> None:
    """A pickled version is read elsewhere, forked and committed there, and comes back."""
    volume = Volume.new("data", f"file://{tmp_path}/root")
    with volume.blocking as files:
        files.write_text("a", "1")
        version = volume.blocking.commit()
    code = """
        import pickle, sys
        version = pickle.loads(bytes.fromhex(sys.argv[1]))
        fork = version.blocking.fork("there")
        with fork.blocking as files:
            files.write_text("b", files.read_text("a") + "2")
        print(fork.blocking.open().read_text("b"), pickle.dumps(fork.blocking.finalize("back")).hex())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), pickle.dumps(version).hex()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    text, returned = done.stdout.split()
    back = pickle.loads(bytes.fromhex(returned))
    assert ("12", "there", "back") == (text, back.name, back.message)
    assert "12" == back.files.read_text("b")


def _child(volume: Volume, answers: multiprocessing.Queue[str]) -> None:
    try:
        volume.files.listdir()
        answers.put("open")
    except VolumeError as error:
        answers.put(str(error))


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_nothing_open(tmp_path: Path) -> None:
    """A child that was forked cannot use, or end, what its parent has open."""
    volume = Volume.new("data", f"file://{tmp_path}/root")
    context = multiprocessing.get_context("fork")
    with volume.blocking as files:
        files.write_text("a", "1")
        answers: multiprocessing.Queue[str] = context.Queue()  # type: ignore[assignment]
        child = context.Process(target=_child, args=(volume, answers))
        child.start()
        assert "was not opened in this process" in answers.get(timeout=60)
        child.join(60)
        assert 0 == child.exitcode
        files.write_text("b", "2")
        assert ["a", "b"] == volume.blocking.commit().files.listdir()


def test_many_roots_do_not_take_ever_more_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that visits one root after the other keeps some of them open, not all; those in use go on."""
    monkeypatch.setattr("stowstore.volumes.registry._MAX_LOCAL_ROOTS", 2)

    def visit(number: int) -> Volume:
        volume = Volume.new("data", bucket=f"file://{tmp_path}/{number}")
        with volume.blocking as files:
            files.write_text("/f", f"{number}")
            volume.blocking.commit()
        return volume

    first = visit(0)
    with first.blocking as files:
        files.write_text("/g", "before")
        for number in range(1, 4):
            visit(number)
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        for number in range(4, 10):
            visit(number)
        gc.collect()
        assert abs(len(os.listdir("/proc/self/fd")) - before) < 10
        files.write_text("/g", "after")
        version = first.blocking.commit()
    assert "after" == version.blocking.files.read_text("/g")
