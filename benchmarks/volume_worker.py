"""One measurement of volumes in a process of its own: a JSON order on standard input, one JSON answer.

Everything here runs in a fresh process, so that its memory and its caches are those of what is measured alone.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from blake3 import blake3

from benchmarks.generated import FILE_BYTES, make_namespace, place_of
from benchmarks.memory import back_free_memory, forget_peak, peak_bytes, resident_bytes
from datastore.model import Cursor, ListPage, Metadata, WriteOptions
from datastore.protocol import Reference, Store
from datastore.source import Source, SourceLike
from datastore.stream import ReadStream
from datastore.wrappers.base import StoreWrapper, as_reference
from stowstore.config import ContainerPolicy
from stowstore.index.diff import diff_snapshots
from stowstore.index.snapshot import Snapshot
from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.permissions import ROOT
from stowstore.transfer import import_directory
from stowstore.transfer.paths import entries
from stowstore.versions.address import open_root_store
from stowstore.versions.changes import path_changes
from stowstore.versions.options import CommitOptions, SessionOptions
from stowstore.versions.root import Root
from stowstore.versions.session import Session

__all__ = ["main"]

Order = Mapping[str, Any]
Answer = dict[str, Any]

_CHANGED = 1000
_PIECE = 1 << 20
_READ = 4 << 20
_FAR = 10**15


class CountingStore(StoreWrapper):
    """Counts requests and what is written, and notes when the last pack of file data was."""

    def __init__(self, inner: Store) -> None:
        super().__init__(inner)
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Starts anew."""
        self.requests = self.puts = self.put_bytes = self.index_bytes = 0
        self.last_data = 0.0

    def head(self, reference: Reference) -> Metadata:
        self._count()
        return super().head(reference)

    def list_page(
        self, prefix: Reference, max_items: int | None = None, cursor: Cursor | None = None, **more: Any
    ) -> ListPage:
        self._count()
        return super().list_page(prefix, max_items, cursor, **more)

    def read_raw(self, reference: Reference, start: int = 0, length: int | None = None, **more: Any) -> ReadStream:
        self._count()
        return super().read_raw(reference, start, length, **more)

    def write_raw(
        self, reference: Reference, size: int | None, options: WriteOptions | None, stream: SourceLike | Source
    ) -> Metadata:
        made = super().write_raw(reference, size, options, stream)
        key = "/" + as_reference(reference).key
        with self._lock:
            self.requests += 1
            if "/leases/" not in key:
                # A lease is renewed by the clock, whatever is committed.
                self.puts += 1
                self.put_bytes += size or 0
            if "/index/" in key:
                self.index_bytes += size or 0
            elif "/packs/" in key:
                self.last_data = perf_counter()
        return made

    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        self._count()
        super().delete(reference, missing_ok=missing_ok)

    def _count(self) -> None:
        with self._lock:
            self.requests += 1


@contextmanager
def _store(order: Order) -> Iterator[tuple[CountingStore, Root]]:
    """The root of an order, made where there is none; nothing of that is counted."""
    store, base = open_root_store(order["root"], options=order["options"], create=ContainerPolicy.IF_MISSING)
    with store:
        counting = CountingStore(store)
        # A root on disk is known for one by its address, as volumes open it.
        address = order["root"] if order["root"].startswith("file:") else None
        root = Root.open_or_create(counting, base, address=address)
        counting.forget()
        yield counting, root


def _writing(order: Order, root: Root, volume: str) -> Session:
    """A session with journal and staged data on disk, as volumes are opened."""
    local = Path(order["local"], volume)
    return Session.write(root, volume, SessionOptions(meta_dir=local / "meta", cache_dir=local / "cache"))


def make(order: Order) -> Answer:
    """Generates a namespace of ``files`` files."""
    with _store(order) as (_, root):
        manifest = make_namespace(root, order["volume"], order["files"])
        return {"index_bytes": manifest.statistics.index_bytes}


def commit(order: Order) -> Answer:
    """Overwrites a thousand files all over the namespace and commits, several times."""
    walls: list[float] = []
    beyond: list[float] = []
    sizes: list[int] = []
    requests: list[int] = []
    with _store(order) as (store, root), _writing(order, root, order["volume"]) as session:
        files, freeze, frozen_at = session.files, session.files.freeze, 0.0

        def timed_freeze() -> Any:
            nonlocal frozen_at
            frozen = freeze()
            frozen_at = perf_counter()
            return frozen

        files.freeze = timed_freeze  # type: ignore[method-assign]
        step = order["files"] // _CHANGED
        for turn in range(order["rounds"]):
            for number in range(turn % step, order["files"], step):
                directory, name = place_of(number)
                ino = files.lookup(files.lookup(1, directory, ROOT).ino, name, ROOT).ino
                handle = files.open(ino, os.O_WRONLY, ROOT)
                files.write(handle, 0, os.urandom(FILE_BYTES), ROOT)
                files.release(handle)
            store.forget()
            began = perf_counter()
            session.commit(CommitOptions(message=f"turn {turn}"))
            ended = perf_counter()
            walls.append(ended - began)
            # Between the freeze and the last pack, blocks are hashed, compressed and put: the data upload.
            beyond.append(frozen_at - began + ended - max(store.last_data, frozen_at))
            sizes.append(store.index_bytes)
            requests.append(store.requests)
    return {"walls": walls, "beyond": beyond, "index_bytes": sizes, "requests": requests}


