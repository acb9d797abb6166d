"""Volumes: what commits, opening, forks, differences, imports and streams cost, against the figures to reach.

Each measurement runs in a process of its own (`benchmarks.volume_worker`).  The S3 rows are those of Ceph's
gateway, whose own time is in them: they count requests and carry no targets of time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

from attrs import frozen

from benchmarks.model import Measure, Row
from benchmarks.scale import QUICK, Scale

__all__ = ["volumes"]

Progress = Callable[[str], None]
Answer = Mapping[str, Any]

_PROJECT = Path(__file__).resolve().parents[1]
_KIB: Final = 1 << 10
_MIB: Final = 1 << 20
_SECONDS: Final = 200
#: Fixed costs of opening and committing are in both sizes, so ten times the size may seem to cost less than ten times.
_LINEAR: Final = 12.0
_FLAT: Final = 1.5


@frozen(kw_only=True)
class _Sizes:
    """How much is measured; ``stream`` in bytes."""

    namespaces: tuple[int, int]
    remote: int
    imported: int
    stream: int
    extents: int
    rounds: int
    turns: int


_FULL = _Sizes(
    namespaces=(50_000, 1_000_000), remote=50_000, imported=50_000, stream=512 * _MIB, extents=1_000_000, rounds=4,
    turns=2,
)  # fmt: skip
_QUICK = _Sizes(
    namespaces=(5_000, 20_000), remote=5_000, imported=5_000, stream=16 * _MIB, extents=20_000, rounds=2, turns=1
)


class _Place:
    """A root, and how workers are sent to it."""

    def __init__(self, client: str, root: str, local: Path, progress: Progress, options: Mapping[str, str]) -> None:
        self.client = client
        self._common = {"root": root, "local": str(local), "options": dict(options)}
        self._progress = progress

    def ask(self, task: str, **more: Any) -> Answer:
        """Has a task done by a fresh process.

        Raises:
            RuntimeError: it failed; the message is the end of what it said.
        """
        self._progress(f"volumes: {self.client}: {task} {more.get('files') or more.get('extents') or ''}")
        # What was written before is not to be paid for by what is measured next.
        os.sync()
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "benchmarks.volume_worker"],
            input=json.dumps({"task": task, **self._common, **more}),
            cwd=_PROJECT,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        if run.returncode:
            raise RuntimeError(" ".join(run.stderr.splitlines()[-1:]) or f"status {run.returncode}")
        answer: dict[str, Any] = json.loads(run.stdout)
        return answer


def volumes(scale: Scale, progress: Progress) -> Iterator[Row]:
    """The figures of volumes, on local disk and on Ceph's gateway."""
    sizes = _QUICK if scale is QUICK else _FULL
    with tempfile.TemporaryDirectory(prefix="stowstore-bench-") as directory:
        local = Path(directory)
        place = _Place("disk", f"file://{local}/root", local / "sessions", progress, {})
        yield from _guarded(place, "namespaces", lambda: _namespaces(place, sizes))
        yield from _guarded(place, "import", lambda: _imported(place, sizes, local))
        yield from _guarded(place, "overwrite", lambda: _overwritten(place))
        # A root of its own: its packs are read as files as well.
        streams = _Place("disk", f"file://{local}/stream-root", local / "sessions", progress, {})
        yield from _guarded(streams, "streams", lambda: _streamed(streams, sizes, local))
        yield from _guarded(place, "holes", lambda: _holes(place))
        yield from _guarded(place, "extents", lambda: _extents(place, sizes))
        yield from _remote(sizes, local, progress)


