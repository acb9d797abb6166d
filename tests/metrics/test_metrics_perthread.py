"""Counting without locks: exact under threads, bounded by living threads, safe over a fork."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from metrics.perthread import PerThread


class Tally:
    def __init__(self) -> None:
        self.count = 0


def total(tallies: PerThread[Tally]) -> int:
    return sum(tally.count for tally in tallies.all())


def test_counts_of_many_threads_are_exact() -> None:
    """Nothing is lost between threads that count at once."""
    tallies = PerThread(Tally)
    local = tallies.local
    barrier = threading.Barrier(8)

    def count(_: int) -> None:
        barrier.wait()
        for _ in range(20_000):
            local.mine.count += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count, range(8)))
    assert total(tallies) == 160_000


def test_new_threads_take_over_from_ended_ones() -> None:
    """A thousand threads, one after another, need a few tallies between them, and keep all counts."""
    tallies = PerThread(Tally)

    def count() -> None:
        tallies.local.mine.count += 1

    for _ in range(1000):
        thread = threading.Thread(target=count)
        thread.start()
        thread.join()
    assert len(tallies.all()) < 10  # a thread's storage may be cleared a moment after it was joined
    assert total(tallies) == 1000


def test_living_threads_do_not_share() -> None:
    """Two threads alive at once have a tally each."""
    tallies = PerThread(Tally)
    mine = tallies.local.mine
    assert mine is tallies.local.mine
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: tallies.local.mine).result()
    assert other is not mine


def test_a_child_forked_under_the_lock_can_count() -> None:
    """A child that was forked while another thread held the lock is not blocked by it."""
    tallies = PerThread(Tally)
    tallies.local.mine.count = 1
    with tallies._lock:
        pid = os.fork()
        if pid == 0:
            try:
                thread = threading.Thread(target=lambda: setattr(tallies.local.mine, "count", 2))
                thread.start()
                thread.join(20)
                os._exit(0 if total(tallies) == 3 else 1)
            finally:
                os._exit(2)
        watchdog = threading.Timer(30, os.kill, (pid, 9))
        watchdog.start()
        _, status = os.waitpid(pid, 0)
        watchdog.cancel()
    assert status == 0
