"""Labels of the context, and metrics that carry them."""

import asyncio
import threading
from collections.abc import Callable, Mapping

import pytest
from prometheus_client import CollectorRegistry

import metrics
from metrics import MetricError, Scope, Unit, current_labels, labels

SetKeys = Callable[..., None]


def test_blocks_nest_and_merge(label_keys: SetKeys) -> None:
    """An inner block adds to the outer, wins where both set a label, and ends with its block."""
    assert current_labels() == {}
    with labels(project="p", domain="d"):
        with labels(domain="e", task="t") as inner:
            assert {"project": "p", "domain": "e", "task": "t"} == current_labels() == inner
        assert current_labels() == {"project": "p", "domain": "d"}
    assert current_labels() == {}


def test_blocks_end_with_errors(label_keys: SetKeys) -> None:
    """An exception ends the block's labels too."""
    with pytest.raises(KeyError), labels(project="p"):
        raise KeyError
    assert current_labels() == {}


def test_threads_and_tasks_keep_their_own(label_keys: SetKeys) -> None:
    """A task inherits the labels it was started under and cannot change its neighbour's; a thread starts bare."""
    seen: list[Mapping[str, str]] = []

    async def task(name: str) -> Mapping[str, str]:
        with labels(task=name):
            await asyncio.sleep(0)
            return current_labels()

    async def both() -> list[Mapping[str, str]]:
        with labels(project="p"):
            return list(await asyncio.gather(task("a"), task("b")))

    assert asyncio.run(both()) == [{"project": "p", "task": "a"}, {"project": "p", "task": "b"}]
    with labels(project="p"):
        thread = threading.Thread(target=lambda: seen.append(current_labels()))
        thread.start()
        thread.join()
    assert seen == [{}]


def test_keys_are_set_once(label_keys: SetKeys) -> None:
    """The same keys again are fine in any order, other keys are an error."""
    label_keys("project", "domain")
    label_keys("domain", "project")
    assert metrics.label_keys() == ("domain", "project")
    with pytest.raises(MetricError, match="set once a process: asked for wf, have domain, project"):
        label_keys("wf")


def test_keys_cannot_follow_metrics(label_keys: SetKeys, registry: CollectorRegistry) -> None:
    """Keys set after a metric with context labels was declared without any are an error, not a surprise."""
    Scope("stow", registry).counter("a", "help", context_labels=True).labels().inc()
    assert registry.get_sample_value("stow_a_total") == 1
    with pytest.raises(MetricError, match="a metric was declared before"):
        label_keys("project")


def test_unknown_labels_are_refused_once_keys_are_set(label_keys: SetKeys) -> None:
    """A misspelt context label is an error that names it and those there are."""
    label_keys("project", "domain")
    with pytest.raises(MetricError, match="no such context label: projct; this process has domain, project"):
        labels(projct="p").__enter__()


def test_values_are_text(label_keys: SetKeys) -> None:
    """A label's value that is not text is an error where it is set."""
    with pytest.raises(TypeError, match="label 'project' must be text, not int"):
        labels(project=1).__enter__()  # type: ignore[arg-type]


def test_counters_pick_up_the_context(label_keys: SetKeys, registry: CollectorRegistry) -> None:
    """One counter has one series for each set of context labels; missing labels are empty text."""
    label_keys("project", "domain", "wf", "task")
    counter = Scope("stow", registry).counter("c1", "help", context_labels=True)
    assert counter.label_names == ("domain", "project", "task", "wf")
    counter.labels().inc(2)
    with labels(project="p", domain="d"):
        counter.labels().inc(2)
        with labels(task="t"):
            counter.labels().inc(2)
    for values in ({}, {"project": "p", "domain": "d"}, {"project": "p", "domain": "d", "task": "t"}):
        series = dict.fromkeys(("project", "domain", "wf", "task"), "") | values
        assert registry.get_sample_value("stow_c1_total", series) == 2


def test_own_labels_join_the_context(label_keys: SetKeys, registry: CollectorRegistry) -> None:
    """A metric's own labels are sorted in among the context's, and must be given exactly."""
    label_keys("project", "domain")
    scope = Scope("stow", registry)
    counter = scope.counter("c", "help", ("exec_id",), context_labels=True)
    assert counter.label_names == ("domain", "exec_id", "project")
    with labels(project="p"):
        counter.labels(exec_id="x").inc()
    assert registry.get_sample_value("stow_c_total", {"domain": "", "exec_id": "x", "project": "p"}) == 1
    with pytest.raises(MetricError, match="needs a value for label exec_id"):
        counter.labels()
    with pytest.raises(MetricError, match="has no label other"):
        counter.labels(exec_id="x", other="y")


def test_every_type_takes_context_labels(label_keys: SetKeys, registry: CollectorRegistry) -> None:
    """Gauges, histograms and stopwatches resolve the context as counters do."""
    label_keys("project")
    scope = Scope("stow", registry)
    with labels(project="p"):
        scope.gauge("g", "help", context_labels=True).labels().set(5)
        scope.histogram("h", "help", context_labels=True).labels().observe(0.1)
        scope.stopwatch("s", "help", unit=Unit.SECONDS, context_labels=True).labels().observe(0.1)
    for name, value in (("stow_g", 5), ("stow_h_count", 1), ("stow_s_seconds_count", 1)):
        assert value == registry.get_sample_value(name, {"project": "p"})
