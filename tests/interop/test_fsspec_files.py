"""Files of stores and volumes through fsspec: whole or not at all, in ranges, and from versions that may go."""

from __future__ import annotations

import gzip
import os
import pickle
import subprocess
import sys
import textwrap
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from datastore import cancellable
from datastore.errors import Cancelled, PermissionDenied, PreconditionFailed
from stowstore.interop.fsspec import volume_url
from stowstore.interop.fsspec.reading import ReadAhead
from stowstore.versions.errors import NoSuchVersion
from stowstore.volumes import Volume
from stowstore.volumes.registry import registry
from tests.interop.places import s3_options
from tests.servers import Server


@pytest.fixture(params=["stow", "stowvol"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, str]:
    """A file system that can be written, and a directory in it."""
    if request.param == "stow":
        return fsspec.filesystem("stow", path=str(tmp_path)), "file/main/dir"
    return fsspec.filesystem("stowvol", access="rw"), f"mem/test-{uuid.uuid4().hex}/root#data/dir"


def test_a_file_appears_when_it_is_closed(place: tuple[Any, str]) -> None:
    """While it is written there is nothing, or what was there before; then all of it."""
    fs, base = place
    fs.pipe_file(f"{base}/a", b"before")
    with fs.open(f"{base}/a", "wb") as old, fs.open(f"{base}/b", "wb") as new:
        old.write(b"after" * 100_000)
        new.write(b"new")
        assert (500_000, 3) == (old.tell(), new.tell())
        assert [f"{base}/a"] == fs.find(base)
        assert b"before" == fs.cat_file(f"{base}/a")
    assert (b"after" * 100_000, b"new") == (fs.cat_file(f"{base}/a"), fs.cat_file(f"{base}/b"))


@pytest.mark.parametrize("mode", ["wb", "w", "ab", "xb"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_file_whose_block_fails_does_not_appear(place: tuple[Any, str], mode: str, compression: str | None) -> None:
    """Whatever was written before the exception is gone, of bytes, text and compressed files alike."""
    fs, base = place

    def fail() -> None:
        with fs.open(f"{base}/a", mode, compression=compression) as file:
            file.write("half" if mode == "w" else b"half")
            file.flush()
            raise RuntimeError("the producer broke")

    with pytest.raises(RuntimeError, match="the producer broke"):
        fail()
    assert not fs.exists(f"{base}/a")


def test_a_file_nobody_closes_does_not_appear_and_says_so(place: tuple[Any, str]) -> None:
    """What is collected without being closed was not finished."""
    fs, base = place
    file = fs.open(f"{base}/a", "wb")
    file.write(b"half")
    with pytest.warns(ResourceWarning, match="a was never closed, so it is not written"):
        del file
    assert not fs.exists(f"{base}/a")


def test_a_compressed_file_is_written_and_read_whole(place: tuple[Any, str]) -> None:
    """Compression is fsspec's, and ends before the file does."""
    fs, base = place
    with fs.open(f"{base}/a.gz", "wt", compression="infer", encoding="utf-8", newline="\n") as file:
        file.write("ä\n" * 1000)
    assert "ä\n" * 1000 == gzip.decompress(fs.cat_file(f"{base}/a.gz")).decode()
    with fs.open(f"{base}/a.gz", "rt", compression="infer", encoding="utf-8") as file:
        assert "ä\n" == file.readline()


def test_a_transaction_publishes_all_files_or_none(place: tuple[Any, str]) -> None:
    """Files of a transaction appear at its end, and never when it fails."""
    fs, base = place
    with fs.transaction:
        for name in "ab":
            with fs.open(f"{base}/{name}", "wb") as file:
                file.write(name.encode())
        assert not fs.exists(f"{base}/a")
    assert {f"{base}/a": b"a", f"{base}/b": b"b"} == fs.cat([f"{base}/a", f"{base}/b"])

    def fail() -> None:
        with fs.transaction:
            with fs.open(f"{base}/c", "wb") as file:
                file.write(b"c")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert [f"{base}/a", f"{base}/b"] == fs.find(base)


def test_of_two_that_make_a_file_one_wins(place: tuple[Any, str]) -> None:
    """Both find it missing when they open it; the second is told when it closes, and the first one's stays."""
    fs, base = place
    first, second = fs.open(f"{base}/a", "xb"), fs.open(f"{base}/a", "xb")
    first.write(b"first")
    second.write(b"second")
    first.close()
    with pytest.raises(FileExistsError):
        second.close()
    assert b"first" == fs.cat_file(f"{base}/a")


def test_appending_and_touching(place: tuple[Any, str]) -> None:
    """What is appended is seen with what was there; touching keeps content that is not to be cut."""
    fs, base = place
    for piece in (b"one", b"two"):
        with fs.open(f"{base}/a", "ab") as file:
            file.write(piece)
    assert (b"onetwo", 6) == (fs.cat_file(f"{base}/a"), fs.size(f"{base}/a"))
    fs.touch(f"{base}/a", truncate=False)
    assert 6 == fs.size(f"{base}/a")
    fs.touch(f"{base}/a")
    assert 0 == fs.size(f"{base}/a")


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(None, None, b"0123456789"), (3, None, b"3456789"), (None, 3, b"012"), (2, 4, b"23"), (-3, None, b"789"),
     (None, -3, b"0123456"), (8, 100, b"89"), (20, 30, b""), (4, 4, b"")],
)  # fmt: skip
def test_ranges_are_those_of_a_slice(
    place: tuple[Any, str], start: int | None, end: int | None, expected: bytes
) -> None:
    """Negative positions count from the end, and what lies behind it is empty."""
    fs, base = place
    fs.pipe_file(f"{base}/a", b"0123456789")
    assert expected == fs.cat_file(f"{base}/a", start, end)
    assert [expected] == fs.cat_ranges([f"{base}/a"], [start], [end])


def test_many_ranges_come_in_order_with_their_errors(place: tuple[Any, str]) -> None:
    """Ranges are fetched side by side; those that fail are errors in their place."""
    fs, base = place
    fs.pipe({f"{base}/{number}": b"%d" % number * 10 for number in range(40)})
    names = [f"{base}/{number}" for number in range(40)] + [f"{base}/gone"]
    *found, gone = fs.cat_ranges(names, 0, 4)
    assert ([(b"%d" % number * 10)[:4] for number in range(40)], True) == (found, isinstance(gone, FileNotFoundError))
    with pytest.raises(FileNotFoundError, match="gone"):
        fs.cat_ranges(names, 0, 4, on_error="raise")


def test_a_file_is_read_anywhere_and_in_order(place: tuple[Any, str]) -> None:
    """Seeks, small reads and large ones give the bytes that are there, with any block size."""
    fs, base = place
    content = os.urandom(3_000_000)
    fs.pipe_file(f"{base}/a", content)
    for block_size in (1000, 100_000, None):
        with fs.open(f"{base}/a", block_size=block_size) as file:
            assert content[:10] == file.read(10)
            assert (2_999_990, content[-10:], b"") == (file.seek(-10, 2), file.read(), file.read(5))
            file.seek(1_000_000)
            assert content[1_000_000:2_500_000] == b"".join(iter(lambda: file.read(7_777), b""))[:1_500_000]
            assert content[5:1_500_000] == (file.seek(5), file.read(1_499_995))[1]


def test_who_reads_in_order_has_the_next_block_fetched() -> None:
    """The first reads bring what they need; from the third in a row on whole blocks come, one ahead of the reader."""
    content = bytes(range(256)) * 4096
    asked: list[tuple[int, int]] = []

    def fetch(start: int, end: int) -> bytes:
        asked.append((start, end))
        return content[start:end]

    cache = ReadAhead(400_000, fetch, len(content))
    step = 150_000
    found = b"".join(cache._fetch(start, start + step) for start in range(0, len(content), step))
    assert (content, len(content)) == (found, sum(end - start for start, end in asked))
    assert [(0, 262_144), (262_144, 524_288), (524_288, 924_288), (924_288, len(content))] == sorted(asked)
    elsewhere = ReadAhead(400_000, fetch, len(content))
    asked.clear()
    assert content[600_000:600_010] == elsewhere._fetch(600_000, 600_010)
    assert [(600_000, 862_144)] == asked
    assert content[100_000:900_000] == elsewhere._fetch(100_000, 900_000)
    assert [(600_000, 862_144), (100_000, 900_000)] == asked


def test_threads_that_seek_and_read_share_a_file(place: tuple[Any, str]) -> None:
    """Each gets what is at its own position; a file that is handed on goes on where it was."""
    fs, base = place
    content = b"".join(b"%08d" % number for number in range(20_000))
    fs.pipe_file(f"{base}/a", content)

    def look(number: int) -> bytes:
        file.seek(number * 8)
        data: bytes = file.read(8)
        return data

    with fs.open(f"{base}/a", block_size=1000) as file, ThreadPoolExecutor(8) as threads:
        numbers = [*range(0, 20_000, 37)] * 3
        assert [b"%08d" % number for number in numbers] == [*threads.map(look, numbers)]
        file.seek(8)
        assert b"00000001" == threads.submit(file.read, 8).result()
        assert (16, b"00000002", 24) == (file.tell(), file.read(8), threads.submit(file.tell).result())


def test_trees_go_out_and_come_back(place: tuple[Any, str], tmp_path: Path) -> None:
    """A directory is put and got with all that is in it; a failed download leaves what was there."""
    fs, base = place
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "a").write_bytes(b"1")
    (source / "deep" / "er" / "b").write_bytes(b"2" * 100_000)
    fs.put(str(source), f"{base}/tree", recursive=True)
    assert {f"{base}/tree/a", f"{base}/tree/deep/er/b"} == set(fs.find(f"{base}/tree"))
    fs.get(f"{base}/tree", str(tmp_path / "back"), recursive=True)
    assert b"2" * 100_000 == (tmp_path / "back" / "deep" / "er" / "b").read_bytes()
    (tmp_path / "kept").write_bytes(b"kept")
    with pytest.raises(FileNotFoundError):
        fs.get_file(f"{base}/nothing", tmp_path / "kept")
    assert b"kept" == (tmp_path / "kept").read_bytes()
    fs.mv(f"{base}/tree", f"{base}/moved", recursive=True)
    assert (False, 100_000) == (fs.exists(f"{base}/tree"), fs.du(f"{base}/moved/deep"))
    with pytest.raises(IsADirectoryError):
        fs.rm(f"{base}/moved")
    fs.rm(f"{base}/moved", recursive=True)
    assert not fs.exists(f"{base}/moved")


