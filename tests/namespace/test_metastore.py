"""Metadata stores: crash journals on the local disk."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.errors import ConfigError, StoreError
from stowstore.namespace.interfaces import MetaStore
from stowstore.namespace.metastore import KINDS, MemoryMetaStore, RedisMetaStore, choose_kind, open_metastore
from tests import servers
from tests.servers.requiring import are_required

DURABLE = ["sqlite", "redis"]


def need(kind: str) -> str:
    if kind == "redis":
        try:
            servers.redis.put_on_path()
        except servers.ServerUnavailable as error:
            if are_required():
                pytest.fail(str(error))
            pytest.skip(str(error))
    return kind


@pytest.fixture(params=sorted(KINDS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MetaStore]:
    """A store of each kind."""
    opened = open_metastore(need(request.param), tmp_path)
    yield opened
    opened.destroy()


def test_batches_are_kept_by_key(store: MetaStore) -> None:
    """Later batches win, deletions are kept as such, and everything loads in the order of its keys."""
    store.apply({b"b": b"1", b"a\0\xff": b"", b"c": b"3"})
    store.apply({b"b": None, b"d": b"\0"})
    store.sync()
    assert list(store.load()) == [(b"a\0\xff", b""), (b"b", None), (b"c", b"3"), (b"d", b"\0")]
    store.clear()
    assert list(store.load()) == []


def test_replacing_leaves_nothing_else(store: MetaStore) -> None:
    """`replace` drops what was there, and sets named values with it."""
    store.apply({b"a": b"1"})
    store.set_meta("base", b"v1")
    store.replace({b"z": b"9"}, {"base": b"v2", "other": b""})
    assert list(store.load()) == [(b"z", b"9")]
    assert [store.get_meta(name) for name in ("base", "other", "none")] == [b"v2", b"", None]


def test_many_records_load_in_order(store: MetaStore) -> None:
    """More records than one read fetches come in order, each once."""
    records = {number.to_bytes(4, "big"): bytes([number & 255]) for number in range(10_000)}
    store.apply(records)
    assert list(store.load()) == sorted(records.items())


def test_batches_of_any_length_are_kept_whole(store: MetaStore) -> None:
    """However many records a statement takes, all of a batch are there, deletions among them."""
    kept: dict[bytes, bytes | None] = {}
    for count in (1, 127, 128, 129, 300):
        batch = {b"%d-%d" % (count, number): None if number % 3 else b"%d" % number for number in range(count)}
        store.apply(batch)
        kept |= batch
        assert sorted(kept.items()) == list(store.load())
    store.replace(batch, {})
    assert sorted(batch.items()) == list(store.load())


def test_threads_share_a_store(store: MetaStore) -> None:
    """Batches of several threads are all kept."""
    threads = [
        threading.Thread(target=lambda n=n: [store.apply({bytes([n, i]): bytes([i])}) for i in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(store.load())) == 200


@pytest.mark.parametrize("kind", DURABLE)
def test_what_was_closed_is_there_again(kind: str, tmp_path: Path) -> None:
    """Closing keeps everything for the next session, destroying nothing."""
    store = open_metastore(need(kind), tmp_path)
    store.apply({b"a": b"1", b"b": None})
    store.set_meta("base", b"v1")
    store.close()
    again = open_metastore(kind, tmp_path)
    assert list(again.load()) == [(b"a", b"1"), (b"b", None)]
    assert again.get_meta("base") == b"v1"
    again.destroy()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", DURABLE)
def test_a_directory_has_one_session(kind: str, tmp_path: Path) -> None:
    """A second session of a directory is refused while the first is open."""
    store = open_metastore(need(kind), tmp_path)
    with pytest.raises(ConfigError, match="another session"):
        open_metastore(kind, tmp_path)
    store.close()
    open_metastore(kind, tmp_path).close()


_WRITER = """
import sys
from pathlib import Path
from stowstore.namespace.metastore import open_metastore
store = open_metastore(sys.argv[1], Path(sys.argv[2]))
print("pid", getattr(store, "server_pid", 0), flush=True)
number = 0
while True:
    store.apply({b"%d-%d" % (number % 50, i): b"%d" % number for i in range(200)})
    if number % 7 == 0:
        store.sync()
        print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("kind", DURABLE)
@pytest.mark.parametrize("lines", [1, 3, 6])
def test_a_killed_process_leaves_whole_batches(kind: str, lines: int, tmp_path: Path) -> None:
    """After SIGKILL every synced batch is there, and none in part."""
    need(kind)
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, kind, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        server = int(writer.stdout.readline().split()[1])
        synced = [int(writer.stdout.readline()) for _ in range(lines)][-1]
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    if server:
        _wait_for_end(server)
    store = open_metastore(kind, tmp_path)
    batches: dict[int, set[bytes]] = {}
    for key, value in store.load():
        assert value is not None
        batches.setdefault(int(key.split(b"-")[0]), set()).add(value)
    store.destroy()
    assert all(len(values) == 1 for values in batches.values())
    newest = max(int(value) for values in batches.values() for value in values)
    assert newest >= synced
    assert {int(value) for values in batches.values() for value in values} == set(
        range(max(0, newest - 49), newest + 1)
    )


