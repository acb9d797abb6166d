"""``stowstore bench``: how fast a store is from here."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, process_time
from uuid import uuid4

import click
from attrs import asdict, frozen

from datastore.reference import DataReference
from stowstore.cli.bench_path import measure_path
from stowstore.cli.opening import Opener
from stowstore.cli.output import echo_json, echo_table, json_option, size_text
from stowstore.store import StowStore, open_store

__all__ = ["bench"]


@frozen
class Row:
    """One measurement; times in milliseconds, client CPU in microseconds an operation."""

    what: str
    threads: int
    operations: int
    per_second: float
    bytes_per_second: float
    median_ms: float
    p99_ms: float
    cpu_us: float


@click.command()
@click.argument("path", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--store", "store_url", metavar="URL", help="Store to measure; the configured one by default.")
@click.option("--small", type=click.IntRange(1), default=500, show_default=True, help="How many objects of 4 KiB.")
@click.option("--large", type=click.IntRange(1), default=64, show_default=True, help="MiB of the large object.")
@click.option(
    "-j", "--threads", type=click.IntRange(1, 256), default=16, show_default=True, help="Threads of the parallel part."
)
@json_option
@click.pass_obj
def bench(
    opener: Opener, path: Path | None, store_url: str | None, small: int, large: int, threads: int, as_json: bool
) -> None:
    """Measure a store from here: small puts and gets, one large object, listing. Removes what it wrote.

    With PATH measure a directory instead, such as a mounted volume: creating, reading and removing small files, and
    one large file. Compare rows of one run; single figures of two runs depend on what else the machines were doing.
    """
    if path is not None:
        if store_url is not None:
            raise click.UsageError("either PATH or --store")
        _show_path(path, small, large << 20, as_json)
        return
    with opener.limits():
        store = open_store(store_url) if store_url else opener.store(None)
        base = store.base_container_fqn.join(f"bench-{uuid4().hex[:8]}")
        try:
            rows = _measure(store, base, small, large << 20, threads)
        finally:
            store.delete_many([entry.reference for entry in store.walk(base, directory=True)])
            if store_url:
                store.close()
    if as_json:
        echo_json([asdict(row) for row in rows])
        return
    echo_table(
        ("what", "threads", "operations", "a second", "bytes/s", "median ms", "p99 ms", "client CPU µs"),
        [
            (
                row.what,
                row.threads,
                row.operations,
                f"{row.per_second:,.0f}",
                f"{size_text(row.bytes_per_second)}/s" if row.bytes_per_second else "",
                f"{row.median_ms:.2f}",
                f"{row.p99_ms:.2f}",
                f"{row.cpu_us:,.0f}",
            )
            for row in rows
        ],
        right=frozenset(range(1, 8)),
    )


def _measure(store: StowStore, base: DataReference, small: int, large: int, threads: int) -> list[Row]:
    content = os.urandom(4096)
    rows = []
    for count in dict.fromkeys((1, threads)):
        refs = [base.join(f"small-{count}", f"{number:06d}") for number in range(small)]
        rows.append(_run("put 4 KiB", refs, count, 4096, lambda ref: store.write_bytes(ref, content)))
        rows.append(_run("get 4 KiB", refs, count, 4096, store.read_bytes))
        rows.append(_run("head", refs, count, 0, store.head))
    whole = [base.join("large")]
    piece = os.urandom(1 << 20)
    rows.append(
        _run(
            f"put {size_text(large)}",
            whole,
            1,
            large,
            lambda ref: store.write_raw(ref, large, None, (piece for _ in range(large >> 20))),
        )
    )
    rows.append(_run(f"get {size_text(large)}", whole, 1, large, lambda ref: _drain(store, ref)))
    rows.append(_run(f"list {small}", [base.join("small-1")], 1, 0, lambda ref: sum(1 for _ in store.walk(ref))))
    return rows


def _drain(store: StowStore, ref: DataReference) -> int:
    with store.read_raw(ref, max_bytes=0) as stream:
        return sum(len(piece) for piece in stream)


def _run(
    what: str, refs: Sequence[DataReference], threads: int, size: int, act: Callable[[DataReference], object]
) -> Row:
    def timed(ref: DataReference) -> float:
        began = perf_counter()
        act(ref)
        return perf_counter() - began

    began, cpu = perf_counter(), process_time()
    if threads == 1:
        times = [timed(ref) for ref in refs]
    else:
        with ThreadPoolExecutor(threads) as pool:
            times = list(pool.map(timed, refs))
    wall, spent = perf_counter() - began, process_time() - cpu
    times.sort()
    return Row(
        what,
        threads,
        len(refs),
        len(refs) / wall,
        size * len(refs) / wall,
        statistics.median(times) * 1000,
        times[min(len(times) - 1, int(len(times) * 0.99))] * 1000,
        spent / len(refs) * 1e6,
    )


def _show_path(path: Path, small: int, large: int, as_json: bool) -> None:
    rows = list(measure_path(path, small, large))
    if as_json:
        echo_json([asdict(row) for row in rows])
        return
    echo_table(
        ("what", "operations", "a second", "throughput"),
        [(row.what, row.operations, f"{row.per_second:,.0f}", row.throughput) for row in rows],
        right=frozenset({1, 2, 3}),
    )