def test_an_object_that_is_replaced_is_not_read_in_halves(tmp_path: Path) -> None:
    """All ranges of an open file are of one object; when it goes, the reader is told."""
    fs = fsspec.filesystem("stow", path=str(tmp_path))
    fs.pipe_file("file/main/a", b"1" * 1_000_000)
    with fs.open("file/main/a", block_size=1000) as file:
        assert b"1" == file.read(1)
        fs.pipe_file("file/main/a", b"2" * 1_000_000)
        file.seek(900_000)
        with pytest.raises(PreconditionFailed):
            file.read(10)


def test_a_read_can_be_cancelled(tmp_path: Path) -> None:
    """The tokens of the caller's context hold for what is read on its behalf."""
    fs = fsspec.filesystem("stow", path=str(tmp_path))
    fs.pipe_file("file/main/a", b"1" * 100)
    with cancellable() as token, fs.open("file/main/a") as file:
        token.cancel()
        with pytest.raises(Cancelled):
            file.read()


# -- versions --------------------------------------------------------------------------------------------------------


def committed(tmp_path: Path, **content: bytes) -> Any:
    """A version with these files."""
    volume = Volume.new("data", f"file://{tmp_path}/root")
    with volume.blocking as files:
        for name, data in content.items():
            files.write_bytes(name, data)
        return volume.blocking.commit()