def open_version(order: Order) -> Answer:
    """Opens the newest version and looks one file up, from nothing but the connection."""
    store, base = open_root_store(order["root"], options=order["options"])
    with store:
        counting = CountingStore(store)
        began = perf_counter()
        root = Root.open(counting, base)
        with Session.read(root, root.head(order["volume"])) as session:
            directory, name = place_of(order["files"] // 2)
            found = session.files.lookup(session.files.lookup(1, directory, ROOT).ino, name, ROOT)
            wall = perf_counter() - began
            assert found.size == FILE_BYTES
            return {"wall": wall, "requests": counting.requests}


def fork(order: Order) -> Answer:
    """Forks the newest version, several times."""
    walls, puts, requests = [], [], []
    with _store(order) as (store, root), Session.read(root, root.head(order["volume"])) as session:
        for turn in range(order["rounds"]):
            store.forget()
            began = perf_counter()
            session.branch(f"{order['volume']}-fork-{turn}")
            walls.append(perf_counter() - began)
            puts.append(store.puts)
            requests.append(store.requests)
    return {"walls": walls, "puts": max(puts), "requests": max(requests)}


def diff(order: Order) -> Answer:
    """Compares the first version of a volume with the one after it, with cold caches."""
    with _store(order) as (store, root):
        identities = sorted(root.version_ids(order["volume"]))[:2]
        old, new = (root.manifest(order["volume"], identity) for identity in identities)
        found: dict[str, Any] = {}
        for name, compare in (("records", diff_snapshots), ("paths", path_changes)):
            with Session.read(root, new.name) as session:
                store.forget()
                began = perf_counter()
                before, after = (Snapshot(version.snapshot, session._nodes) for version in (old, new))
                count = sum(1 for _ in compare(before, after))
                found[name] = perf_counter() - began
                found[f"{name}_requests"] = store.requests
                assert count >= _CHANGED, count
        return found


def import_files(order: Order) -> Answer:
    """Imports a directory and commits."""
    with _store(order) as (store, root), _writing(order, root, "imported") as session:
        store.forget()
        began = perf_counter()
        report = import_directory(session.files, order["source"])
        session.commit()
        wall = perf_counter() - began
        assert report.files == order["files"], report
        return {"wall": wall, "puts": store.puts}


def overwrite(order: Order) -> Answer:
    """Overwrites 4 KiB of a file of 10 GiB that has data around there."""
    size = 10 << 30
    middle = size // 2
    with _store(order) as (store, root), _writing(order, root, "large-file") as session:
        files = session.files
        made, handle = files.create(1, b"large", 0o644, os.O_RDWR, ROOT)
        files.setattr(made.ino, AttributeChanges(size=size), ROOT)
        files.write(handle, middle - (4 << 20), os.urandom(8 << 20), ROOT)
        session.commit()
        store.forget()
        files.write(handle, middle + 12_345, os.urandom(4096), ROOT)
        began = perf_counter()
        session.commit()
        return {"wall": perf_counter() - began, "bytes": store.put_bytes}


def sequential_write(order: Order) -> Answer:
    """Writes a file into a volume and commits; hashes and copies it; in turns."""
    source, copy = Path(order["source"]), Path(order["local"], "copy")
    size = source.stat().st_size
    ours, plain = [], []
    with _store(order) as (_, root), _writing(order, root, "stream") as session:
        files = session.files
        for turn in range(order["rounds"]):
            os.sync()
            back_free_memory(2 * size, copy.parent)
            began = perf_counter()
            hasher = blake3()
            for piece in _pieces(source, _PIECE):
                hasher.update(piece)
            with copy.open("wb", buffering=0) as target:
                for piece in _pieces(source, _PIECE):
                    target.write(piece)
            plain.append(perf_counter() - began)
            copy.unlink()
            os.sync()
            back_free_memory(4 * size, copy.parent)
            # Another content each time, or the second round would find every block stored.
            began, at = perf_counter(), 0
            _, handle = files.create(1, b"stream-%d" % turn, 0o644, os.O_RDWR, ROOT)
            for piece in _pieces(source, _PIECE, skip=turn * 512):
                at += files.write(handle, at, piece, ROOT)
            files.release(handle)
            session.commit()
            ours.append(perf_counter() - began)
    return {"wall": min(ours), "plain": min(plain), "size": size}


def sequential_read(order: Order) -> Answer:
    """Reads the file back by a session that has nothing yet, and the packs of the root as files; in turns.

    With ``evict`` neither finds the packs in the kernel's cache.
    """
    packs = sorted(path for path in Path(order["packs"]).rglob("*") if path.is_file())
    ours, plain, length = [], [], 0
    forget_peak()
    with _store(order) as (_, root):
        for turn in range(order["rounds"]):
            if order["evict"]:
                _evict(packs)
            began, size = perf_counter(), 0
            for path in packs:
                for piece in _pieces(path, _READ):
                    size += len(piece)
            plain.append((perf_counter() - began) / size)
            if order["evict"]:
                _evict(packs)
            began, at = perf_counter(), 0
            with Session.read(root, root.head("stream")) as session:
                ino = session.files.lookup(1, b"stream-%d" % turn, ROOT).ino
                handle = session.files.open(ino, os.O_RDONLY, ROOT)
                while piece := session.files.read(handle, at, _PIECE):
                    at += len(piece)
                session.files.release(handle)
            ours.append((perf_counter() - began) / at)
            length = at
    return {"wall": min(ours) * length, "plain": min(plain) * length, "size": length, "peak": peak_bytes()}


def holes(order: Order) -> Answer:
    """A truncate to a petabyte, a write behind the hole, the search for it, and the commit of both."""
    with _store(order) as (store, root), _writing(order, root, "holes") as session:
        files = session.files
        made, handle = files.create(1, b"petabyte", 0o644, os.O_RDWR, ROOT)
        session.commit()
        began = perf_counter()
        files.setattr(made.ino, AttributeChanges(size=_FAR), ROOT)
        truncated = perf_counter() - began
        files.write(handle, _FAR, os.urandom(4096), ROOT)
        assert files.lseek(handle, 0, os.SEEK_DATA) >= _FAR - _READ
        found = perf_counter() - began
        store.forget()
        session.commit()
        return {"truncate": truncated, "data": found, "commit": perf_counter() - began, "bytes": store.put_bytes}


def make_extents(order: Order) -> Answer:
    """Makes a file of many extents, by sharing the bytes of one block."""
    count = order["extents"]
    with _store(order) as (_, root), _writing(order, root, f"extents-{count}") as session:
        files = session.files
        _, handle = files.create(1, b"extents", 0o644, os.O_RDWR, ROOT)
        files.write(handle, 0, os.urandom(8192), ROOT)
        session.commit()
        began = perf_counter()
        for number in range(1, count):
            files.copy_file_range(handle, number % 64, handle, number * 16384, 4096, ROOT)
        session.commit()
        return {"wall": perf_counter() - began}


def write_extent(order: Order) -> Answer:
    """Writes one more extent into the middle of a file of many, after opening the volume anew, and commits."""
    count = order["extents"]
    with _store(order) as (_, root):
        resident = resident_bytes()
        forget_peak()
        began = perf_counter()
        with _writing(order, root, f"extents-{count}") as session:
            files = session.files
            handle = files.open(files.lookup(1, b"extents", ROOT).ino, os.O_RDWR, ROOT)
            files.write(handle, count // 2 * 16384 + 8192, os.urandom(1024), ROOT)
            wrote = perf_counter() - began
            session.commit()
            return {
                "write": wrote,
                "wall": perf_counter() - began,
                "peak": peak_bytes(),
                "grown": peak_bytes() - resident,
            }


def walk(order: Order) -> Answer:
    """Opens the newest version and lists everything in it with attributes."""
    with _store(order) as (_, root):
        resident = resident_bytes()
        forget_peak()
        began = perf_counter()
        with Session.read(root, root.head(order["volume"])) as session:
            found, waiting = 0, [1]
            while waiting:
                for entry in entries(session.files, waiting.pop()):
                    found += 1
                    if entry.kind == 0o40000:
                        waiting.append(entry.ino)
            assert found >= order["files"], found
            return {"wall": perf_counter() - began, "peak": peak_bytes(), "grown": peak_bytes() - resident}


def _evict(paths: Sequence[Path]) -> None:
    """Takes files out of the kernel's cache."""
    os.sync()
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _pieces(path: Path, size: int, *, skip: int = 0) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        file.seek(skip)
        while piece := file.read(size):
            yield piece


_TASKS: Mapping[str, Callable[[Order], Answer]] = {
    task.__name__: task
    for task in (
        make,
        commit,
        open_version,
        fork,
        diff,
        import_files,
        overwrite,
        sequential_write,
        sequential_read,
        holes,
        make_extents,
        write_extent,
        walk,
    )
}


def main() -> None:
    """Carries out the order and prints the answer."""
    answers, sys.stdout = sys.stdout, sys.stderr
    order = json.load(sys.stdin)
    print(json.dumps(_TASKS[order["task"]](order)), file=answers, flush=True)


if __name__ == "__main__":
    main()
