"""The cases that compare clients: S3 on the stub and on Ceph's gateway, and local disk."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

from benchmarks.clients import CLIENTS, LOCAL_CLIENTS, Service
from benchmarks.model import Case, Measure, Row, rows_of
from benchmarks.scale import Scale
from benchmarks.team import Order, Sample, WorkerProcess, running_stub, running_team

__all__ = ["disk", "radosgw", "stub"]

_SMALL = 4 << 10
_LARGE = 4 << 20
_SLOW = frozenset({"minio-py", "boto3", "s3fs"})
_MEMORY = 200 << 20
_LEAST_ROUNDS = 2
_BUCKET = "bench"

Progress = Callable[[str], None]


def stub(scale: Scale, progress: Progress) -> Iterator[Row]:
    """S3 against the stub: what the clients themselves cost, with the figures to reach."""
    with running_stub() as endpoint:
        service = Service(endpoint=endpoint, bucket=_BUCKET, access_key="access", secret_key="secret")
        yield from _compare(
            _s3_cases("stub", scale, scale.rounds, scale.operations), service, scale, list(CLIENTS), progress
        )
        yield from _stream(_streams("stub", scale.large, {}), service, list(CLIENTS), progress)
        huge = _streams("stub", scale.huge, {"peak_limit": _MEMORY})
        yield from _stream(huge, service, ["stowstore"], progress)


def radosgw(scale: Scale, progress: Progress) -> Iterator[Row]:
    """S3 against a real server, where its own time is most of the wall clock."""
    try:
        from tests import servers
    except ImportError as error:
        yield Row(group="radosgw", what="everything", client="all", note=f"no servers from here: {error}")
        return
    try:
        server = servers.radosgw.start()
    except servers.ServerError as error:
        yield Row(group="radosgw", what="everything", client="all", note=f"the server cannot be provided: {error}")
        return
    with server:
        service = Service(
            endpoint=server.endpoint, bucket=_BUCKET, access_key=server.access_key, secret_key=server.secret_key
        )
        operations = max(16, scale.operations // 3)
        cases = _s3_cases("radosgw", scale, max(2, scale.rounds // 2), operations, judged=False)
        yield from _compare(cases, service, scale, list(CLIENTS), progress)
        yield from _stream(_streams("radosgw", scale.large, {}), service, list(CLIENTS), progress)


def disk(scale: Scale, progress: Progress) -> Iterator[Row]:
    """Local disk against plain files."""
    operations = scale.operations * 4
    with tempfile.TemporaryDirectory(prefix="stowstore-bench-") as directory:
        service = Service(directory=directory)

        def case(what: str, order: Order, limit: float, rounds: int = scale.rounds) -> Case:
            return Case(
                group="disk", what=what, order=order, rounds=rounds, reference="plain", measure=Measure.WALL,
                limit=limit,
            )  # fmt: skip

        cases = []
        for threads in (1, 16):
            name = f"4 KiB, {threads} thread{'s' if threads > 1 else ''}"
            put = Order(verb="put", key=f"objects/{threads}-", size=_SMALL, count=operations, threads=threads)
            get = Order(verb="get", key=f"objects/{threads}-", size=_SMALL, count=operations, threads=threads)
            cases += [case(f"put {name}", put, 1.5), case(f"get {name}", get, 2.0)]
        for verb, name in (("put_stream", "write"), ("get_stream", "read")):
            order = Order(verb=verb, key="objects/large", size=scale.large)
            cases.append(case(f"stream {name} {scale.large >> 20} MiB", order, 1.1, max(2, scale.rounds // 2)))
        yield from _compare(cases, service, scale, list(LOCAL_CLIENTS), progress)


def _s3_cases(group: str, scale: Scale, rounds: int, operations: int, *, judged: bool = True) -> list[Case]:
    cases = []

    def add(
        what: str, order: Order, limit: float, halved: frozenset[str] = frozenset(), measure: Measure = Measure.CPU
    ) -> None:
        cases.append(
            Case(
                group=group,
                what=what,
                order=order,
                rounds=rounds,
                reference="obstore",
                measure=measure,
                limit=limit if judged else None,
                halved=halved if judged else frozenset(),
            )
        )

    for threads, count in ((1, operations), (16, 2 * operations)):
        name = f"4 KiB, {threads} thread{'s' if threads > 1 else ''}"
        for verb in ("put", "get"):
            order = Order(verb=verb, key=f"small/{threads}-", size=_SMALL, count=count, threads=threads)
            add(f"{verb} {name}", order, 1.15, _SLOW)
    for verb in ("put", "get"):
        order = Order(verb=verb, key="large/", size=_LARGE, count=max(8, operations // 12), threads=8)
        add(f"{verb} 4 MiB, 8 threads", order, 1.05)
    order = Order(verb="list", key="keys/", size=scale.keys)
    add(f"list {scale.keys:,} keys", order, 2.0, measure=Measure.WALL)
    return cases


def _streams(group: str, size: int, more: dict[str, int]) -> list[Case]:
    name = f"{size >> 30} GiB" if size >= 1 << 30 else f"{size >> 20} MiB"
    return [
        Case(
            group=group,
            what=f"stream {what} {name}",
            order=Order(verb=verb, key="stream/", size=size),
            rounds=1,
            reference="obstore",
            measure=Measure.CPU,
            **more,  # type: ignore[arg-type]
        )
        for verb, what in (("put_stream", "write"), ("get_stream", "read"))
    ]


def _compare(
    cases: Sequence[Case], service: Service, scale: Scale, names: list[str], progress: Progress
) -> Iterator[Row]:
    """Takes turns: every client once in each round, another one first each time."""
    with running_team(names, service) as team:
        _prepare(team, cases)
        for case in cases:
            progress(f"{case.group}: {case.what}")
            samples: dict[str, list[Sample]] = {name: [] for name in team}
            notes = {name: worker.missing for name, worker in team.items() if worker.missing}
            began = perf_counter()
            for turn in range(case.rounds):
                if turn >= _LEAST_ROUNDS and perf_counter() - began > scale.case_seconds:
                    break
                for name in [*names[turn % len(names) :], *names[: turn % len(names)]]:
                    if name not in notes:
                        found = team[name].obey(case.order)
                        if isinstance(found, str):
                            notes[name] = found
                        else:
                            samples[name].append(found)
            yield from rows_of(case, samples, notes)


def _prepare(team: dict[str, WorkerProcess], cases: Sequence[Case]) -> None:
    """Warms every client up, and writes the keys that are listed."""
    for case in cases:
        if case.order.verb == "list":
            keys = Order(verb="put", key=case.order.key, size=1, count=case.order.size, threads=16)
            if isinstance(failure := team["stowstore"].obey(keys), str):
                raise RuntimeError(f"the keys to be listed cannot be written: {failure}")
    for case in cases:
        for worker in team.values():
            if case.order.verb in ("put", "get") and not worker.missing:
                worker.obey(case.order)


def _stream(cases: Sequence[Case], service: Service, names: list[str], progress: Progress) -> Iterator[Row]:
    """Once each, in a fresh process so that its peak of memory is the stream's own."""
    found: list[dict[str, list[Sample]]] = [{name: [] for name in names} for _ in cases]
    notes: list[dict[str, str]] = [{} for _ in cases]
    for name in names:
        for index, case in enumerate(cases):
            progress(f"{case.group}: {case.what}: {name}")
            with WorkerProcess(name, service) as worker:
                result = worker.missing or worker.obey(case.order)
            if isinstance(result, str):
                notes[index][name] = result
            else:
                found[index][name].append(result)
    for case, samples, said in zip(cases, found, notes, strict=True):
        yield from rows_of(case, samples, said)