def test_a_volume_is_written_and_its_versions_are_read(tmp_path: Path) -> None:
    """What is committed is read by its URL; what is written later is not in it, and a version refuses writers."""
    url = f"stowvol://file{tmp_path}/root#data"
    written = fsspec.filesystem("stowvol", access="rw")
    written.pipe_file(f"{url}/a", b"1")
    assert written.version(url) is None
    version = written.commit(url, "first")
    written.pipe_file(f"{url}/b", b"2")
    fs, path = fsspec.core.url_to_fs(volume_url(version))
    assert ([f"{path}/a"], "first") == (fs.ls(path, detail=False), fs.version(path).message)
    with pytest.raises(OSError, match="a version never changes: fork it"):
        fs.pipe_file(f"{path}/c", b"3")
    second = written.finalize(url)
    newest = fsspec.filesystem("stowvol")
    assert second.locator == newest.version(url).locator
    assert [b"1", b"2"] == [newest.cat_file(f"{url}/{name}") for name in "ab"]


def test_a_listing_tells_what_a_look_at_each_tells(tmp_path: Path) -> None:
    """Of thousands of files, a directory and links, in a version and while it is written."""
    volume = Volume.new("data", f"file://{tmp_path}/root")
    with volume.blocking as files:
        for number in range(3_000):
            files.write_bytes(f"{number:05}", b"x" * (number % 7))
        files.mkdir("dir")
        files.symlink("00003", "link")
        files.symlink("nowhere", "broken")
        files.symlink("dir", "to-dir")
        written = fsspec.filesystem("stowvol", access="rw").ls(f"file{tmp_path}/root#data")
        version = volume.blocking.commit()
    fs, path = fsspec.core.url_to_fs(volume_url(version))
    listed = fs.ls(path)
    assert [info["name"] for info in listed] == sorted(info["name"] for info in listed)
    assert 3_004 == len(listed) == len(written)
    assert fs.ls(path, detail=False) == [info["name"] for info in listed]
    for info in (*listed[:20], *listed[-5:]):
        assert info == fs.info(info["name"])
    known = {info["name"].rpartition("/")[2]: (info["type"], info["size"], info["islink"]) for info in listed}
    assert known == {info["name"].rpartition("/")[2]: (info["type"], info["size"], info["islink"]) for info in written}
    assert ("file", 3, True) == known["link"]
    assert ("directory", 0, True) == known["to-dir"]
    assert ("link", 0, True) == known["broken"]
    fs.ls(path).clear()
    assert 3_004 == len(fs.ls(path))


