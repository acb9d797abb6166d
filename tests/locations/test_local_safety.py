"""No key, link or name leads out of the root of a local location, on kernels old and new."""

import ctypes
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from datastore.driver import Container
from datastore.errors import NotFound, PermissionDenied, StoreError
from datastore.model import WriteOptions
from stowstore.locations.local import LocalLocation, paths
from tests.locations.local_files import all_keys, container_at, get, put


@pytest.fixture(params=["openat2", "by segment"])
def container(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Container]:
    """A container below ``tmp_path / "root"``; a secret lies outside it."""
    if request.param == "openat2" and not paths.openat2_works():
        pytest.skip("the kernel, or the sandbox, has no openat2")
    monkeypatch.setattr(paths, "openat2_works", lambda: request.param == "openat2")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    with container_at(tmp_path / "root") as found:
        yield found


def _check_outside(tmp_path: Path) -> None:
    assert os.listdir(tmp_path / "outside") == ["secret"]
    assert (tmp_path / "outside" / "secret").read_bytes() == b"secret"


@pytest.mark.parametrize("where", ["outside", "inside", "relative", "dangling"])
def test_links_to_files_are_never_followed(container: Container, tmp_path: Path, where: str) -> None:
    """A planted link is no object: it is not read, a write replaces the link itself, a delete leaves all alone."""
    put(container, "target", b"inside")
    link = tmp_path / "root" / "c" / "link"
    targets = {
        "outside": str(tmp_path / "outside" / "secret"),
        "inside": "target",
        "relative": "../../outside/secret",
        "dangling": str(tmp_path / "outside" / "new"),
    }
    link.symlink_to(targets[where])
    with pytest.raises(NotFound, match="link"):
        container.head("link")
    with pytest.raises(NotFound):
        container.open("link", 0, None, None)
    with pytest.raises(NotFound):
        container.copy("copy", container, "link", None)
    container.delete("link")
    assert link.is_symlink()
    assert all_keys(container) == ["target"]
    put(container, "link", b"replaced")
    assert not link.is_symlink()
    assert (get(container, "link"), get(container, "target")) == (b"replaced", b"inside")
    _check_outside(tmp_path)


@pytest.mark.parametrize("target", ["outside", "relative", "inside"])
def test_links_to_directories_are_never_followed(container: Container, tmp_path: Path, target: str) -> None:
    """Nothing is read, written, listed, made or removed through a link to a directory."""
    put(container, "d/k", b"inside")
    link = tmp_path / "root" / "c" / "link"
    targets = {"outside": str(tmp_path / "outside"), "relative": "../../outside", "inside": "d"}
    link.symlink_to(targets[target])
    for key in ("link/secret", "link/k", "link/a/b"):
        with pytest.raises(NotFound):
            container.head(key)
        with pytest.raises(NotFound):
            container.open(key, 0, None, None)
        container.delete(key)
        for options in (WriteOptions(), WriteOptions(if_absent=True), WriteOptions(metadata={"a": "1"})):
            with pytest.raises(StoreError):
                put(container, key, b"x", metadata=options.metadata, if_absent=options.if_absent)
    assert all_keys(container, "link/") == []
    assert all_keys(container) == ["d/k"]
    assert container.list("", "", 10, "/").prefixes == ["d/"]
    _check_outside(tmp_path)
    assert get(container, "d/k") == b"inside"


def test_a_link_in_the_place_of_the_container(container: Container, tmp_path: Path) -> None:
    """A container that became a link to elsewhere is none."""
    (tmp_path / "root" / "c").rmdir()
    (tmp_path / "root" / "c").symlink_to(tmp_path / "outside")
    for call in (container.head, lambda key: put(container, key), lambda key: put(container, f"a/{key}")):
        with pytest.raises(FileNotFoundError):
            call("secret")
    container.delete("secret")
    with pytest.raises(FileNotFoundError):
        all_keys(container)
    _check_outside(tmp_path)