def _guarded(place: _Place, what: str, measure: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """The rows of a part; what fails is a row that says so, and takes nothing from the others."""
    try:
        yield from measure()
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        yield Row(group="volumes", what=what, client=place.client, note=f"{type(error).__name__}: {error}"[:160])


def _namespaces(place: _Place, sizes: _Sizes) -> Iterator[Row]:
    commits: list[tuple[float, float]] = []
    for files in sizes.namespaces:
        volume = f"files-{files}"
        place.ask("make", volume=volume, files=files)
        rows, commit = _versions(place, volume, files, sizes.rounds, judged=True)
        commits.append(commit)
        yield from rows
    few, many = sizes.namespaces
    for name, (small, large) in zip(("time", "index bytes"), zip(*commits, strict=True), strict=True):
        yield _row(
            place,
            f"commit at {many:,} to {few:,}, {name}",
            figure=f"{large / small:.2f}x",
            target=f"flat: at most {_FLAT:g}x",
            met=large / small <= _FLAT,
        )
    walked = place.ask("walk", volume=f"files-{many}", files=many)
    yield _row(
        place,
        f"open and walk {many:,} files",
        wall=walked["wall"],
        figure=f"{many / walked['wall']:,.0f} files/s",
        peak=walked["peak"],
        target="under 1 GiB for 10,000,000, which is not run",
    )


def _versions(
    place: _Place, volume: str, files: int, rounds: int, *, judged: bool
) -> tuple[list[Row], tuple[float, float]]:
    """Commits, opening, forks and differences in one namespace; and time and bytes of a commit."""
    among = f"{files:,} files"
    commit = place.ask("commit", volume=volume, files=files, rounds=2 * rounds)
    wall, beyond, written = min(commit["walls"]), min(commit["beyond"]), mean(commit["index_bytes"])
    opened = [place.ask("open_version", volume=volume, files=files) for _ in range(min(3, rounds))]
    first, requests = min(answer["wall"] for answer in opened), max(answer["requests"] for answer in opened)
    fork = place.ask("fork", volume=volume, rounds=rounds)
    rows = [
        _row(
            place,
            f"commit 1,000 changed of {among}: index written",
            # Every few commits join the segments of those before, which is part of what a commit costs.
            figure=f"mean {written / _KIB:,.1f}, largest {max(commit['index_bytes']) / _KIB:,.1f} KiB",
            target="mean under 100 KiB",
            met=written < 100 * _KIB,
        ),
        _row(
            place,
            f"commit 1,000 changed of {among}: whole",
            wall=wall,
            figure=f"{median(commit['requests']):g} requests",
        ),
        _row(
            place,
            f"commit 1,000 changed of {among}: beyond the data",
            wall=beyond,
            target="under 50 ms" if judged else "",
            met=beyond < 0.05 if judged else None,
        ),
        _row(
            place,
            f"open {among} cold, first lookup",
            wall=first,
            target="under 50 ms" if judged else "",
            met=first < 0.05 if judged else None,
        ),
        _row(
            place,
            f"open {among} cold, first lookup: requests",
            figure=f"{requests} requests",
            target="under 10 requests",
            met=requests < 10,
        ),
        _row(
            place,
            f"fork {among}: puts",
            figure=f"{fork['puts']} of {fork['requests']} requests",
            target="1 put",
            met=fork["puts"] == 1,
        ),
        _row(
            place,
            f"fork {among}",
            wall=min(fork["walls"]),
            target="under 20 ms" if judged else "",
            met=min(fork["walls"]) < 0.02 if judged else None,
        ),
    ]
    if judged:
        found = place.ask("diff", volume=volume)
        rows += [
            _row(
                place,
                f"diff 1,000 changed of {among}, {name}",
                wall=found[name],
                figure=f"{found[f'{name}_requests']} requests",
                target="under 0.5 s",
                met=found[name] < 0.5,
            )
            for name in ("records", "paths")
        ]
    return rows, (beyond, written)


def _imported(place: _Place, sizes: _Sizes, local: Path) -> Iterator[Row]:
    source = local / "source"
    for number in range(sizes.imported):
        parent = source / f"{number // 1000:04}"
        if number % 1000 == 0:
            parent.mkdir(parents=True)
        (parent / f"{number:08}").write_bytes(os.urandom(4096))
    found = place.ask("import_files", files=sizes.imported, source=str(source))
    rate = sizes.imported / found["wall"]
    what = f"import {sizes.imported:,} files of 4 KiB and commit"
    yield _row(
        place, what, wall=found["wall"], figure=f"{rate:,.0f} files/s", target="at least 8,000 files/s",
        met=rate >= 8000,
    )  # fmt: skip
    yield _row(place, f"{what}: puts", figure=f"{found['puts']} puts", target="under 200 puts", met=found["puts"] < 200)


def _overwritten(place: _Place) -> Iterator[Row]:
    found = place.ask("overwrite")
    yield _row(
        place,
        "4 KiB overwritten in a file of 10 GiB, commit",
        wall=found["wall"],
        figure=f"{found['bytes'] / _KIB:.1f} KiB",
        target="under 64 KiB",
        met=found["bytes"] < 64 * _KIB,
    )


def _streamed(place: _Place, sizes: _Sizes, local: Path) -> Iterator[Row]:
    source = local / "stream"
    with source.open("wb") as file:
        for _ in range(sizes.stream // _MIB):
            file.write(os.urandom(_MIB))
    name = f"{sizes.stream // _MIB} MiB"
    wrote = place.ask("sequential_write", source=str(source), rounds=sizes.turns)
    packs = str(local / "stream-root" / "packs")
    warm, cold = (place.ask("sequential_read", packs=packs, rounds=sizes.turns, evict=evict) for evict in (False, True))
    # Packs in the kernel's page cache are no cold cache: reading them is copying memory, reading blocks is hashing too.
    for what, found, other, least in (
        (f"write {name} and commit", wrote, "BLAKE3 and a file copy", 0.6),
        (f"read {name}, caches of ours empty", warm, "reading the packs", None),
        (f"read {name}, all caches empty", cold, "reading the packs", 0.5),
    ):
        speed = found["plain"] / found["wall"]
        yield _row(
            place,
            what,
            wall=found["wall"],
            figure=f"{found['size'] / _MIB / found['wall']:,.0f} MiB/s",
            ratio=found["wall"] / found["plain"],
            peak=found.get("peak"),
            target="" if least is None else f"at least {least:.0%} of the speed of {other}",
            met=None if least is None else speed >= least,
        )
        yield Row(
            group="volumes",
            what=what,
            client=other,
            wall=found["plain"],
            figure=f"{found['size'] / _MIB / found['plain']:,.0f} MiB/s",
            ratio=1.0,
            measure=Measure.WALL,
        )


def _holes(place: _Place) -> Iterator[Row]:
    found = place.ask("holes")
    yield _row(place, "truncate to 10^15 bytes", wall=found["truncate"], target="O(extents)")
    yield _row(
        place,
        "hole of a petabyte: write behind it, find it, commit",
        wall=found["commit"],
        figure=f"{found['bytes'] / _KIB:.1f} KiB",
        target="O(extents)",
    )


def _extents(place: _Place, sizes: _Sizes) -> Iterator[Row]:
    many = sizes.extents
    made, wrote = {}, {}
    for extents in (many // 10, many):
        made[extents] = place.ask("make_extents", extents=extents)["wall"]
        wrote[extents] = place.ask("write_extent", extents=extents)
    growth = made[many] / made[many // 10]
    yield _row(
        place,
        f"make a file of {many:,} extents, commit",
        wall=made[many],
        figure=f"{growth:.1f}x that of {many // 10:,}",
        target=f"O(extents): at most {_LINEAR:g}x",
        met=growth <= _LINEAR,
    )
    for extents, found in wrote.items():
        judged = extents == many
        growth = found["wall"] / wrote[many // 10]["wall"]
        yield _row(
            place,
            f"reopen, write one extent among {extents:,}, commit",
            wall=found["wall"],
            figure=f"{found['grown'] / _MIB:,.0f} MiB more",
            peak=found["peak"],
            target=f"O(extents): at most {_LINEAR:g}x" if judged else "",
            met=growth <= _LINEAR if judged else None,
        )


def _remote(sizes: _Sizes, local: Path, progress: Progress) -> Iterator[Row]:
    """Commits, opening and forks on Ceph's gateway."""
    try:
        from tests import servers
    except ImportError as error:
        yield Row(group="volumes", what="everything", client="radosgw", note=f"no servers from here: {error}")
        return
    try:
        server = servers.radosgw.start()
    except servers.ServerError as error:
        yield Row(group="volumes", what="everything", client="radosgw", note=f"the server cannot be provided: {error}")
        return
    with server:
        place = _Place(
            "radosgw",
            f"s3://bench-volumes/some/where?endpoint={server.endpoint}",
            local / "remote-sessions",
            progress,
            {"access_key_id": server.access_key, "secret_key": server.secret_key},
        )

        def measure() -> Iterator[Row]:
            volume = f"files-{sizes.remote}"
            place.ask("make", volume=volume, files=sizes.remote)
            yield from _versions(place, volume, sizes.remote, sizes.rounds, judged=False)[0]

        yield from _guarded(place, "everything", measure)


def _row(place: _Place, what: str, **more: Any) -> Row:
    return Row(group="volumes", what=what, client=place.client, measure=Measure.WALL, **more)
