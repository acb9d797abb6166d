"""Records: what a second upload of many small files costs, and finding one among many, against the figures to reach."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from benchmarks.model import Measure, Row
from benchmarks.scale import QUICK, Scale
from datastore import DataReference, Store
from datastore.metric_names import Operation
from datastore.wrappers.faulty import FaultyStore
from stowstore.config import ContainerPolicy
from stowstore.records import DigestCache, RecordDirectory, RecordIndex, RecordStore
from stowstore.versions.address import open_root_store

__all__ = ["records"]

Progress = Callable[[str], None]
T = TypeVar("T")

_CHANGED: Final = 10
_FILE: Final = 2 << 10
_SECOND_BYTES: Final = 0.02
_SECOND_TIME: Final = 0.10
_SEARCH_SECONDS: Final = 0.1
_REPEATS: Final = 9


def records(scale: Scale, progress: Progress) -> Iterator[Row]:
    """Rows for records on local disk, and on Ceph's gateway where it can be provided."""
    quick = scale is QUICK
    files, many = (1_000, 5_000) if quick else (10_000, 100_000)
    for name, opened in (("disk", _disk), ("radosgw", _radosgw)):
        try:
            with opened() as (store, base):
                progress(f"records on {name}")
                yield from _uploads(name, store, base.join("uploads"), files)
                # Making pointers of as many records takes minutes on the gateway, which tells no more of us.
                yield _search(name, store, base.join("many"), many if name == "disk" else many // 10, progress)
        except Exception as error:  # noqa: BLE001 - a server that is not to be had is a line of the report
            yield Row(group="records", what=f"everything on {name}", client="stowstore", note=str(error))
    yield _index(many)


def _uploads(name: str, store: Store, base: DataReference, count: int) -> Iterator[Row]:
    """A record of many small files: first, second with a few changed, and its retrieval."""
    with tempfile.TemporaryDirectory(prefix="stow-bench-") as above:
        record = RecordDirectory.create(Path(above) / "record", module="bench")
        for number in range(count):
            path = record.path / f"d{number % 50}" / f"f{number}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(os.urandom(_FILE))
        counting = _Counting(store)
        kept = RecordStore(counting, base, cache=DigestCache(Path(above) / "digests"))
        first, _ = _timed(lambda: kept.commit(record))
        sent = counting.sent
        # Three times, each with other files: the best is the least disturbed.
        seconds: list[tuple[float, int]] = []
        for turn in range(3):
            for number in range(_CHANGED):
                (record.path / f"d{number}" / f"f{number + 50 * turn}").write_bytes(os.urandom(_FILE))
            counting.sent = 0
            spent, _ = _timed(lambda: kept.commit(record))
            seconds.append((spent, counting.sent))
        second = min(spent for spent, _ in seconds)
        again = max(length for _, length in seconds)
        yield _row(f"first upload of {count} files of 2 KiB, {name}", first, f"{sent} bytes")
        yield _row(
            f"second upload, {_CHANGED} files changed, {name}: time",
            second,
            f"{second / first:.1%} of the first",
            target=f"under {_SECOND_TIME:.0%}",
            met=second < _SECOND_TIME * first,
        )
        yield _row(
            f"second upload, {_CHANGED} files changed, {name}: bytes",
            None,
            f"{again / sent:.2%} of the first",
            target=f"under {_SECOND_BYTES:.0%}",
            met=again < _SECOND_BYTES * sent,
        )
        spent, done = _timed(lambda: kept.retrieve(record.uuid, Path(above) / "copy"))
        assert done
        yield _row(f"retrieval of {count} files, verified, {name}", spent, "")


def _search(name: str, store: Store, base: DataReference, count: int, progress: Progress) -> Row:
    """``search_for`` among many records, of which ten are like the one that is looked for."""
    with tempfile.TemporaryDirectory(prefix="stow-bench-") as above:
        like = [
            RecordDirectory.create(Path(above) / str(number), module="bench", predicate={"seed": number})
            for number in range(10)
        ]
        kept = RecordStore(store, base)
        for record in like:
            kept.commit(record)
        from stowstore.records.parallel import each

        def point(number: int) -> None:
            store.write_bytes(base.join(f"by-identity/{number:024x}/{'0' * 32}/record{number:06}"), b"")

        for done, _ in enumerate(each(range(count), point, 16)):
            if done % 1000 == 0:
                progress(f"records on {name}: {done} of {count} pointers")
        counting = FaultyStore(store)
        finder = RecordStore(counting, base)
        took = []
        for _ in range(_REPEATS):
            spent, found = _timed(lambda: finder.search_for(like[0]))
            assert len(found) == len(like)
            took.append(spent)
        best = min(took)
        return _row(
            f"search_for among {count} records, {name}",
            best,
            f"{best * 1000:.1f} ms, {counting.calls[Operation.LIST] // _REPEATS} listing",
            target=f"under {_SEARCH_SECONDS * 1000:.0f} ms",
            met=best < _SEARCH_SECONDS,
        )


def _index(count: int) -> Row:
    """A question about a value of the configuration, to an index of many records."""
    from attrs import evolve

    from datastore import MemoryStore
    from stowstore.records import Comparison, Filter

    with tempfile.TemporaryDirectory(prefix="stow-bench-") as above:
        kept = RecordStore(MemoryStore(), "mem://main/records")
        record = RecordDirectory.create(Path(above) / "a", module="bench", config={"rate": 0.5, "seed": 1})
        kept.commit(record)
        manifest = kept.manifest(record.uuid)
        index = RecordIndex(Path(above) / "index")
        with index._changing() as database:
            for number in range(count):
                model = {**manifest.model, "config": {"rate": number / count, "seed": number}}
                made = evolve(manifest, header=evolve(manifest.header, uuid=f"record{number:06}"), model=model)
                index._add(database, made, None, None)
        spent = min(
            _timed(lambda: index.find(config=[Filter("rate", Comparison.GT, 0.999)]))[0] for _ in range(_REPEATS)
        )
        index.close()
        return _row(f"a value of the configuration among {count} records of an index", spent, f"{spent * 1000:.1f} ms")


class _Counting(FaultyStore):
    """Counts the bytes that are sent."""

    sent = 0

    def write_raw(self, reference, size, options, stream):  # type: ignore[no-untyped-def]
        written = super().write_raw(reference, size, options, stream)
        self.sent += written.size
        return written


@contextmanager
def _disk() -> Iterator[tuple[Store, DataReference]]:
    with tempfile.TemporaryDirectory(prefix="stow-bench-") as above:
        store, base = open_root_store(f"file://{above}/store", create=ContainerPolicy.IF_MISSING)
        with store:
            yield store, base


@contextmanager
def _radosgw() -> Iterator[tuple[Store, DataReference]]:
    # Only where the tests' servers are: a checkout of this project.
    from tests import servers

    with servers.radosgw.start() as server:
        options = {"access_key_id": server.access_key, "secret_key": server.secret_key}
        root = f"s3://bench-{uuid.uuid4().hex[:12]}/records?endpoint={server.endpoint}&region=us-east-1"
        store, base = open_root_store(root, options=options, create=ContainerPolicy.IF_MISSING)
        with store:
            yield store, base


def _timed(act: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    result = act()
    return time.perf_counter() - began, result


def _row(what: str, wall: float | None, figure: str, *, target: str = "", met: bool | None = None) -> Row:
    return Row(
        group="records",
        what=what,
        client="stowstore",
        figure=figure,
        wall=wall,
        measure=Measure.WALL,
        target=target,
        met=met,
    )