def test_a_worker_reads_the_version_its_parent_read(tmp_path: Path) -> None:
    """A path without a version stands for one from its first use on, also where the file system is sent to."""
    committed(tmp_path, a=b"1")
    fs = fsspec.filesystem("stowvol")
    path = f"file{tmp_path}/root#data/a"
    assert b"1" == fs.cat_file(path)
    with Volume.blocking.at(f"file://{tmp_path}/root#data").blocking as files:
        files.write_bytes("a", b"2")
        Volume.blocking.at(f"file://{tmp_path}/root#data").blocking.commit()
    sent = tmp_path / "sent"
    sent.write_bytes(pickle.dumps(fs))
    code = """
        import pickle, sys
        with open(sys.argv[1], "rb") as file:
            fs = pickle.load(file)
        print(fs.cat_file(sys.argv[2]).decode(), end="")
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), str(sent), path]
    assert "1" == subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert b"2" == fsspec.filesystem("stowvol", skip_instance_cache=True).cat_file(path)


def test_a_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    """A file system that writes and is sent to a worker cannot write there, and the error names who does."""
    fs = fsspec.filesystem("stowvol", access="rw")
    path = f"file{tmp_path}/root#data/a"
    fs.pipe_file(path, b"1")
    fs.commit(path)
    sent = tmp_path / "sent"
    sent.write_bytes(pickle.dumps(fs))
    code = """
        import pickle, sys
        from datastore.errors import AlreadyExists
        with open(sys.argv[1], "rb") as file:
            fs = pickle.load(file)
        try:
            fs.pipe_file(sys.argv[2], b"2")
        except AlreadyExists as error:
            print(error)
    """
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "other")}
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), str(sent), path]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment).stdout
    assert f"process {os.getpid()}" in told


def test_a_version_deleted_while_it_is_read_is_named(tmp_path: Path) -> None:
    """Who reads on after version and packs are gone is told so, not that data are damaged; who begins, likewise."""
    # More than is fetched ahead of a reader.
    version = committed(tmp_path, a=os.urandom(30_000_000), b=b"2")
    url = volume_url(version, "a")
    fs, path = fsspec.core.url_to_fs(url)
    with fs.open(path) as file:
        assert 1 == len(file.read(1))
        root = registry.root(f"file://{tmp_path}/root")
        for entry in root.store.walk(root.base, directory=True):
            if "/packs/" in str(entry.reference) or "/versions/" in str(entry.reference):
                root.store.delete(entry.reference)
        file.seek(28_000_000)
        with pytest.raises(NoSuchVersion, match=f"version {version.id} of volume 'data' was deleted while it was read"):
            file.read(1_000_000)
    fs.release(path)
    with pytest.raises(NoSuchVersion):
        fsspec.filesystem("stowvol", skip_instance_cache=True).cat_file(path)


def test_absent_and_wrong_credentials_are_told_apart_from_absent_files(radosgw: Server, bucket: str) -> None:
    """A worker without credentials is told what to give it; with them the same URL is read."""
    root = f"s3://{bucket}/root?endpoint={radosgw.endpoint}"
    options = {name: text for name, text in s3_options(radosgw).items() if name != "endpoint"}
    volume = Volume.new("data", root, options=options)
    with volume.blocking as files:
        files.write_bytes("a", b"1")
        url = volume_url(volume.blocking.commit(), "a")
    Volume.configure(root, options={})
    registry.close_all()
    wrong = {**options, "secret_key": "wrong", "access_key_id": radosgw.stranger.access_key}
    with pytest.raises(PermissionDenied, match="no credentials travel in a URL or locator") as caught:
        fsspec.open(url, **wrong).open()
    assert "wrong" not in str(caught.value)
    with fsspec.open(url, **options) as file:
        assert b"1" == file.read()
