"""Local directories are listed in the order of their keys, page by page, as a sorted list of keys would be."""

import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore.driver import Container, DriverPage
from stowstore.locations.local import LocalLocation
from tests.locations.local_files import all_keys, container_at, keys_of, put

_SEGMENT = st.text(st.sampled_from("ab-.0~ /\u00e9\uffee\U0001f600"), min_size=1, max_size=3)
_KEY = st.lists(_SEGMENT.map(lambda text: text.replace("/", "") or "a"), min_size=1, max_size=4).map("/".join)


def _allowed(key: str) -> bool:
    return not {".", ".."} & set(key.split("/"))


def _without_nesting(keys: set[str]) -> list[str]:
    """The keys that can be files together, in the order of their bytes."""
    kept: set[str] = set()
    for key in sorted(keys, key=len):
        if not any(key.startswith(f"{other}/") for other in kept):
            kept.add(key)
    return sorted(kept, key=str.encode)


def _model(keys: list[str], prefix: str, after: str, delimiter: str) -> list[str]:
    """What the names of a listing are by definition, common prefixes among them."""
    names: list[str] = []
    for key in keys:
        if key.startswith(prefix):
            cut = key.find("/", len(prefix)) if delimiter else -1
            name = key if cut < 0 else key[: cut + 1]
            passed = bool(delimiter) and after.endswith("/") and key.startswith(after)
            if key.encode() > after.encode() and not passed and name not in names:
                names.append(name)
    return names


def _names_of(page: DriverPage) -> list[str]:
    return sorted([*keys_of(page), *page.prefixes], key=str.encode)