@pytest.mark.parametrize("part", [".stow", ".stow/tmp", ".stow/meta", ".stow/meta/c"])
def test_a_link_in_the_reserved_area(tmp_path: Path, part: str) -> None:
    """Links planted where drafts and metadata lie stop writes instead of moving them elsewhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    (root / part).parent.mkdir(parents=True)
    (root / part).symlink_to(outside)
    (root / "c").mkdir()
    container = LocalLocation(str(root)).container("c")
    with pytest.raises((PermissionDenied, NotFound, StoreError)):
        put(container, "k", metadata={"a": "1"})
    assert list(outside.rglob("*")) == []
    assert all_keys(container) == []


@pytest.mark.parametrize("key", ["../outside/secret", "a/../../outside/secret", "..", "a/..", "../c/k"])
def test_climbing_is_refused_by_the_driver_too(container: Container, tmp_path: Path, key: str) -> None:
    """Dot segments never get here; if they did, the kernel would refuse to leave the root, and nothing is written."""
    put(container, "a/x")
    for call in (
        container.head,
        lambda key: container.open(key, 0, None, None),
        lambda key: put(container, key),
        container.delete,
    ):
        try:
            call(key)
        except StoreError:
            pass
    _check_outside(tmp_path)


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    """Whoever configures a location chooses its root; links on the way there are followed."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with container_at(tmp_path / "link") as container:
        put(container, "k", b"1")
    assert (tmp_path / "real" / "c" / "k").read_bytes() == b"1"


def test_swapping_a_directory_for_a_link_wins_nothing(container: Container, tmp_path: Path) -> None:
    """An attacker who swaps a directory and a link as fast as possible never makes a read or write go outside."""
    root = tmp_path / "root" / "c"
    put(container, "d/secret", b"inside")
    (root / "evil").symlink_to(tmp_path / "outside")
    stop = threading.Event()
    exchange = ctypes.CDLL(None, use_errno=True).renameat2
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            swaps += exchange(-100, bytes(root / "d"), -100, bytes(root / "evil"), 2) == 0

    attacker = threading.Thread(target=swap)
    attacker.start()
    seen: set[bytes] = set()
    try:
        for number in range(1500):
            try:
                seen.add(get(container, "d/secret"))
            except StoreError:
                pass
            if number % 3 == 0:
                try:
                    put(container, "d/secret", b"inside")
                    container.delete("d/other")
                    all_keys(container)
                except StoreError:
                    pass
    finally:
        stop.set()
        attacker.join()
    assert swaps > 100
    assert seen == {b"inside"}
    _check_outside(tmp_path)


def test_pipes_and_devices_do_not_block(container: Container, tmp_path: Path) -> None:
    """A pipe nobody writes to is no object; looking at it does not wait."""
    os.mkfifo(tmp_path / "root" / "c" / "pipe")
    for call in (container.head, lambda key: container.open(key, 0, None, None)):
        with pytest.raises(NotFound):
            call("pipe")
    put(container, "pipe", b"replaced")
    assert stat.S_ISREG((tmp_path / "root" / "c" / "pipe").stat().st_mode)


def test_no_descriptor_is_lost(container: Container) -> None:
    """Whatever succeeds or fails, every descriptor is closed again."""
    put(container, "a/k", metadata={"a": "1"})

    def use() -> None:
        for key in ("a/k", "a", "a/k/x", "missing", "x" * 300):
            for call in (
                container.head,
                lambda key: container.open(key, 0, None, None).close(),
                lambda key: container.open(key, 0, None, "other"),
                lambda key: put(container, key, b"1", if_match="other"),
                lambda key: put(container, key, b"1", if_absent=True),
                lambda key: container.list(key, "", 1, "/"),
                lambda key: container.copy("copy", container, key, None),
            ):
                try:
                    call(key)
                except StoreError:
                    pass
        container.delete("copy")

    use()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        use()
    assert len(os.listdir("/proc/self/fd")) == before
