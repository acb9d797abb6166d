"""Caches hold what they may, no more, and never do harm."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowstore.chunks.disk_cache import DiskCache
from stowstore.chunks.memory_cache import MemoryCache


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 30), st.booleans())), st.integers(0, 100))
def test_memory_holds_the_most_recently_used(steps: list[tuple[str, int, bool]], limit: int) -> None:
    """As many bytes as allowed, what is larger than a quarter left out; against a model."""
    cache = MemoryCache(limit)
    model: dict[str, bytes] = {}
    for key, size, is_put in steps:
        if is_put and size <= limit // 4:
            model.pop(key, None)
            model[key] = bytes(size)
            while sum(map(len, model.values())) > limit:
                del model[next(iter(model))]
        elif not is_put and key in model:
            model[key] = model.pop(key)
        if is_put:
            cache.put(key, bytes(size))
        else:
            assert model.get(key) == cache.get(key)
        assert (len(model), sum(map(len, model.values()))) == (cache.stats.entries, cache.stats.bytes)


def test_memory_forgets_on_request() -> None:
    """One key, or all."""
    cache = MemoryCache(1000)
    cache.put("a", b"1")
    cache.put("b", b"2")
    cache.discard("a")
    cache.discard("never there")
    assert (None, b"2") == (cache.get("a"), cache.get("b"))
    cache.clear()
    assert (0, 0, 1, 1) == (cache.stats.entries, cache.stats.bytes, cache.stats.hits, cache.stats.misses)


@pytest.mark.parametrize("limits", [{"max_bytes": -1}, {"max_bytes": 1, "min_free_ratio": 1.0}])
def test_impossible_limits_are_refused(limits: dict[str, Any], tmp_path: Path) -> None:
    """At once."""
    with pytest.raises(ValueError, match="max_bytes"):
        DiskCache(tmp_path, **limits)


def key(number: int) -> str:
    """A key as readers make them."""
    return f"{number:x}-1000-{number:032x}"


def opened(directory: Path, max_bytes: int = 1000) -> DiskCache:
    """A cache that minds only its own size."""
    cache = DiskCache(directory, max_bytes, min_free_ratio=0.0)
    cache.wait_until_scanned()
    return cache


def files(directory: Path) -> list[str]:
    """What lies in the directory besides the lock."""
    return sorted(path.name for path in directory.rglob("*") if path.is_file() and path.name != "lock")


def test_the_disk_holds_the_most_recently_used_across_restarts(tmp_path: Path) -> None:
    """Reading counts as use, in the session before as well."""
    cache = opened(tmp_path)
    for number in range(5):
        cache.put(key(number), bytes([number]) * 200)
    assert b"\0" * 200 == cache.get(key(0))
    cache.close()
    again = opened(tmp_path)
    assert (5, 1000) == (again.stats.entries, again.stats.bytes)
    again.put(key(9), b"9" * 200)
    assert sorted(key(number) for number in (0, 2, 3, 4, 9)) == files(tmp_path)
    assert (None, b"9" * 200) == (again.get(key(1)), again.get(key(9)))
    again.put(key(10), bytes(251))
    assert key(10) not in again
    again.discard(key(9), bad=True)
    assert (1, None) == (again.stats.bad_entries, again.get(key(9)))
    again.close()


def test_a_smaller_cache_shrinks_when_it_opens(tmp_path: Path) -> None:
    """And drafts of a process that died are gone, what is not the cache's own stays."""
    cache = opened(tmp_path)
    for number in range(5):
        cache.put(key(number), bytes(200))
    cache.close()
    (tmp_path / "00").mkdir(exist_ok=True)
    (tmp_path / "00" / ".1-0").write_bytes(b"half")
    (tmp_path / "README").write_text("mine")
    opened(tmp_path, 400).close()
    assert [key(3), key(4), "README"] == files(tmp_path)