@given(
    keys=st.sets(_KEY.filter(_allowed), max_size=12),
    prefix=st.sampled_from(["", "a", "a/", "a-", "b/a", "a/b/", "z", "\u00e9"]),
    delimiter=st.sampled_from(["", "/"]),
    limit=st.integers(1, 4),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_pages_are_those_of_a_sorted_list(
    tmp_path_factory: pytest.TempPathFactory,
    keys: set[str],
    prefix: str,
    delimiter: str,
    limit: int,
    data: st.DataObject,
) -> None:
    """For any tree, prefix, delimiter and start a page has the next names in byte order, and says if more follow."""
    expected = _without_nesting(keys)
    with container_at(tmp_path_factory.mktemp("tree")) as container:
        for key in expected:
            put(container, key, b"")
        starts = [*expected, *(f"{key.rpartition('/')[0]}/" for key in expected if "/" in key), "", "a", "a/", "a0"]
        after = data.draw(st.sampled_from(starts))
        names = _model(expected, prefix, after, delimiter)
        page = container.list(prefix, after, limit, delimiter)
        assert _names_of(page) == names[:limit]
        assert page.more == (len(names) > limit)
        assert all_keys(container, page=limit) == expected


def test_directories_sort_with_their_slash(tmp_path: Path) -> None:
    """A directory's keys come where its name with a slash belongs: between ``a-b`` and ``a0``."""
    with container_at(tmp_path) as container:
        for key in ("a0", "a/z", "a-b", "a.txt", "b"):
            put(container, key)
        assert all_keys(container) == ["a-b", "a.txt", "a/z", "a0", "b"]
        page = container.list("", "", 10, "/")
        assert (keys_of(page), page.prefixes) == (["a-b", "a.txt", "a0", "b"], ["a/"])


def test_pages_of_ten(tmp_path: Path) -> None:
    """25 objects in pages of ten are 10, 10 and 5, then the end."""
    with container_at(tmp_path) as container:
        keys = [f"item-{number:02}" for number in range(25)]
        for key in keys:
            put(container, key)
        pages = [container.list("", after, 10, "") for after in ("", "item-09", "item-19", "item-24")]
        assert [(len(page.entries), page.more) for page in pages] == [(10, True), (10, True), (5, False), (0, False)]


def test_a_cursor_outlives_its_object(tmp_path: Path) -> None:
    """A listing goes on behind a key that was deleted, directories and all, and sees what came meanwhile."""
    with container_at(tmp_path) as container:
        for key in ("a/1", "a/2", "b/1", "c"):
            put(container, key)
        assert keys_of(container.list("", "", 2, "")) == ["a/1", "a/2"]
        container.delete("a/1")
        container.delete("a/2")
        put(container, "a/3")
        assert keys_of(container.list("", "a/2", 10, "")) == ["a/3", "b/1", "c"]


def test_what_is_no_object_is_left_out(tmp_path: Path) -> None:
    """Links, sockets, pipes, names that are not UTF-8 and keys no reference can express are counted, once."""
    with container_at(tmp_path) as container:
        for key in ("a", "d/k", "z"):
            put(container, key)
        root = tmp_path / "c"
        (root / "link").symlink_to("a")
        (root / "loop").symlink_to("loop")
        (root / "dirlink").symlink_to("d")
        (root / "empty").mkdir()
        os.mkfifo(root / "pipe")
        with socket.socket(socket.AF_UNIX) as listener:
            before = os.getcwd()
            os.chdir(root)
            listener.bind("socket")
            os.chdir(before)
        Path(os.fsdecode(bytes(root) + b"/not-utf8-\xff")).touch()
        os.mkdir(bytes(root) + b"/dir-\xff")
        deep = root
        for _ in range(6):
            deep = deep / ("d" * 200)
            deep.mkdir()
        (deep / "x").touch()
        pages = [container.list("", "", 10, "")]
        assert (keys_of(pages[0]), pages[0].omitted, pages[0].more) == (["a", "d/k", "z"], 8, False)
        after = ""
        omitted = 0
        for _ in range(3):
            page = container.list("", after, 1, "")
            after = keys_of(page)[-1]
            omitted += page.omitted
        assert omitted == 8
        assert container.list("", "", 10, "/").prefixes == ["d/"]
        for key in ("link", "loop", "pipe", "socket", "dirlink/k"):
            with pytest.raises(FileNotFoundError):
                container.head(key)
            with pytest.raises(FileNotFoundError):
                container.open(key, 0, None, None)


def _counting(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every call of ``scandir`` and ``stat`` the listing makes from now on."""
    calls: list[str] = []
    scandir, look = os.scandir, os.stat

    def counted_scandir(where: int) -> object:
        calls.append("scandir")
        return scandir(where)

    def counted_stat(path: str, **more: object) -> os.stat_result:
        calls.append("stat")
        return look(path, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("stowstore.locations.local.listing.os.scandir", counted_scandir)
    monkeypatch.setattr("stowstore.locations.local.listing.os.stat", counted_stat)
    return calls


def _fill(root: Path, directories: int, files: int) -> None:
    for number in range(directories):
        (root / f"d{number:03}").mkdir(parents=True)
        for name in range(files):
            (root / f"d{number:03}" / f"f{name:03}").touch()


def test_a_page_walks_only_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first page and one from the middle read the directories on the way, and look at no other file."""
    with container_at(tmp_path) as container:
        _fill(tmp_path / "c", 50, 20)
        calls = _counting(monkeypatch)
        for after, first in (("", "d000/f000"), ("d030/f009", "d030/f010"), ("d030", "d030/f000")):
            calls.clear()
            page = container.list("", after, 10, "")
            assert keys_of(page)[0] == first
            assert calls.count("scandir") <= 3
            assert calls.count("stat") <= 12
        calls.clear()
        assert len(container.list("d04", "", 1000, "").entries) == 200
        assert calls.count("scandir") == 11


@pytest.fixture
def settled(tmp_path: Path) -> Container:
    """A container with one large directory that nobody changed for a while."""
    location = LocalLocation(str(tmp_path))
    location.create_container("c")
    for number in range(5000):
        (tmp_path / "c" / f"{number:04}").touch()
    os.utime(tmp_path / "c", (time.time() - 10,) * 2)
    return location.container("c")


def test_a_large_directory_is_read_once(settled: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of one large directory share one reading of its names, and let go of it at the end."""
    _wait_for_ctime(settled)
    calls = _counting(monkeypatch)
    assert len(all_keys(settled, page=100)) == 5000
    assert calls.count("scandir") == 1
    all_keys(settled)
    assert calls.count("scandir") == 2


def test_changes_between_pages_are_seen(settled: Container, tmp_path: Path) -> None:
    """Names that were kept from the last page do not hide what came or went since."""
    _wait_for_ctime(settled)
    assert len(settled.list("", "", 100, "").entries) == 100
    put(settled, "0500-new")
    (tmp_path / "c" / "0501").unlink()
    assert keys_of(settled.list("", "0499", 4, "")) == ["0500", "0500-new", "0502", "0503"]
    settled.delete("0502")
    assert keys_of(settled.list("", "0499", 3, "")) == ["0500", "0500-new", "0503"]


def _wait_for_ctime(container: Container) -> None:
    """The time of the last change of a directory cannot be set, only waited for."""
    time.sleep(1.1)
