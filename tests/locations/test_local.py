"""Objects on local disk are plain files, written whole, with their metadata beside them."""

import io
import os
import pickle
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datastore.driver import Container
from datastore.errors import (
    AlreadyExists,
    ConfigError,
    ContainerNotEmpty,
    ContainerTaken,
    InvalidReference,
    NoSuchContainer,
    NotFound,
    NotSupported,
    PermissionDenied,
    PreconditionFailed,
    SizeMismatch,
    StoreError,
    TransientError,
    error_code,
)
from datastore.model import WriteOptions
from datastore.source import Source
from stowstore.locations.base import Dial
from stowstore.locations.local import KIND, FsyncMode, LocalLocation
from stowstore.locations.registry import load_kind
from tests.locations.local_files import all_keys, container_at, drafts_of, get, put


@pytest.fixture(params=list(FsyncMode))
def container(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Container]:
    """A container below ``tmp_path / "root"``, in every mode of syncing."""
    with container_at(tmp_path / "root", request.param) as found:
        yield found


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The directory of the container."""
    return tmp_path / "root" / "c"


# -- the kind ---------------------------------------------------------------------------------------------------------


def test_the_kind_has_upstreams_name_too() -> None:
    """``file`` and upstream's ``local`` are one kind, for references of scheme ``file``."""
    assert load_kind("local") is load_kind("file") is KIND
    assert KIND.schemes == ("file",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "missing path"),
        ({"path": ""}, "missing path"),
        ({"path": "/x", "fsync": "always"}, "never, data, full"),
        ({"pth": "/x"}, "did you mean 'path'"),
    ],
)
def test_options_are_checked(options: dict[str, str], message: str) -> None:
    """A missing root, an unknown option or mode is refused by name when the location is configured."""
    with pytest.raises(ConfigError, match=message):
        KIND.check(options)


def test_dialling_touches_nothing(tmp_path: Path) -> None:
    """A root comes into being with its first container, not by dialling, looking or listing."""
    root = tmp_path / "new" / "root"
    location = KIND.dial(Dial(options=KIND.check({"path": str(root)})))
    assert not location.has_container("c")
    assert list(location.list_containers()) == []
    with pytest.raises(NoSuchContainer, match="there is no directory"):
        put(location.container("c"), "k")
    assert not root.exists()
    location.create_container("c")
    assert (root / "c").is_dir()


def test_reading_leaves_no_trace(tmp_path: Path) -> None:
    """A root that is only read gets no reserved directory, so it may be read-only."""
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "k").write_bytes(b"foreign")
    container = LocalLocation(str(tmp_path)).container("c")
    assert get(container, "k") == b"foreign"
    assert all_keys(container) == ["k"]
    container.delete("missing")
    assert os.listdir(tmp_path) == ["c"]


