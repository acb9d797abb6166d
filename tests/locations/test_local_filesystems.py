"""Local disk on file systems with surprises: full ones, small ones, read-only ones, mounts below a root."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from datastore.driver import Container
from datastore.errors import NotSupported, PermissionDenied, StoreError
from datastore.model import WriteOptions
from stowstore.locations.local import FsyncMode, LocalLocation
from tests.locations.local_files import all_keys, container_at, drafts_of, get, put


def _mount(directory: Path, *arguments: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    directory.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *arguments, str(directory)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this machine does not let us mount: {done.stderr.strip()}")


def _unmount(directory: Path) -> None:
    if os.path.ismount(directory):
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory of 2 MiB and 64 inodes."""
    directory = tmp_path / "tmpfs"
    _mount(directory, "-t", "tmpfs", "-o", "size=2m,nr_inodes=64", "tmpfs")
    yield directory
    _unmount(directory)


@pytest.fixture
def ext4(tmp_path: Path) -> Iterator[Path]:
    """A small ext4 in an image, with time stamps of whole seconds (its inodes are of the old size)."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-I", "128", "-O", "^has_journal", str(image)], check=True)
    directory = tmp_path / "ext4"
    _mount(directory, "-o", "loop", str(image))
    yield directory
    _unmount(directory)


@pytest.fixture(params=["tmpfs", "ext4"])
def small(request: pytest.FixtureRequest) -> Path:
    """Either of them, mounted."""
    path: Path = request.getfixturevalue(request.param)
    return path


def _copy_often(container: Container) -> None:
    for number in range(20):
        container.copy(f"copy{number}", container, "half", None)


def _touch_many(directory: Path) -> None:
    for number in range(100):
        (directory / f"{number:02}").touch()


def _put_many(container: Container) -> None:
    for number in range(100):
        put(container, f"d{number}/e/f/k", b"1")


@pytest.mark.parametrize("fsync", list(FsyncMode))
def test_a_full_disk(small: Path, fsync: FsyncMode) -> None:
    """A write that does not fit says so, leaves the old object and no draft, and goes through once there is space."""
    with container_at(small / "root", fsync) as container:
        put(container, "k", b"old", metadata={"a": "1"})
        for source in (bytes(16 << 20), (bytes(100_000) for _ in range(200))):
            for options in ({}, {"metadata": {"b": "2"}}):
                with pytest.raises(StoreError, match="no space is left") as caught:
                    put(container, "k", source, **options)
                assert isinstance(caught.value.__cause__, OSError)
                assert not caught.value.retryable
                if not isinstance(source, bytes):
                    break
        assert (get(container, "k"), container.head("k").user_metadata) == (b"old", {"a": "1"})
        assert drafts_of(small / "root") == []
        put(container, "half", bytes(1 << 20))
        with pytest.raises(StoreError, match="no space is left"):
            _copy_often(container)
        assert drafts_of(small / "root") == []
        for key in all_keys(container):
            container.delete(key)
        put(container, "k", bytes(1 << 20))
        assert get(container, "k") == bytes(1 << 20)


def test_no_inodes_left(tmpfs: Path) -> None:
    """Where directories or files cannot be made the error is the same, and deleting helps."""
    with container_at(tmpfs / "root") as container:
        with pytest.raises(StoreError, match="no space is left"):
            _put_many(container)
        assert drafts_of(tmpfs / "root") == []
        keys = all_keys(container)
        assert keys
        for key in keys:
            container.delete(key)
        # Directories that were made on the way to an object that did not fit hold no object.
        assert all_keys(container) == []
        put(container, "k", b"1")


def test_a_full_disk_of_foreign_files(tmpfs: Path) -> None:
    """Where not even the reserved directory fits, objects can be listed, read and deleted."""
    (tmpfs / "c").mkdir()
    with pytest.raises(OSError, match="No space"):
        _touch_many(tmpfs / "c")
    container = LocalLocation(str(tmpfs)).container("c")
    keys = all_keys(container)
    with pytest.raises(StoreError, match="no space is left"):
        put(container, "k")
    for key in keys[:10]:
        container.delete(key)
    assert all_keys(container) == keys[10:]
    put(container, "k")


def test_a_read_only_file_system(tmpfs: Path) -> None:
    """A store over read-only files reads and lists them; a write is refused as not permitted."""
    with container_at(tmpfs / "root") as container:
        put(container, "d/k", b"1", metadata={"a": "1"})
    subprocess.run(["mount", "-o", "remount,ro", str(tmpfs)], check=True)
    location = LocalLocation(str(tmpfs / "root"))
    container = location.container("c")
    assert (get(container, "d/k"), container.head("d/k").user_metadata) == (b"1", {"a": "1"})
    assert all_keys(container) == ["d/k"]
    for call in (
        lambda: put(container, "d/k"),
        lambda: put(container, "e/k", if_absent=True),
        lambda: container.delete("d/k"),
        lambda: container.copy("copy", container, "d/k", None),
        lambda: location.create_container("new"),
        lambda: location.delete_container("c"),
    ):
        with pytest.raises(PermissionDenied, match="read-only"):
            call()
    container.delete("missing")


def test_a_container_on_another_file_system(tmp_path: Path, tmpfs: Path) -> None:
    """A mount in the place of a container is read; writing there, which could not be atomic, says what to do."""
    root = tmp_path / "root"
    with container_at(root) as container:
        put(container, "here", b"1")
    (tmpfs / "k").write_bytes(b"mounted")
    (root / "mounted").mkdir()
    _mount(root / "mounted", "--bind", str(tmpfs))
    try:
        location = LocalLocation(str(root))
        mounted = location.container("mounted")
        assert get(mounted, "k") == b"mounted"
        assert all_keys(mounted) == ["k"]
        with pytest.raises(NotSupported, match="another file system"):
            put(mounted, "new")
        assert all_keys(mounted) == ["k"]
        assert drafts_of(root) == []
        mounted.delete("k")
        assert all_keys(mounted) == []
    finally:
        _unmount(root / "mounted")


def test_copies_between_file_systems(tmp_path: Path, tmpfs: Path) -> None:
    """A copy between two roots moves the bytes in the kernel where it can, and through memory where it cannot."""
    data = os.urandom(1_500_000)
    with container_at(tmp_path / "root") as disk, container_at(tmpfs / "root") as memory:
        put(disk, "k", data, metadata={"a": "1"})
        memory.copy("k", disk, "k", None)
        disk.copy("back", memory, "k", WriteOptions())
        assert get(memory, "k") == get(disk, "back") == data
        assert memory.head("k").user_metadata == {"a": "1"}


def test_coarse_time_stamps(ext4: Path) -> None:
    """Where times are whole seconds metadata still belong to one version: etags differ, as two inodes alternate."""
    with container_at(ext4 / "root") as container:
        first = put(container, "k", b"same", metadata={"n": "1"})
        second = put(container, "k", b"same", metadata={"n": "2"})
        assert first != second
        assert container.head("k").etag == second
        assert container.head("k").user_metadata == {"n": "2"}


def test_a_file_size_limit(tmp_path: Path) -> None:
    """A process that may only write small files is told so, and nothing is left."""
    script = """
import resource, signal, sys
from pathlib import Path
from datastore.errors import LimitExceeded
from tests.locations.local_files import container_at, drafts_of, put
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with container_at(Path(sys.argv[1])) as container:
    put(container, "small", bytes(1 << 20))
    try:
        put(container, "large", bytes((1 << 20) + 1))
    except LimitExceeded as error:
        assert "ulimit -f" in str(error)
    else:
        raise AssertionError("written beyond the limit")
    assert [entry.key for entry in container.list("", "", 10, "").entries] == ["small"]
    assert drafts_of(Path(sys.argv[1])) == []
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=60)
