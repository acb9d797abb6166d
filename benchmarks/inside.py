"""What the project costs by itself: its import, and each layer of the stack over a store in memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time

from benchmarks.model import Measure, Row
from benchmarks.scale import Scale
from benchmarks.team import Sample

__all__ = ["imports", "layers"]

_PROJECT = Path(__file__).resolve().parents[1]
_IMPORT_SECONDS = 0.25
_TIME_OF_IMPORT = """
from time import perf_counter, process_time
began, used = perf_counter(), process_time()
import {module}
print(perf_counter() - began, process_time() - used)
"""


def imports(scale: Scale, progress: Callable[[str], None]) -> Iterator[Row]:
    """Importing the package in a fresh interpreter, its bytecode made before."""
    best: dict[str, Sample] = {}
    for _ in range(min(5, scale.rounds + 1)):
        for module in ("stowstore", "datastore", "obstore", "minio", "boto3", "s3fs", "libcloud.storage.providers"):
            progress(f"import: {module}")
            run = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", _TIME_OF_IMPORT.format(module=module)],
                cwd=_PROJECT,
                capture_output=True,
                text=True,
                check=False,
            )
            if run.returncode == 0:
                wall, cpu = map(float, run.stdout.split())
                known = best.get(module)
                if known is None or wall < known.wall:
                    best[module] = Sample(wall=wall, cpu=cpu, peak=0)
    reference = best["stowstore"].wall
    for module, sample in best.items():
        ours = module == "stowstore"
        yield Row(
            group="import",
            what="import in a fresh interpreter",
            client=module,
            wall=sample.wall,
            cpu_us=sample.cpu * 1e6,
            ratio=sample.wall / reference,
            measure=Measure.WALL,
            target=f"under {_IMPORT_SECONDS * 1000:g} ms" if ours else "",
            met=sample.wall < _IMPORT_SECONDS if ours else None,
        )


def layers(scale: Scale, progress: Callable[[str], None]) -> Iterator[Row]:
    """The same small objects through a taller and taller stack: a layer costs what the row before it does not."""
    from prometheus_client import CollectorRegistry

    from datastore import MemoryStore
    from datastore.protocol import Store
    from datastore.wrappers.cached import CachedStore, CachePolicy
    from datastore.wrappers.measured import MeasuredStore, StoreMetrics
    from datastore.wrappers.prefixed import PrefixedStore
    from datastore.wrappers.read_only import ReadOnlyStore
    from datastore.wrappers.retrying import RetryingStore
    from metrics import Scope
    from stowstore import open_store

    scope = Scope("bench", registry=CollectorRegistry())
    metrics = StoreMetrics(scope, "mem", "bench")
    stacks: dict[str, Store] = {
        "memory": MemoryStore(),
        "memory + retrying": RetryingStore(MemoryStore()),
        "memory + measured": MeasuredStore(MemoryStore(), metrics),
        "memory + cached": CachedStore(MemoryStore(), CachePolicy(max_bytes=64 << 20)),
        "memory + prefixed": PrefixedStore(MemoryStore(), "mem://bench/small"),
        "memory + read-only (reads)": ReadOnlyStore(MemoryStore()),
        "open_store(mem)": open_store("mem://bench", scope=Scope("bench_open", registry=CollectorRegistry())),
    }
    data = b"\x5a" * 4096
    references = [f"mem://bench/small/{number:06}" for number in range(1000)]
    best: dict[tuple[str, str], Sample] = {}
    for _ in range(scale.rounds + 1):
        for name, store in stacks.items():
            progress(f"layers: {name}")
            writes = not isinstance(store, ReadOnlyStore)
            for verb in ("put", "get"):
                if verb == "put":
                    target = store if writes else store.inner  # type: ignore[attr-defined]
                    began, used = perf_counter(), process_time()
                    for reference in references:
                        target.write_raw(reference, 4096, None, data)
                else:
                    began, used = perf_counter(), process_time()
                    for reference in references:
                        with store.read_raw(reference) as stream:
                            stream.read()
                sample = Sample(wall=perf_counter() - began, cpu=process_time() - used, peak=0)
                known = best.get((verb, name))
                if known is None or sample.cpu < known.cpu:
                    best[verb, name] = sample
    for verb in ("put", "get"):
        for name in stacks:
            sample = best[verb, name]
            yield Row(
                group="layers",
                what=f"{verb} 4 KiB, 1 thread",
                client=name,
                wall=sample.wall,
                cpu_us=sample.cpu / len(references) * 1e6,
                ratio=sample.cpu / best[verb, "memory"].cpu,
            )
