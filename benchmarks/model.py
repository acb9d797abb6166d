"""What is measured, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from attrs import field, frozen

from benchmarks.team import Order, Sample

__all__ = ["Case", "Measure", "Row", "rows_of"]


class Measure(StrEnum):
    """What a ratio compares."""

    CPU = "CPU"
    WALL = "wall"
    PEAK = "peak"


@frozen(kw_only=True)
class Case:
    """One thing done by several clients, in ``rounds`` that take turns.

    ``limit`` bounds the ratio of stowstore to ``reference``.  For the clients in ``halved`` stowstore may take half of
    what they take.  ``peak_limit`` bounds stowstore's memory, in bytes.
    """

    group: str
    what: str
    order: Order
    rounds: int
    reference: str
    measure: Measure = Measure.CPU
    limit: float | None = None
    halved: frozenset[str] = frozenset()
    peak_limit: int | None = None


@frozen(kw_only=True)
class Row:
    """One line of the report; times in seconds and microseconds an operation, ``peak`` in bytes.

    ``figure`` is what was measured besides or instead of time, with its unit.
    """

    group: str
    what: str
    client: str
    figure: str = ""
    wall: float | None = None
    cpu_us: float | None = None
    ratio: float | None = None
    measure: Measure = Measure.CPU
    peak: int | None = None
    target: str = ""
    met: bool | None = None
    note: str = ""
    samples: Sequence[Sample] = field(default=(), repr=False)


def rows_of(case: Case, samples: dict[str, list[Sample]], notes: dict[str, str]) -> list[Row]:
    """The rows of a case: the best of each client's rounds, and ratios of those."""
    best = {name: _value(case, found) for name, found in samples.items() if found}
    reference, ours = best.get(case.reference), best.get("stowstore")
    rows = []
    for name, found in samples.items():
        if not found:
            rows.append(Row(group=case.group, what=case.what, client=name, note=notes.get(name, "not measured")))
            continue
        value, peak = best[name], max(sample.peak for sample in found)
        target, met = _verdict(case, name, value, peak, reference, ours)
        rows.append(
            Row(
                group=case.group,
                what=case.what,
                client=name,
                wall=min(sample.wall for sample in found),
                cpu_us=min(sample.cpu for sample in found) / case.order.count * 1e6,
                ratio=value / reference if reference else None,
                measure=case.measure,
                # Of the others the process has done much before.
                peak=peak if case.order.verb.endswith("_stream") else None,
                target=target,
                met=met,
                note=notes.get(name, ""),
                samples=found,
            )
        )
    return rows


def _value(case: Case, samples: list[Sample]) -> float:
    return min(sample.cpu if case.measure is Measure.CPU else sample.wall for sample in samples)


def _verdict(
    case: Case, name: str, value: float, peak: int, reference: float | None, ours: float | None
) -> tuple[str, bool | None]:
    if name == "stowstore":
        if case.peak_limit is not None:
            return f"peak under {case.peak_limit >> 20} MiB", peak < case.peak_limit
        if case.limit is not None:
            target = f"{case.measure} at most {case.limit:g}x {case.reference}"
            return target, value <= case.limit * reference if reference else None
    elif name in case.halved:
        return f"stowstore: at most half its {case.measure}", ours <= value / 2 if ours else None
    return "", None