def test_home_and_relative_roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` is the home directory; a relative root is that of the moment it was dialled."""
    monkeypatch.setenv("HOME", str(tmp_path))
    LocalLocation("~/data").create_container("c")
    assert (tmp_path / "data" / "c").is_dir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    location = LocalLocation("./data")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert location.has_container("c")


def test_a_location_can_be_pickled(tmp_path: Path) -> None:
    """A location sent to another process opens the same root there."""
    location = LocalLocation(str(tmp_path), fsync=FsyncMode.DATA)
    location.create_container("c")
    put(location.container("c"), "k", b"1")
    assert get(pickle.loads(pickle.dumps(location)).container("c"), "k") == b"1"


def test_a_closed_location_says_so(tmp_path: Path) -> None:
    """After ``close`` nothing is opened anew, and open streams can be read to their end."""
    location = LocalLocation(str(tmp_path))
    location.create_container("c")
    container = location.container("c")
    put(container, "k", bytes(1 << 20))
    stream = container.open("k", 0, None, None)
    location.close()
    with pytest.raises(StoreError, match="closed"):
        container.head("k")
    assert len(stream.read()) == 1 << 20


def test_a_root_made_anew_is_found(tmp_path: Path) -> None:
    """A root that was removed and made again under a location serves it."""
    root = tmp_path / "root"
    with container_at(root) as container:
        put(container, "k", b"old")
        root.rename(tmp_path / "away")
        (root / "c").mkdir(parents=True)
        (tmp_path / "away" / "c" / "k").unlink()
        (tmp_path / "away" / "c").rmdir()
        (root / "c" / "k").write_bytes(b"new")
        with pytest.raises(NotFound):
            container.head("k")
        assert get(container, "k") == b"new"


# -- containers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "../c", ".stow", "a\0b", "x" * 256, "\udcff"])
def test_container_names(tmp_path: Path, name: str) -> None:
    """A container is one path segment; the reserved one and those that are none are refused everywhere."""
    location = LocalLocation(str(tmp_path))
    for call in (location.container, location.has_container, location.create_container, location.delete_container):
        with pytest.raises(InvalidReference, match="no directory can be the container"):
            call(name)


def test_containers_are_listed_without_a_synthetic_one(tmp_path: Path) -> None:
    """Containers are the directories of the root, ascending, with neither files, links nor an ``All``."""
    location = LocalLocation(str(tmp_path))
    for name in ("two", "one", "z links", "three"):
        location.create_container(name)
    location.create_container("one")
    put(location.container("one"), "k")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert list(location.list_containers()) == ["one", "three", "two", "z links"]
    assert list(location.list_containers("t")) == ["three", "two"]


def test_a_file_in_the_place_of_a_container(tmp_path: Path) -> None:
    """A name that a file or a link has is taken, and holds nothing."""
    location = LocalLocation(str(tmp_path))
    (tmp_path / "file").touch()
    (tmp_path / "dir").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "dir")
    for name in ("file", "link"):
        assert not location.has_container(name)
        with pytest.raises(ContainerTaken, match=name):
            location.create_container(name)
        with pytest.raises(NoSuchContainer):
            location.delete_container(name)
        for call in (lambda c: c.head("k"), lambda c: put(c, "k"), lambda c: put(c, "a/b"), all_keys):
            with pytest.raises(NoSuchContainer):
                call(location.container(name))
    assert os.listdir(tmp_path / "dir") == []


def test_only_empty_containers_are_removed(tmp_path: Path) -> None:
    """Empty directories hold no objects; any file keeps its container, and a missing one is named."""
    location = LocalLocation(str(tmp_path))
    location.create_container("c")
    (tmp_path / "c" / "a" / "b").mkdir(parents=True)
    (tmp_path / "c" / "a" / "link").symlink_to("/etc")
    with pytest.raises(ContainerNotEmpty):
        location.delete_container("c")
    assert (tmp_path / "c" / "a" / "b").is_dir()
    (tmp_path / "c" / "a" / "link").unlink()
    location.delete_container("c")
    assert not (tmp_path / "c").exists()
    with pytest.raises(NoSuchContainer, match="'c'"):
        location.delete_container("c")


def test_metadata_do_not_outlive_their_container(tmp_path: Path) -> None:
    """A container made anew knows nothing of its predecessor, even of objects removed by other programs."""
    location = LocalLocation(str(tmp_path))
    location.create_container("c")
    put(location.container("c"), "k", metadata={"a": "1"})
    (tmp_path / "c" / "k").unlink()
    location.delete_container("c")
    assert not list((tmp_path / ".stow" / "meta").iterdir())
    location.create_container("c")
    put(location.container("c"), "k", metadata={"b": "2"})
    assert location.container("c").head("k").user_metadata == {"b": "2"}


# -- files ------------------------------------------------------------------------------------------------------------


def test_objects_are_files(container: Container, files: Path) -> None:
    """Other programs find an object where its key says, and what they write is an object."""
    put(container, "dir with space/ünï/%41?#+", b"ours")
    assert (files / "dir with space" / "ünï" / "%41?#+").read_bytes() == b"ours"
    (files / "theirs").write_bytes(b"theirs")
    assert get(container, "theirs") == b"theirs"
    assert container.head("theirs").size == 6


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    """Files and directories are never open to everybody's writing, and less if the umask says so."""
    for umask, file, directory in ((0o000, 0o664, 0o775), (0o077, 0o600, 0o700)):
        before = os.umask(umask)
        try:
            with container_at(tmp_path / oct(umask)) as container:
                put(container, "a/k")
        finally:
            os.umask(before)
        root = tmp_path / oct(umask) / "c"
        assert stat.S_IMODE((root / "a" / "k").stat().st_mode) == file
        assert stat.S_IMODE((root / "a").stat().st_mode) == directory


def test_plain_writes_leave_only_the_file(container: Container, tmp_path: Path) -> None:
    """Without metadata nothing is kept beside, and no draft is left."""
    put(container, "a/k", b"1")
    put(container, "a/k", io.BytesIO(bytes(3 << 20)))
    assert os.listdir(tmp_path / "root" / ".stow") == ["tmp"]
    assert drafts_of(tmp_path / "root") == []


def test_metadata_belong_to_one_version(container: Container, files: Path) -> None:
    """Metadata go with the file they were written with: another program's file of that name has none."""
    put(container, "k", b"12345", metadata={"a": "1"}, content_type="text/csv")
    assert (container.head("k").user_metadata, container.head("k").content_type) == ({"a": "1"}, "text/csv")
    replacement = files / "new"
    replacement.write_bytes(b"54321")
    replacement.rename(files / "k")
    assert (container.head("k").user_metadata, container.head("k").content_type) == ({}, None)
    (files / "k").write_bytes(b"in place")
    assert container.head("k").user_metadata == {}


def test_a_stream_knows_the_metadata_of_what_it_reads(container: Container) -> None:
    """What was opened keeps its bytes and metadata, although the object was replaced twice since."""
    put(container, "k", b"1" * 300_000, metadata={"version": "1"})
    with container.open("k", 0, None, None) as stream:
        put(container, "k", b"2", metadata={"version": "2"})
        put(container, "k", b"3", metadata={"version": "3"})
        assert stream.metadata.user_metadata == {"version": "1"}
        assert stream.read() == b"1" * 300_000
    assert container.head("k").user_metadata == {"version": "3"}


@pytest.mark.parametrize("had_metadata", [True, False])
def test_a_crash_between_metadata_and_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, had_metadata: bool) -> None:
    """A writer that dies before its rename leaves the old object with the old metadata."""
    with container_at(tmp_path) as container:
        if had_metadata:
            put(container, "k", b"old", metadata={"old": "1"})
        else:
            put(container, "k", b"old")

        def die(*args: object, **more: object) -> None:
            raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr("stowstore.locations.local.tree.Tree.move", die)
            with pytest.raises(SystemExit):
                put(container, "k", b"new", metadata={"new": "1"})
        assert container.head("k").user_metadata == ({"old": "1"} if had_metadata else {})
        assert get(container, "k") == b"old"


def test_a_damaged_sidecar_does_not_hide_the_object(tmp_path: Path) -> None:
    """The bytes are what matters: where the machine crashed into the metadata, there are none."""
    with container_at(tmp_path) as container:
        put(container, "k", b"1", metadata={"a": "1"})
        (sidecar,) = (path for path in (tmp_path / ".stow" / "meta").rglob("*") if path.is_file())
        for damage in (b"", b"{", b"[]", b'{"key": "k", "versions": [{"file": [1]}]}', b"\xff", b'{"key": "other"}'):
            sidecar.write_bytes(damage)
            assert container.head("k").user_metadata == {}
            assert get(container, "k") == b"1"
        put(container, "k", b"2", metadata={"a": "2"})
        assert container.head("k").user_metadata == {"a": "2"}


def test_etags_tell_quick_writes_apart(container: Container) -> None:
    """Equal content written again and again within a tick of the file system's clock has a new etag each time."""
    etags = [put(container, "k", b"same") for _ in range(200)]
    assert len(set(etags)) == 200
    assert container.head("k").etag == etags[-1]
    (entry,) = container.list("", "", 10, "").entries
    assert entry.etag == etags[-1]


def test_times_are_those_of_the_file(container: Container, files: Path) -> None:
    """``last_modified`` is aware, and the same from head, stream and listing."""
    before = time.time()
    put(container, "k")
    known = container.head("k").last_modified
    assert known is not None
    assert known.tzinfo is not None
    assert before - 1 <= known.timestamp() <= time.time() + 1
    assert container.list("", "", 1, "").entries[0].last_modified == known
    assert abs((files / "k").stat().st_mtime - known.timestamp()) < 1e-5


# -- a file cannot be a directory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"if_absent": True}, {"metadata": {"a": "1"}}], ids=str)
def test_nested_keys_are_refused(container: Container, options: dict[str, object]) -> None:
    """``a`` and ``a/b`` cannot both exist; the error says which is in the way, and nothing changes."""
    put(container, "a", b"file")
    put(container, "d/x", b"below")
    with pytest.raises(NotSupported, match="a part of the key before a slash is an object itself"):
        put(container, "a/b", b"x", **options)
    with pytest.raises(NotSupported, match="there are objects below this key"):
        put(container, "d", b"x", **options)
    assert all_keys(container) == ["a", "d/x"]


def test_looking_through_files_and_at_directories(container: Container) -> None:
    """A path through a file, or of a directory, names no object; deleting it deletes nothing (upstream crashed)."""
    put(container, "a", b"file")
    put(container, "d/x", b"below")
    for key in ("a/b", "a/b/c", "d", "missing", "missing/k"):
        with pytest.raises(NotFound) as caught:
            container.head(key)
        assert not isinstance(caught.value, NoSuchContainer)
        with pytest.raises(NotFound):
            container.open(key, 0, None, None)
        container.delete(key)
    assert all_keys(container) == ["a", "d/x"]


def test_an_empty_directory_is_not_in_the_way(container: Container, files: Path) -> None:
    """A directory without objects, as other programs leave it, gives way to an object."""
    (files / "d").mkdir()
    put(container, "d", b"object")
    (files / "e").mkdir()
    put(container, "e", b"object", if_absent=True)
    assert all_keys(container) == ["d", "e"]


def test_long_segments(container: Container) -> None:
    """A segment beyond what the file system takes is refused with the reason, whatever is asked."""
    put(container, "x" * 255, b"fits")
    for call in (
        lambda key: put(container, key),
        container.head,
        lambda key: container.open(key, 0, None, None),
        container.delete,
    ):
        for key in ("x" * 256, f"a/{'ü' * 128}/b"):
            with pytest.raises(InvalidReference, match="255 bytes"):
                call(key)
    assert all_keys(container, "x" * 256) == []
    assert all_keys(container) == ["x" * 255]


def test_the_longest_key(container: Container) -> None:
    """A key of 1,024 bytes is an object like any other."""
    key = "/".join(["d" * 200] * 5)
    key += "x" * (1024 - len(key))
    assert len(key) == 1024
    put(container, key, b"deep")
    assert all_keys(container) == [key]
    container.delete(key)
    assert all_keys(container) == []


# -- writing ----------------------------------------------------------------------------------------------------------


class _Breaking(io.RawIOBase):
    """A stream that fails half-way with the caller's own error, here one that looks like ours."""

    def __init__(self) -> None:
        self._left = 3

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        self._left -= 1
        if not self._left:
            raise OSError(28, "the caller's own disk is full")
        return b"x" * 100_000


def test_the_callers_error_passes_through(container: Container, tmp_path: Path) -> None:
    """An OSError of the source is not taken for one of the disk, and what was written is gone."""
    put(container, "k", b"old")
    with pytest.raises(OSError, match="caller's own disk") as caught:
        put(container, "k", _Breaking())
    assert not isinstance(caught.value, StoreError)
    assert get(container, "k") == b"old"
    assert drafts_of(tmp_path / "root") == []


def test_a_wrong_size_leaves_nothing(container: Container, tmp_path: Path) -> None:
    """A source that is longer or shorter than declared changes nothing."""
    for declared in (1, 10):
        with pytest.raises(SizeMismatch):
            container.put("d/k", Source(io.BytesIO(b"12345"), declared), WriteOptions())
    assert all_keys(container) == []
    assert drafts_of(tmp_path / "root") == []


def test_conditions_fail_before_the_source_is_read(container: Container) -> None:
    """A write that cannot succeed does not use up a source, nor does one to a container that is not there."""
    put(container, "k", b"old")
    source = io.BytesIO(b"unread")
    for options, error in (
        (WriteOptions(if_absent=True), AlreadyExists),
        (WriteOptions(if_match="x"), PreconditionFailed),
    ):
        with pytest.raises(error):
            container.put("k", Source(source), options)
    assert source.tell() == 0


def test_a_stream_to_a_missing_container_is_not_read(tmp_path: Path) -> None:
    """The store may make the container and write once more, so what cannot be rewound is not touched."""
    location = LocalLocation(str(tmp_path))
    location.create_container("other")
    pieces = iter([b"unread"])
    with pytest.raises(NoSuchContainer):
        location.container("c").put("a/k", Source(pieces), WriteOptions())
    assert next(pieces) == b"unread"
    with pytest.raises(NoSuchContainer):
        put(location.container("c"), "a/k", b"in memory")
    with pytest.raises(NoSuchContainer):
        put(location.container("c"), "a/k", b"in memory", metadata={"a": "1"})
    assert not (tmp_path / "c").exists()
    assert drafts_of(tmp_path) == []


def test_abandoned_drafts_are_swept(tmp_path: Path) -> None:
    """Drafts of crashed writers are never listed, and go after a day; younger ones may still be written."""
    with container_at(tmp_path) as container:
        put(container, "k")
    old, young = tmp_path / ".stow" / "tmp" / "old", tmp_path / ".stow" / "tmp" / "young"
    for draft, age in ((old, 90_000), (young, 80_000)):
        draft.write_bytes(b"half")
        os.utime(draft, (time.time() - age,) * 2)
    with container_at(tmp_path) as container:
        assert all_keys(container) == ["k"]
        put(container, "l")
    assert drafts_of(tmp_path) == ["young"]


def test_a_removed_area_is_made_again(tmp_path: Path) -> None:
    """Somebody who tidies ``.stow`` away loses metadata, and nothing else stops working."""
    with container_at(tmp_path) as container:
        put(container, "k", metadata={"a": "1"})
        (tmp_path / ".stow").rename(tmp_path.parent / f"{tmp_path.name}-away")
        assert container.head("k").user_metadata == {}
        etag = put(container, "l", metadata={"b": "2"})
        assert container.head("l").user_metadata == {"b": "2"}
        put(container, "l", b"more", if_match=etag)


# -- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4096, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 3 << 20])
def test_ranges(tmp_path: Path, size: int) -> None:
    """Ranges of small and large objects are clipped, and count from the end when negative."""
    data = os.urandom(size)
    with container_at(tmp_path) as container:
        put(container, "k", data)
        for start in (0, 1, size // 2, size - 1, size, size + 1, -1, -size, -size - 1):
            for length in (None, 0, 1, size // 2, size, size + 1):
                first = max(0, size + start) if start < 0 else start
                want = data[first : None if length is None else first + length]
                with container.open("k", start, length, None) as stream:
                    assert (stream.size, stream.metadata.size) == (len(want), size)
                    assert stream.read() == want


def test_reading_only_what_is_known(container: Container) -> None:
    """A read may insist on an etag."""
    etag = put(container, "k", b"1")
    assert container.open("k", 0, None, etag).read() == b"1"
    put(container, "k", b"2")
    with pytest.raises(PreconditionFailed):
        container.open("k", 0, None, etag)


def test_a_file_cut_while_it_is_read(container: Container, files: Path) -> None:
    """A file that another program truncates under a stream fails as a retryable error, never as the end."""
    put(container, "k", bytes(2 << 20))
    with container.open("k", 0, None, None) as stream:
        stream.read(1 << 20)
        os.truncate(files / "k", 1 << 20)
        with pytest.raises(TransientError, match="ended after"):
            stream.read()


# -- deleting and copying -----------------------------------------------------------------------------------------


def test_deleting_prunes_empty_directories(container: Container, files: Path) -> None:
    """Directories go with their last object, up to the container, which stays; so do the metadata."""
    put(container, "a/b/c/k", metadata={"a": "1"})
    put(container, "a/l")
    container.delete("a/b/c/k")
    assert sorted(path.name for path in files.rglob("*")) == ["a", "l"]
    container.delete("a/l")
    assert os.listdir(files) == []
    assert not [path for path in (files.parent / ".stow" / "meta").rglob("*") if path.is_file()]
    container.delete("a/l")


def test_deleting_stays_inside(container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key is one below the container, not below the working directory (upstream deleted there)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "k").write_bytes(b"unrelated")
    put(container, "k")
    container.delete("k")
    assert (tmp_path / "k").exists()
    assert all_keys(container) == []


def test_deleting_many(container: Container) -> None:
    """Those that cannot be deleted are told one by one."""
    put(container, "a")
    put(container, "b/c")
    failed = container.delete_many(["a", "x" * 256, "b/c", "missing"])
    assert list(failed) == ["x" * 256]
    assert all_keys(container) == []


@pytest.mark.parametrize("size", [0, 10, 5 << 20])
def test_copying(tmp_path: Path, size: int) -> None:
    """A copy is made inside the kernel, with the metadata carried over or replaced, between containers too."""
    location = LocalLocation(str(tmp_path))
    for name in ("c", "d"):
        location.create_container(name)
    source, target = location.container("c"), location.container("d")
    data = os.urandom(size)
    put(source, "k", data, metadata={"a": "1"}, content_type="text/csv")
    etag = target.copy("x/k", source, "k", None)
    known = target.head("x/k")
    assert get(target, "x/k") == data
    assert (known.etag, known.user_metadata, known.content_type) == (etag, {"a": "1"}, "text/csv")
    source.copy("k", source, "k", WriteOptions(metadata={"b": "2"}))
    assert (get(source, "k"), source.head("k").user_metadata) == (data, {"b": "2"})
    with pytest.raises(AlreadyExists):
        target.copy("x/k", source, "k", WriteOptions(if_absent=True))
    with pytest.raises(NotFound):
        target.copy("x/k", source, "missing", None)
    assert drafts_of(tmp_path) == []


def test_permissions(tmp_path: Path) -> None:
    """What the system forbids is PermissionDenied, not absence."""
    user = os.geteuid()
    with container_at(tmp_path) as container:
        put(container, "d/k")
        (tmp_path / "c" / "d").chmod(0)
        try:
            if user == 0:
                os.seteuid(65534)  # root may do everything
            for call in (container.head, lambda key: put(container, key), container.delete):
                with pytest.raises(PermissionDenied):
                    call("d/k")
            with pytest.raises(PermissionDenied):
                all_keys(container)
        finally:
            os.seteuid(user)
            (tmp_path / "c" / "d").chmod(0o700)
        assert all_keys(container) == ["d/k"]


def test_errors_keep_their_cause(container: Container) -> None:
    """A translated error has the system's own as its cause, and a code from the list."""
    with pytest.raises(NotFound) as caught:
        container.head("missing")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert error_code(caught.value) == "NOT_FOUND"
