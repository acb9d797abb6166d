"""The URLs of stores and volumes: what they mean, and which mean nothing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.core import url_to_fs
from hypothesis import given
from hypothesis import strategies as st

from datastore.errors import ConfigError, InvalidReference
from datastore.reference import DataReference
from stowstore.interop.fsspec import store_url, volume_url
from stowstore.interop.fsspec.urls import ObjectPath, VolumePath, path_of, query_of
from stowstore.volumes import Volume

DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("url", "path", "query", "reference"),
    [
        ("stow://s3/bucket/a/b", "s3/bucket/a/b", "", "s3://bucket/a/b"),
        ("stow://s3/bucket/a/b/", "s3/bucket/a/b", "", "s3://bucket/a/b"),
        ("stow://s3/bucket/k?endpoint=http://h:1/p", "s3/bucket/k", "endpoint=http://h:1/p", "s3://bucket/k"),
        ("stow://s3/bucket/k?region=eu&a=b", "s3/bucket/k", "region=eu&a=b", "s3://bucket/k"),
        ("stow://s3://bucket/k", "s3/bucket/k", "", "s3://bucket/k"),
        ("stow://file/main/dir/k?path=/data", "file/main/dir/k", "path=/data", "file://main/dir/k"),
        ("stow://abfs/box@account.dfs.core.windows.net/k", None, "", "abfs://box@account.dfs.core.windows.net/k"),
        ("stow://gs/bucket/what?", "gs/bucket/what?", "", "gs://bucket/what%3F"),
        ("stow://gs/bucket/100%25", "gs/bucket/100%25", "", "gs://bucket/100%2525"),
    ],
)
def test_urls_of_objects(url: str, path: str | None, query: str, reference: str) -> None:
    """Options are cut off, the rest names an object by its raw key."""
    found = path_of(url, "stow")
    assert (path or found, query) == (found, query_of(url))
    assert DataReference(reference) == ObjectPath.parse(found).reference
    assert found == str(ObjectPath.of(DataReference(reference)))


@pytest.mark.parametrize(
    ("url", "path", "address", "inside"),
    [
        ("stowvol://s3/bucket/root#data", "s3/bucket/root#data", "s3://bucket/root#data", "/"),
        ("stowvol://s3/bucket/root#data@v1/a/b", "s3/bucket/root#data@v1/a/b", "s3://bucket/root#data@v1", "/a/b"),
        ("stowvol://file/data/root#data/a#b?c", "file/data/root#data/a#b?c", "file:///data/root#data", "/a#b?c"),
        (
            f"stowvol://s3://b/r?endpoint=http://h:1#data@01J:{DIGEST}:/x",
            f"s3/b/r#data@01J:{DIGEST}/x",
            f"s3://b/r?endpoint=http://h:1#data@01J:{DIGEST}",
            "/x",
        ),
        ("stowvol://file:///data/root#data", "file/data/root#data", "file:///data/root#data", "/"),
        (
            "stowvol://s3/b/r#data/x?endpoint=http://h:1",
            "s3/b/r#data/x",
            "s3://b/r?endpoint=http://h:1#data",
            "/x",
        ),
    ],
)
def test_urls_of_volumes(url: str, path: str, address: str, inside: str) -> None:
    """A root, a volume with or without version, and a path in it; a locator stands for its volume as it is."""
    found = path_of(url, "stowvol")
    assert path == found
    named = VolumePath.parse(found)
    assert (address, inside, path) == (named.address(query_of(url)), named.path, str(named))


@pytest.mark.parametrize("text", ["", "s3", "s3/bucket", "s3/bucket/root", "s3/bucket/root#", "#data/a", "s3/b#/a"])
def test_what_names_no_volume_is_refused(text: str) -> None:
    """The error shows how to write it."""
    with pytest.raises(ConfigError, match=r"names no volume \(write stowvol://SCHEME/ROOT#NAME@VERSION/PATH"):
        VolumePath.parse(text)


KEYS = st.lists(
    st.text(st.characters(exclude_characters="/\0?", exclude_categories=("Cs",)), min_size=1).filter(
        lambda part: part not in (".", "..")
    ),
    min_size=1,
    max_size=4,
).map("/".join)


@given(KEYS, st.sampled_from(["", "endpoint=http://127.0.0.1:9000", "region=eu"]))
def test_the_url_of_an_object_is_read_as_it_was_written(key: str, query: str) -> None:
    """Whatever the key, URL and path name the same object again."""
    reference = DataReference.build("s3", "bucket", key)
    url = store_url(reference, query)
    assert (reference, query) == (ObjectPath.parse(path_of(url, "stow")).reference, query_of(url))


def test_a_file_system_is_found_by_its_url(tmp_path: Path) -> None:
    """The options of a URL open the store, and the URL of a path has them again."""
    fs, path = url_to_fs(f"stow://file/main/dir/k?path={tmp_path}")
    fs.pipe_file(path, b"1")
    assert b"1" == (tmp_path / "main" / "dir" / "k").read_bytes()
    assert f"stow://file/main/dir/k?path={tmp_path}" == fs.unstrip_protocol(fs.ls("file/main/dir")[0]["name"])
    with fsspec.open(f"stow://file/main/dir/k?path={tmp_path}") as file:
        assert b"1" == file.read()
    assert ["file/main/dir"] == fs.glob("stow://file/main/d?r")
    assert f"stow://file/main/dir/k?path={tmp_path}" == store_url("file://main/dir/k", f"path={tmp_path}")


def test_a_volume_has_a_url_for_each_of_its_versions(tmp_path: Path) -> None:
    """URLs are made of volumes, locators and addresses, with the options of their root."""
    volume = Volume.new("data", f"file://{tmp_path}/root")
    with volume.blocking as files:
        files.write_text("a", "1")
        version = volume.blocking.commit()
    url = volume_url(version, "/a")
    assert f"stowvol://file{tmp_path}/root#{version.locator.rpartition('#')[2]}/a" == url
    with fsspec.open(url, "r") as file:
        assert "1" == file.read()
    assert "stowvol://s3/b/r#data@v1/a/b?endpoint=http://h:1" == volume_url(
        "s3://b/r?endpoint=http://h:1#data@v1", "a/b"
    )


@pytest.mark.parametrize(
    ("url", "options", "kind", "message"),
    [
        ("stow://s4/bucket/k", {}, ConfigError, "no kind serves the scheme 's4'"),
        ("stow://file/main/../k", {"path": "/nowhere"}, InvalidReference, "dot_segment"),
        ("stow://file/main/k", {"pth": "/nowhere"}, ConfigError, "path"),
        ("stow://s3", {}, ConfigError, "names nothing in a container"),
        ("stowvol://file/tmp/none#x", {"access": "write"}, ConfigError, "access is 'write'"),
        ("stowvol://file/tmp/none#x@v1", {"access": "rw"}, ConfigError, "versions never change"),
        ("stowvol://file/nowhere/at/all#x", {}, FileNotFoundError, "nowhere/at/all"),
    ],
)
def test_what_cannot_be_is_named(url: str, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    """Bad URLs and options raise when they are used, and say what is wrong."""
    with pytest.raises(kind, match=message):
        fsspec.open(url, **options).open()


def test_a_url_of_another_store_is_not_read_from_this_one(tmp_path: Path) -> None:
    """A file system does not pass over the options of a URL it is given; its own it knows."""
    fs, path = url_to_fs(f"stow://file/main/k?path={tmp_path}")
    fs.pipe_file(f"stow://file/main/k?path={tmp_path}", b"1")
    assert b"1" == fs.cat_file("stow://file/main/k") == fs.cat(path)
    for use in (fs.info, fs.cat, fs.open, fs.ls, fs.glob, fs.rm):
        with pytest.raises(ConfigError, match=r"other options .* this one the path: file/main/k\)"):
            use("stow://file/main/k?path=/elsewhere")
    assert b"1" == fs.cat_file(path)


def test_a_file_system_and_its_files_can_be_pickled(tmp_path: Path) -> None:
    """The other end reads the same objects, from the same position."""
    fs = fsspec.filesystem("stow", path=str(tmp_path))
    fs.pipe_file("file/main/k", b"0123456789")
    other = pickle.loads(pickle.dumps(fs))
    assert (fs, b"0123456789") == (other, other.cat_file("file/main/k"))
    with fs.open("file/main/k") as file:
        file.seek(4)
        with pickle.loads(pickle.dumps(file)) as again:
            assert b"456789" == again.read()
