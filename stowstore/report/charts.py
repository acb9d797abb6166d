"""Charts of sizes, as numbers to draw."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

from attrs import frozen

from stowstore.report.model import RootFacts
from stowstore.report.words import day_text, moment_text, size_text

__all__ = ["GrowthChart", "Point", "Series", "Tick", "growth_chart", "sparkline"]

_WIDTH: Final = 960.0
_HEIGHT: Final = 260.0
_LEFT: Final = 78.0
_RIGHT: Final = 16.0
_TOP: Final = 14.0
_BOTTOM: Final = 30.0
#: How many points of a series can be pointed at.
_POINTS: Final = 120

_T = TypeVar("_T")


@frozen
class Tick:
    """A mark on an axis: where it is and what it says."""

    at: float
    text: str


@frozen
class Point:
    """A place on a curve, and what pointing at it says."""

    x: float
    y: float
    title: str


@frozen(kw_only=True)
class Series:
    """A curve that changes in steps."""

    name: str
    css: str
    path: str
    area: str
    points: tuple[Point, ...]


@frozen(kw_only=True)
class GrowthChart:
    """Sizes over time; coordinates fit ``width`` and ``height``."""

    width: float = _WIDTH
    height: float = _HEIGHT
    left: float = _LEFT
    right: float = _WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = _HEIGHT - _BOTTOM
    x_ticks: tuple[Tick, ...] = ()
    y_ticks: tuple[Tick, ...] = ()
    series: tuple[Series, ...] = ()


def growth_chart(facts: RootFacts) -> GrowthChart | None:
    """What the newest versions of all volumes hold, and what is stored of it, over time; None with nothing to show."""
    logical = _newest_over_time(facts)
    stored = list(facts.packs.growth)
    moments = [moment for moment, _ in (*logical, *stored)]
    if not moments:
        return None
    start, end = min(moments), max(facts.gathered, *moments)
    span = max(end - start, timedelta(seconds=1))
    highest = max(size for _, size in (*logical, *stored))
    y_values = _nice_sizes(highest)
    top = max(y_values[-1], 1)

    def x(moment: datetime) -> float:
        return round(_LEFT + (moment - start) / span * (_WIDTH - _RIGHT - _LEFT), 1)

    def y(size: float) -> float:
        return round(_HEIGHT - _BOTTOM - size / top * (_HEIGHT - _BOTTOM - _TOP), 1)

    def series(name: str, css: str, values: Sequence[tuple[datetime, int]]) -> Series:
        places = [(x(moment), y(size)) for moment, size in values]
        path = _steps(places, x(end))
        area = f"{path} V{y(0)} H{places[0][0]} Z" if places else ""
        points = [
            Point(*place, f"{moment_text(moment)} UTC: {size_text(size)} {name}")
            for place, (moment, size) in zip(places, values, strict=True)
        ]
        return Series(name=name, css=css, path=path, area=area, points=tuple(_thinned(points, _POINTS)))

    x_ticks = [start + span * step / 5 for step in range(6)]
    return GrowthChart(
        x_ticks=tuple(Tick(x(moment), day_text(moment, span)) for moment in x_ticks),
        y_ticks=tuple(Tick(y(value), size_text(value)) for value in y_values),
        series=(
            series("in the newest versions of all volumes", "logical", logical),
            series("stored in packs", "stored", stored),
        ),
    )


def sparkline(sizes: Sequence[int], width: float = 90.0, height: float = 20.0) -> str:
    """A small curve of sizes, as the path of an SVG of so many pixels; empty with fewer than two."""
    if len(sizes) < 2:
        return ""
    values = _thinned(sizes, 60)
    top = max(*values, 1)
    step = (width - 4) / (len(values) - 1)
    return "M" + " L".join(
        f"{2 + position * step:.1f},{height - 2 - value / top * (height - 4):.1f}"
        for position, value in enumerate(values)
    )


def _newest_over_time(facts: RootFacts) -> list[tuple[datetime, int]]:
    """The sizes of the newest versions of all volumes together, at every commit."""
    newest: dict[str, int] = {}
    gone = {volume.name for volume in facts.volumes if volume.is_deleted}
    total = 0
    found = []
    for version in sorted(facts.versions, key=lambda version: (version.created, version.id)):
        if version.volume not in gone:
            total += version.used_bytes - newest.get(version.volume, 0)
            newest[version.volume] = version.used_bytes
            found.append((version.created, total))
    return found


def _nice_sizes(highest: int) -> list[int]:
    """Three to six round sizes from nothing to above the highest: 1, 2 or 5 times a power of ten of their unit."""
    unit = 1
    while highest >= 1024 * unit:
        unit *= 1024
    for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        if highest <= 5 * step * unit:
            return [step * unit * number for number in range(max(2, -(-highest // (step * unit))) + 1)]
    raise AssertionError("unreachable")


def _steps(places: Sequence[tuple[float, float]], end: float) -> str:
    if not places:
        return ""
    (x, y), *more = places
    return f"M{x},{y}" + "".join(f" H{right} V{level}" for right, level in more) + f" H{end}"


def _thinned(values: Sequence[_T], most: int) -> list[_T]:
    """The same with parts left out where there are too many; the last is always there."""
    every = max(1, -(-len(values) // most))
    return list(values[-1::-every])[::-1]