def test_a_second_owner_reads_but_does_not_write(tmp_path: Path) -> None:
    """Until the first one closes, and then whoever opens next owns it."""
    first = opened(tmp_path)
    first.put(key(1), b"one")
    second = opened(tmp_path)
    second.put(key(2), b"two")
    second.discard(key(1))
    assert (True, False) == (first.is_owner, second.is_owner)
    assert [b"one", None] == [second.get(key(1)), second.get(key(2))]
    second.close()
    first.close()
    third = opened(tmp_path)
    assert third.is_owner
    third.close()


def test_another_process_does_not_own_it_either(tmp_path: Path) -> None:
    """The lock holds between processes, and dies with its holder."""
    script = (
        "import sys\nfrom stowstore.chunks.disk_cache import DiskCache\n"
        "cache = DiskCache(sys.argv[1]); print(cache.is_owner, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert b"True\n" == child.stdout.readline()
        borrowed = opened(tmp_path)
        assert not borrowed.is_owner
        borrowed.close()
        child.kill()
    own = opened(tmp_path)
    assert own.is_owner
    own.close()


def test_a_forked_child_does_not_write(tmp_path: Path) -> None:
    """It holds the parent's lock, but the parent's book-keeping goes on without it."""
    cache = opened(tmp_path)
    child = os.fork()
    if not child:
        cache.put(key(1), b"child")
        os._exit(0 if not cache.is_owner and cache.get(key(1)) is None else 1)
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    cache.close()


def test_a_full_disk_turns_writing_off_and_is_counted(tmp_path: Path) -> None:
    """Reading goes on, nothing is raised, no draft stays, and after a while it is tried again."""
    now = 1000.0
    cache = DiskCache(tmp_path, 1 << 20, min_free_ratio=0.0, clock=lambda: now)
    cache.wait_until_scanned()
    cache.put(key(1), b"one")
    with no_file_above(4096):
        for number in range(2, 5):
            cache.put(key(number), bytes(10_000))
    assert (1, 1) == (cache.stats.failures, cache.stats.entries)
    assert ([key(1)], b"one") == (files(tmp_path), cache.get(key(1)))
    cache.put(key(2), b"too soon")
    now += 60
    cache.put(key(3), b"three")
    assert [None, b"three"] == [cache.get(key(2)), cache.get(key(3))]
    cache.close()


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """Lets every write beyond a size fail, as on a full disk, part of it being done."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_file_system_is_left_its_room(tmp_path: Path) -> None:
    """With less free than wanted the cache gives room back and takes none."""
    filled = opened(tmp_path)
    filled.put(key(1), bytes(100))
    filled.close()
    cache = DiskCache(tmp_path, 1000, min_free_ratio=0.9999)
    cache.wait_until_scanned()
    cache.put(key(2), bytes(100))
    assert ([], 1, 1) == (files(tmp_path), cache.stats.evictions, cache.stats.failures)
    cache.close()


def test_a_directory_that_cannot_be_used_is_no_error(tmp_path: Path) -> None:
    """Nothing is found there and nothing is kept."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    cache = opened(blocked)
    cache.put(key(1), b"one")
    assert (None, False, 1) == (cache.get(key(1)), cache.is_owner, cache.stats.failures)
    cache.close()


def test_a_directory_removed_under_the_cache_is_no_error(tmp_path: Path) -> None:
    """It is made again."""
    cache = opened(tmp_path / "cache")
    cache.put(key(1), b"one")
    for path in sorted((tmp_path / "cache").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert cache.get(key(1)) is None
    cache.put(key(1), b"again")
    assert b"again" == cache.get(key(1))
    cache.close()


@pytest.mark.parametrize("bad", ["", "../../etc/passwd", "a/b", "UPPER", "x" * 200])
def test_a_key_is_no_path(bad: str, tmp_path: Path) -> None:
    """Keys come from references others wrote."""
    cache = opened(tmp_path)
    with pytest.raises(ValueError, match="no key"):
        cache.put(bad, b"x")
    cache.close()
