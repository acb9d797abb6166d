"""Stopwatches: units, names, float division, one observation a timer."""

import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from metrics import Naming, Scope, Unit

SCALES = {
    "1ns": Unit.NANOSECONDS,
    "1us": Unit.MICROSECONDS,
    "1ms": Unit.MILLISECONDS,
    "1s": Unit.SECONDS,
    "1m": Unit.MINUTES,
    "1h": Unit.HOURS,
}


def test_flyte_names_end_in_the_short_unit(vectors: dict[str, Any]) -> None:
    """Under Naming.FLYTE a stopwatch's name ends in flytestdlib's suffix."""
    assert set(SCALES) == {row["scale"] for row in vectors["stopwatch_suffix"]}
    for row in vectors["stopwatch_suffix"]:
        name = row.get("name", "x")
        registry = CollectorRegistry()
        Scope("test", registry, Naming.FLYTE).stopwatch(name, "help", unit=SCALES[row["scale"]]).observe(1)
        expected = row.get("expect", f"{name}_{row.get('suffix')}")
        assert registry.get_sample_value(f"test:{expected}_count") == 1


def test_prometheus_names_end_in_the_full_unit(registry: CollectorRegistry) -> None:
    """Under Naming.PROMETHEUS the unit is written out, once."""
    scope = Scope("stow", registry)
    scope.stopwatch("read", "help").observe(1)
    scope.stopwatch("read_seconds", "help").observe(1)
    assert registry.get_sample_value("stow_read_seconds_count") == 2


@pytest.mark.parametrize("unit", Unit)
def test_durations_are_divided_as_floats(unit: Unit, registry: CollectorRegistry) -> None:
    """A duration below the unit is kept as a fraction, not cut to zero."""
    stopwatch = Scope("stow", registry).stopwatch("x", "help", unit=unit)
    stopwatch.observe(0.25)
    assert pytest.approx(0.25 / unit.seconds) == registry.get_sample_value(f"stow_x_{unit.long_name}_sum")


def test_buckets_are_converted_to_the_unit(registry: CollectorRegistry) -> None:
    """Bucket bounds are given in seconds and exposed in the unit."""
    stopwatch = Scope("stow", registry).stopwatch("x", "help", unit=Unit.MILLISECONDS, buckets=(0.1, 0.3))
    stopwatch.observe(0.2)
    assert registry.get_sample_value("stow_x_milliseconds_bucket", {"le": "100.0"}) == 0
    assert registry.get_sample_value("stow_x_milliseconds_bucket", {"le": "300.0"}) == 1


def test_a_timer_observes_once(registry: CollectorRegistry) -> None:
    """Stopping twice observes once and returns the same time."""
    timer = Scope("stow", registry).stopwatch("x", "help").start()
    time.sleep(0.01)
    seconds = timer.stop()
    assert seconds >= 0.01
    assert seconds == timer.stop()
    assert registry.get_sample_value("stow_x_seconds_count") == 1
    assert seconds == registry.get_sample_value("stow_x_seconds_sum")


def test_blocks_and_functions_are_timed_when_they_fail(registry: CollectorRegistry) -> None:
    """A timer as a block, and `time()` as a block or a decorator, observe failures too."""
    stopwatch = Scope("stow", registry).stopwatch("x", "help", ("op",)).labels(op="read")

    @stopwatch.time()
    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        fail()
    with pytest.raises(KeyError):
        fail()
    with pytest.raises(KeyError), stopwatch.start():
        raise KeyError
    with stopwatch.time() as timer:
        pass
    assert registry.get_sample_value("stow_x_seconds_count", {"op": "read"}) == 4
    assert timer.stop() >= 0


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_impossible_durations_are_refused(seconds: float, registry: CollectorRegistry) -> None:
    """Negative, NaN and infinite durations raise and leave the sum intact."""
    stopwatch = Scope("stow", registry).stopwatch("x", "help")
    with pytest.raises(ValueError, match="finite number of seconds"):
        stopwatch.observe(seconds)
    assert registry.get_sample_value("stow_x_seconds_sum") == 0
