"""Other processes: stores sent to them, and stores they inherit by fork."""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import warnings

import pytest

from datastore.errors import ForkUnsafe
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing.base import KitTests, content, names_below
from datastore.testing.harness import AfterFork, Harness

__all__ = ["ProcessTests"]

#: How long a child may take before it counts as hanging.
_PATIENCE = 30.0

_CHILD = """
import pickle, sys
store, place = pickle.load(sys.stdin.buffer)
with store:
    data = store.read_bytes(place.join("from parent"))
    store.write_bytes(place.join("from child"), data[::-1])
    assert len(store.list(place, directory=True)[0]) == 2
"""


class ProcessTests(KitTests):
    """A store works in the processes that Python programs are made of, or says that it does not."""

    def test_a_pickled_store_works_in_a_new_process(self, harness: Harness, store: Store, place: DataReference) -> None:
        """A process started anew dials for itself, and shares the objects."""
        if not harness.picklable or not harness.shared:
            pytest.skip("the harness declares no store that other processes could share")
        data = content(100_000)
        store.write_bytes(place.join("from parent"), data)
        child = subprocess.run(
            [sys.executable, "-c", _CHILD],
            input=pickle.dumps((store, place)),
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert child.returncode == 0, child.stderr.decode()
        assert data[::-1] == store.read_bytes(place.join("from child"))

    def test_pickling_twice_is_one_store_each(self, harness: Harness, store: Store, place: DataReference) -> None:
        """A store pickled in one process stays usable there, and so does its copy."""
        if not harness.picklable or not harness.shared:
            pytest.skip("the harness declares no store that could be pickled")
        store.write_bytes(place.join("a"), b"1")
        packed = pickle.dumps(store)
        for secret in harness.secrets:
            assert secret not in repr(store)
        with pickle.loads(packed) as copied:  # noqa: S301 - our own bytes
            assert copied.read_bytes(place.join("a")) == b"1"
            copied.write_bytes(place.join("b"), b"2")
        assert store.read_bytes(place.join("b")) == b"2"
        assert names_below(store, place) == ["a", "b"]

    def test_a_used_store_in_a_forked_child(self, harness: Harness, store: Store, place: DataReference) -> None:
        """After fork a store that was in use works in the child or refuses with `ForkUnsafe`; it never hangs.

        The parent's store goes on working either way.
        """
        ref = place.join("from parent")
        store.write_bytes(ref, content(1000))
        assert content(1000) == store.read_bytes(ref)
        with store.read_raw(ref) as open_while_forking:
            outcome = _in_forked_child(store, place)
            assert content(1000) == open_while_forking.read()
        allowed = {
            AfterFork.WORKS: {"works"},
            AfterFork.REFUSES: {"refuses"},
            AfterFork.EITHER: {"works", "refuses"},
        }[harness.after_fork]
        assert outcome in allowed
        if outcome == "works" and harness.shared and harness.picklable:
            assert store.read_bytes(place.join("from child")) == b"from child"
        assert content(1000) == store.read_bytes(ref)
        store.write_bytes(place.join("parent goes on"), b"1")


def _in_forked_child(store: Store, place: DataReference) -> str:
    """Uses the store in a forked child; "works", "refuses", "hangs", or what went wrong."""
    answer, report = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 warns of forking with threads, which is exactly what is tried here.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(answer)
        try:
            outcome = _use(store, place)
        except BaseException as error:  # noqa: BLE001 - the child ends here, and its parent tells
            outcome = repr(error)
        os.write(report, outcome.encode()[:4096])
        os._exit(0)
    os.close(report)
    try:
        poller = select.poll()
        poller.register(answer, select.POLLIN)
        if not poller.poll(_PATIENCE * 1000):
            return "hangs"
        return os.read(answer, 4096).decode() or "the child died"
    finally:
        os.close(answer)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _use(store: Store, place: DataReference) -> str:
    try:
        if content(1000) != store.read_bytes(place.join("from parent")):
            return "read something else"
        store.write_bytes(place.join("from child"), b"from child")
        if store.read_bytes(place.join("from child")) != b"from child":
            return "wrote something else"
        if not store.head(place.join("from child")).exists or len(store.list(place, directory=True)[0]) != 2:
            return "lost an object"
    except ForkUnsafe as error:
        return "refuses" if "spawn" in str(error) else f"refuses without saying what to do: {error}"
    return "works"
