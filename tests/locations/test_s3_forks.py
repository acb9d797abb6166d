"""A store used before a fork works in the child, and never hangs there."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator

import pytest

from datastore.driver import Container, Location
from tests.locations.s3_buckets import dial_server, fresh_bucket, get, keys_of, put
from tests.servers import Server

#: Seconds a child may take; one that hangs would take for ever.
_PATIENCE = 60

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture
def location(radosgw: Server) -> Iterator[Location]:
    found = dial_server(radosgw)
    yield found
    found.close()


@pytest.fixture
def container(radosgw: Server, location: Location) -> Iterator[Container]:
    with fresh_bucket(radosgw) as name:
        yield location.container(name)


def _in_child(work: Callable[[], None]) -> int | None:
    """The exit code of a forked child, None if it had to be killed."""

    is_first = multiprocessing.parent_process() is None

    def watched() -> None:
        # Where it hangs is all that could be known of it; a grandchild would wait for its parent's lost watchdog.
        if is_first:
            faulthandler.dump_traceback_later(_PATIENCE / 2, file=sys.__stderr__)
        work()

    child = multiprocessing.get_context("fork").Process(target=watched)
    child.start()
    child.join(_PATIENCE)
    if child.is_alive():
        child.kill()
        child.join()
        return None
    return child.exitcode


def _use(location: Location, container: Container, name: str) -> None:
    """Every operation there is."""
    assert get(container, "parent") == b"from the parent"
    put(container, name, b"x" * 100, metadata={"a": "b"})
    put(container, f"{name}-large", b"y" * (9 << 20))
    assert container.head(name).user_metadata == {"a": "b"}
    assert len(get(container, f"{name}-large")) == 9 << 20
    assert get(container, name, 90) == b"x" * 10
    assert {name, "parent"} <= set(keys_of(container))
    container.copy(f"{name}-copy", container, name, None)
    container.delete(name)
    assert container.delete_many([f"{name}-copy", f"{name}-large"]) == {}
    assert location.has_container(container.name)


def test_children_go_on(location: Location, container: Container) -> None:
    """Reads and writes of the parent do not keep its child from anything, nor the child those of its parent."""
    put(container, "parent", b"from the parent")
    get(container, "parent")
    assert _in_child(lambda: _use(location, container, "child")) == 0
    _use(location, container, "parent-again")


def test_grandchildren_go_on(location: Location, container: Container) -> None:
    """A child of a child works too."""
    put(container, "parent", b"from the parent")

    def work() -> None:
        _use(location, container, "child")
        assert _in_child(lambda: _use(location, container, "grandchild")) == 0

    assert _in_child(work) == 0


def test_a_new_location_works_in_a_child(radosgw: Server, container: Container) -> None:
    """What is dialled in the child does not meet the parent's lost threads."""
    put(container, "parent", b"from the parent")

    def work() -> None:
        fresh = dial_server(radosgw)
        _use(fresh, fresh.container(container.name), "child")
        fresh.close()

    assert _in_child(work) == 0


def test_a_pool_of_children_works(location: Location, container: Container) -> None:
    """Several children at once, as data loaders make them, share nothing that could break."""
    put(container, "parent", b"from the parent")
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                _use(location, container, f"child-{number}")
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 4
    assert keys_of(container) == ["parent"]


def test_threads_of_the_parent_do_not_matter(location: Location, container: Container) -> None:
    """Children forked while other threads are busy with the store work all the same."""
    import threading

    put(container, "parent", b"from the parent")
    ended = threading.Event()

    def busy(name: str) -> None:
        while not ended.is_set():
            put(container, name)
            keys_of(container)

    threads = [threading.Thread(target=busy, args=(f"busy-{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert [_in_child(lambda: _use(location, container, "child")) for _ in range(3)] == [0, 0, 0]
    finally:
        ended.set()
        for thread in threads:
            thread.join()