def _wait_for_end(pid: int) -> None:
    """Waits until a process that is no child of ours is gone."""
    ended = threading.Event()
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        ended.wait(0.02)
    pytest.fail("redis-server outlives its session")


def test_redis_outlives_the_thread_that_opened_it(tmp_path: Path) -> None:
    """The server belongs to the session, not to the thread that started it; its socket is for its owner alone."""
    need("redis")
    opened: list[RedisMetaStore] = []
    thread = threading.Thread(target=lambda: opened.append(RedisMetaStore(tmp_path)))
    thread.start()
    thread.join()
    (store,) = opened
    store.apply({b"a": b"1"})
    assert list(store.load()) == [(b"a", b"1")]
    assert store.socket.stat().st_mode & 0o777 == 0o600
    store.close()
    assert not store.socket.exists()


def test_a_server_that_ends_is_told(tmp_path: Path) -> None:
    """When redis-server is killed, the journal fails with an error that names its directory."""
    need("redis")
    store = RedisMetaStore(tmp_path)
    server = store.server_pid
    os.kill(server, signal.SIGKILL)
    _wait_for_end(server)
    with pytest.raises(StoreError, match=str(tmp_path)):
        store.apply({b"a": b"1"})
    store.destroy()


def test_a_missing_server_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without redis-server the error says what to install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="apt-get install redis-server"):
        open_metastore("redis", tmp_path)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    """A file that is no database is an error that names it, and stays."""
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"this is not a database, and long enough to be looked at" * 20)
    with pytest.raises(StoreError, match=r"journal\.sqlite"):
        open_metastore("sqlite", tmp_path)
    assert path.read_bytes().startswith(b"this")


def test_a_full_disk_loses_no_batch(tmp_path: Path) -> None:
    """A batch that does not fit raises and leaves what was there, whole."""
    script = """
import resource, signal, sys
from pathlib import Path
from stowstore.namespace.metastore import open_metastore
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = open_metastore("sqlite", Path(sys.argv[1]))
store.apply({b"a": b"1"})
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
try:
    store.apply({b"%d" % n: bytes(1000) for n in range(2000)})
except OSError as error:
    print("told", error.filename, error)
else:
    raise SystemExit("no error")
assert list(store.load()) == [(b"a", b"1")]
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
store.apply({b"b": b"2"})
assert list(store.load()) == [(b"a", b"1"), (b"b", b"2")]
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "journal.sqlite" in done.stdout


@pytest.mark.parametrize(
    ("given_kind", "ours", "unions", "expected"),
    [
        (None, None, None, "sqlite"),
        (None, "memory", "redis", "memory"),
        (None, None, "redis", "redis"),
        (None, "", "redis", "redis"),
        ("sqlite", "memory", "redis", "sqlite"),
    ],
)
def test_who_chooses(
    given_kind: str | None, ours: str | None, unions: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The argument wins, then our variable, then Union's, then sqlite."""
    for name, value in (("STOWSTORE", ours), ("UNION", unions)):
        if value is None:
            monkeypatch.delenv(f"{name}_VOLUME_METADATA_STORE", raising=False)
        else:
            monkeypatch.setenv(f"{name}_VOLUME_METADATA_STORE", value)
    assert choose_kind(given_kind) == expected


def test_unknown_kinds_name_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A misspelt kind is refused with who asked for it and the nearest name."""
    with pytest.raises(ConfigError, match=r"metadata_store_type .*'sqlit'.*sqlite"):
        choose_kind("sqlit")
    monkeypatch.setenv("UNION_VOLUME_METADATA_STORE", "reddis")
    monkeypatch.delenv("STOWSTORE_VOLUME_METADATA_STORE", raising=False)
    with pytest.raises(ConfigError, match=r"UNION_VOLUME_METADATA_STORE .*redis"):
        open_metastore()


def test_a_store_on_disk_needs_a_directory() -> None:
    """Without meta_dir only memory will do."""
    with pytest.raises(ConfigError, match="meta_dir"):
        open_metastore("sqlite")
    assert isinstance(open_metastore("memory"), MemoryMetaStore)


@given(st.lists(st.dictionaries(st.binary(max_size=3), st.none() | st.binary(max_size=3)), max_size=6))
def test_sqlite_is_a_dictionary(batches: list[dict[bytes, bytes | None]]) -> None:
    """Any batches leave what a dictionary updated with them has; empty keys and batches too."""
    with tempfile.TemporaryDirectory() as directory:
        store = open_metastore("sqlite", Path(directory))
        model: dict[bytes, bytes | None] = {}
        for batch in batches:
            store.apply(batch)
            model.update(batch)
        assert list(store.load()) == sorted(model.items())
        store.destroy()
