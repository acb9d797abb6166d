"""Processes that write a volume and are killed for it.

Children are forked from a server that has everything imported, so that hundreds of them cost little.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import pytest
from attrs import field, frozen

from datastore.model import Metadata, WriteOptions
from datastore.protocol import Reference, Store
from datastore.source import Source, SourceLike
from datastore.wrappers.base import StoreWrapper, as_reference
from stowstore.config import ContainerPolicy
from stowstore.versions import session as session_module
from stowstore.versions.address import open_root_store
from stowstore.versions.journals import open_journal
from stowstore.versions.manifest import VersionName
from stowstore.versions.options import SessionOptions
from stowstore.versions.root import Root
from stowstore.versions.session import Session
from tests.volumes_faults.programs import perform, program

__all__ = ["VOLUME", "Place", "Point", "Story", "options_of", "root_of", "write_and_kill"]

VOLUME = "data"

#: How long a child may take for anything, however busy the machine is.
_PATIENCE = 120.0

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


@frozen
class Place:
    """Where a volume is kept; ``metadata_store`` None keeps no journal."""

    directory: Path
    metadata_store: str | None = "sqlite"

    @property
    def root(self) -> str:
        return f"file://{self.directory}/root"


@frozen
class Point:
    """Where a process is killed: on either side of a write to the store or of a call of the journal's.

    ``what`` is a pattern of keys, or ``journal.`` and a method.  Without it the moment is any.
    """

    what: str = ""
    after: bool = field(default=False, kw_only=True)

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'}-{self.what.strip('*/')}" if self.what else "any"


@frozen(kw_only=True)
class Story:
    """What a killed process was heard to say: the steps it began and those it acknowledged."""

    begun: int
    done: dict[int, VersionName | None]
    point_reached: bool

    @property
    def versions(self) -> dict[int, VersionName]:
        """The versions of acknowledged commits, by step."""
        return {number: name for number, name in self.done.items() if name is not None}


def options_of(place: Place, **more: Any) -> SessionOptions:
    if place.metadata_store is None:
        return SessionOptions(**more)
    return SessionOptions(
        meta_dir=place.directory / "meta",
        cache_dir=place.directory / "cache",
        metadata_store_type=place.metadata_store,
        **more,
    )


def root_of(place: Place) -> Root:
    store, base = open_root_store(place.root, create=ContainerPolicy.IF_MISSING)
    return Root.open_or_create(store, base, address=place.root)


def write_and_kill(place: Place, seed: int, length: int, point: Point) -> Story:
    """Runs a program in a process of its own and kills that at a point, or at the latest when it is through."""
    random = Random(seed)
    moment, nth, pause = random.randrange(length), random.randrange(1, 3), random.random() * 0.02
    ours, theirs = _context.Pipe(duplex=False)
    process = _context.Process(target=_write, args=(theirs, place, seed, length, point, nth))
    process.start()
    theirs.close()
    begun, done, reached = -1, {}, not point.what
    try:
        while True:
            if not ours.poll(_PATIENCE):
                raise TimeoutError(f"the writer says nothing any more after step {begun}")
            try:
                said = ours.recv()
            except EOFError:
                break
            match said:
                case "begin", number:
                    begun = number
                    if not point.what and number == moment:
                        time.sleep(pause)
                        process.kill()
                case "done", number, name:
                    done[number] = name
                case "reached", _:
                    reached = True
                    process.kill()
                case "finished", _:
                    process.kill()
                case "failed", error:
                    raise AssertionError(f"the writer failed at step {begun}: {error}")
    finally:
        process.kill()
        process.join()
        ours.close()
    return Story(begun=begun, done=done, point_reached=reached)


def _write(pipe: Connection, place: Place, seed: int, length: int, point: Point, nth: int) -> None:
    try:
        halt = _Halt(pipe, point, nth)
        monkeypatch = pytest.MonkeyPatch()
        monkeypatch.setattr(session_module, "open_journal", lambda *args: _Journal(open_journal(*args), halt))
        store, base = open_root_store(place.root, create=ContainerPolicy.IF_MISSING)
        root = Root.open_or_create(_Halting(store, halt), base, address=place.root)
        with Session.write(root, VOLUME, options_of(place, upload_delay=0.0)) as session:
            for number, step in enumerate(program(seed, length)):
                pipe.send(("begin", number))
                perform(session.files, step, commit=session.commit)
                if step.act in ("fsync", "commit"):
                    assert session.base is not None or step.act == "fsync"
                    name = session.base.name if session.base is not None and step.act == "commit" else None
                    pipe.send(("done", number, name))
            pipe.send(("finished", 0))
            threading.Event().wait()
    except BaseException as error:
        pipe.send(("failed", repr(error)))
        raise


class _Halt:
    """Stops the thread that comes to the point for good, and says so."""

    def __init__(self, pipe: Connection, point: Point, nth: int) -> None:
        self._pipe = pipe
        self._point = point
        self._left = nth
        self._lock = threading.Lock()

    @contextmanager
    def around(self, what: str) -> Iterator[None]:
        chosen = self._point.what and fnmatchcase(what, self._point.what)
        if chosen:
            with self._lock:
                self._left -= 1
                chosen = not self._left
        if chosen and not self._point.after:
            self._stop()
        yield
        if chosen:
            self._stop()

    def _stop(self) -> None:
        self._pipe.send(("reached", 0))
        threading.Event().wait()


class _Halting(StoreWrapper):
    def __init__(self, inner: Store, halt: _Halt) -> None:
        super().__init__(inner)
        self._halt = halt

    def write_raw(
        self, reference: Reference, size: int | None, options: WriteOptions | None, stream: SourceLike | Source
    ) -> Metadata:
        with self._halt.around(as_reference(reference).key):
            return self._inner.write_raw(reference, size, options, stream)


class _Journal:
    """A metadata store whose writing calls are points."""

    def __init__(self, inner: Any, halt: _Halt) -> None:
        self._inner = inner
        self._halt = halt

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in ("apply", "replace", "sync", "set_meta"):
            return found

        def call(*args: Any) -> Any:
            with self._halt.around(f"journal.{name}"):
                return found(*args)

        return call
