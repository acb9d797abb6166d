"""What ``stow://`` does beyond files: containers, whole listings, signed URLs, and stores that are open already."""

from __future__ import annotations

import urllib.request
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest

from datastore.errors import NoSuchContainer, NotFound
from datastore.memory import MemoryStore
from tests.interop.places import s3_options
from tests.servers import Server


@pytest.fixture
def s3(radosgw: Server) -> Any:
    return fsspec.filesystem("stow", **s3_options(radosgw))


def test_buckets_are_directories(s3: Any) -> None:
    """They are made, found and removed; what is in none does not exist."""
    name = f"s3/fsspec-{uuid.uuid4().hex[:16]}"
    assert not s3.exists(name)
    s3.mkdir(name)
    with pytest.raises(FileExistsError):
        s3.mkdir(name)
    s3.makedirs(name, exist_ok=True)
    assert (True, "directory") == (name in s3.ls("s3", detail=False), s3.info(name)["type"])
    s3.pipe_file(f"{name}/a/b", b"1")
    assert [f"{name}/a"] == s3.ls(name, detail=False)
    s3.rm(f"{name}/a", recursive=True)
    assert not s3.exists(f"{name}/a")
    s3.rmdir(name)
    assert not s3.exists(name)


def test_a_mistyped_bucket_is_not_made(s3: Any) -> None:
    """Writing to a bucket of a cloud that is not there says so."""
    name = f"s3/fsspec-{uuid.uuid4().hex[:16]}"
    with pytest.raises(NoSuchContainer):
        s3.pipe_file(f"{name}/a", b"1")
    assert not s3.exists(name)


def test_odd_keys_are_what_they_are(s3: Any, bucket: str) -> None:
    """Keys go through paths, listings and patterns as they are."""
    keys = ["a b", "100%25", "ünï", "plus+", "q?x", "d.d/..x", "[1]", "hash#1"]
    for key in keys:
        s3.pipe_file(f"s3/{bucket}/{key}", key.encode())
    assert sorted(f"s3/{bucket}/{key}" for key in keys) == sorted(s3.find(f"s3/{bucket}"))
    assert [key.encode() for key in keys] == [s3.cat_file(f"s3/{bucket}/{key}") for key in keys]
    assert [f"s3/{bucket}/q?x"] == s3.glob(f"s3/{bucket}/q?x")


def test_a_signed_url_reads_an_object(s3: Any, bucket: str) -> None:
    """Whoever has it needs no credentials."""
    s3.pipe_file(f"s3/{bucket}/a", b"signed")
    with urllib.request.urlopen(s3.sign(f"s3/{bucket}/a", 60), timeout=60) as answer:
        assert b"signed" == answer.read()


def test_what_is_known_of_an_object_tells_when_it_changes(s3: Any, bucket: str) -> None:
    """Its etag and keys for caches differ after a write, and its times are known."""
    path = f"s3/{bucket}/a"
    s3.pipe_file(path, b"1")
    first = (s3.checksum(path), s3.ukey(path))
    assert s3.modified(path) == s3.created(path)
    s3.pipe_file(path, b"2")
    assert not {*first} & {s3.checksum(path), s3.ukey(path)}


def test_a_whole_tree_is_found_by_one_listing() -> None:
    """However deep it is; directories are told apart from what lies in them."""

    class Counting(MemoryStore):
        listings = 0

        def list_page(self, *arguments: Any, **named: Any) -> Any:
            self.listings += 1
            return super().list_page(*arguments, **named)

    store = Counting()
    fs = fsspec.filesystem("stow", store=store, skip_instance_cache=True)
    for key in ("top/a", "top/b/c", "top/b/d/e", "other"):
        fs.pipe_file(f"mem/main/{key}", b"1")
    before = store.listings
    assert ["mem/main/top/a", "mem/main/top/b/c", "mem/main/top/b/d/e"] == fs.find("mem/main/top")
    # One for the objects, one to see that the directory itself is none.
    assert 2 == store.listings - before
    found = fs.find("mem/main/top", withdirs=True, detail=True)
    assert {
        "mem/main/top": "directory",
        "mem/main/top/a": "file",
        "mem/main/top/b": "directory",
        "mem/main/top/b/c": "file",
        "mem/main/top/b/d": "directory",
        "mem/main/top/b/d/e": "file",
    } == {name: info["type"] for name, info in found.items()}
    assert ["mem/main/top/a"] == fs.find("mem/main/top/a")
    assert [] == fs.find("mem/main/nothing")
    assert ["mem/main/top/b/c", "mem/main/top/b/d"] == sorted(fs.glob("mem/main/top/*/*"))


def test_a_copy_between_two_stores_moves_the_bytes(s3: Any, bucket: str, tmp_path: Path) -> None:
    """Each has a file system of its own options; a copy of what is not there says so."""
    disk = fsspec.filesystem("stow", path=str(tmp_path))
    s3.pipe_file(f"s3/{bucket}/a", b"moved")
    with s3.open(f"s3/{bucket}/a") as source, disk.open("file/main/a", "wb") as target:
        target.write(source.read())
    assert b"moved" == disk.cat_file("file/main/a")
    with pytest.raises(NotFound):
        disk.cp_file("file/main/none", "file/main/b")
