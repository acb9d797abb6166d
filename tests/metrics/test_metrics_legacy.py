"""Upstream's names: what a scrape shows is what flytestdlib would show."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from metrics import MetricClash, MetricError, Naming, Scope, generate_text, labels
from metrics.legacy import LegacyFamily, LegacyKind, LegacyMetrics, SlidingQuantiles

COUNTER, SUMMARY, HISTOGRAM = LegacyKind.COUNTER, LegacyKind.SUMMARY, LegacyKind.HISTOGRAM


def table(vectors: dict[str, Any]) -> list[LegacyFamily]:
    """The families of the vectors, with those that have a twin said once."""
    rows = vectors["metrics"]["families"]
    names = {row["name"] for row in rows}
    families = []
    for row in rows:
        if "_unlabeled" in row["name"]:
            continue
        plain = LegacyFamily(
            name=row["name"],
            kind=LegacyKind(row["type"]),
            help=row["help"],
            label_names=[name for name in row["labels"] if name != "L"],
            context_labels="L" in row["labels"],
        )
        families.append(plain)
        if plain.twin_name in names:
            families[-1] = LegacyFamily(
                name=plain.name,
                kind=plain.kind,
                help=plain.help,
                label_names=plain.label_names,
                context_labels=plain.context_labels,
                twin=True,
            )
    return families


@pytest.fixture
def scope(registry: CollectorRegistry) -> Scope:
    return Scope("flyte", registry, Naming.FLYTE).sub("storage")


def test_all_families_appear_under_their_names(
    vectors: dict[str, Any], scope: Scope, registry: CollectorRegistry, label_keys: Callable[..., None]
) -> None:
    """The table of 51 families is exposed with exact names, types and labels, and with nothing else."""
    keys = vectors["metrics"]["L"]
    label_keys(*keys)
    families = table(vectors)
    legacy = LegacyMetrics.register(scope, families)
    for family in families:
        extra = dict.fromkeys(family.label_names, "x")
        if family.kind is COUNTER:
            legacy.count(family.name, 1, **extra)
        else:
            legacy.observe(family.name, 0.2, **extra)
    exposed = {metric.name: metric for metric in registry.collect()}
    assert len(vectors["metrics"]["families"]) == len(exposed) == 51
    for row in vectors["metrics"]["families"]:
        metric = exposed[f"flyte:storage:{row['name']}"]
        assert metric.type == {"counter": "unknown"}.get(row["type"], row["type"]), row
        expected = {*(keys if "L" in row["labels"] else ()), *row["labels"]} - {"L"}
        for sample in metric.samples:
            assert set(sample.labels) - {"le", "quantile"} == expected, row
        if row["type"] == "summary":
            objectives = {sample.labels.get("quantile") for sample in metric.samples} - {None}
            assert objectives == set(vectors["metrics"]["summary_objectives"])
        if row["type"] == "histogram":
            bounds = [float(sample.labels["le"]) for sample in metric.samples if "le" in sample.labels]
            assert bounds == [*vectors["metrics"]["histogram_buckets"], math.inf]


def test_text_is_what_a_go_process_writes(scope: Scope, registry: CollectorRegistry) -> None:
    """Counters have no `_total`, summaries are in milliseconds, histograms in seconds."""
    legacy = LegacyMetrics.register(
        scope,
        [
            LegacyFamily(name="bad_key", kind=COUNTER, help="bad"),
            LegacyFamily(name="head_ms", kind=SUMMARY, help="head"),
            LegacyFamily(name="head", kind=HISTOGRAM, help="head"),
        ],
    )
    legacy.count("bad_key", 2)
    for seconds in (0.001, 0.002, 0.003, 20):
        legacy.observe("head_ms", seconds)
        legacy.observe("head", seconds)
    lines = generate_text(registry).splitlines()
    for line in (
        "# TYPE flyte:storage:bad_key untyped",
        "flyte:storage:bad_key 2.0",
        "# TYPE flyte:storage:head_ms summary",
        'flyte:storage:head_ms{quantile="0.5"} 2.0',
        'flyte:storage:head_ms{quantile="0.99"} 20000.0',
        "flyte:storage:head_ms_sum 20006.0",
        "flyte:storage:head_ms_count 4.0",
        "# TYPE flyte:storage:head histogram",
        'flyte:storage:head_bucket{le="0.005"} 3.0',
        'flyte:storage:head_bucket{le="10"} 3.0',
        'flyte:storage:head_bucket{le="+Inf"} 4.0',
        "flyte:storage:head_count 4.0",
    ):
        assert line in lines


def test_labels_come_from_context_and_call(
    scope: Scope, registry: CollectorRegistry, label_keys: Callable[..., None]
) -> None:
    """A labelled family has a series for each set of labels, its twin one series for all of them."""
    label_keys("project", "domain")
    family = LegacyFamily(
        name="read_failure",
        kind=COUNTER,
        help="x",
        label_names=("failure_type",),
        context_labels=True,
        twin=True,
    )
    legacy = LegacyMetrics.register(scope, [family])
    assert registry.get_sample_value("flyte:storage:read_failure_unlabeled") == 0
    with labels(project="p"):
        legacy.count("read_failure", failure_type="NOT_FOUND")
    legacy.count("read_failure", failure_type="NOT_FOUND")
    for project in ("p", ""):
        series = {"project": project, "domain": "", "failure_type": "NOT_FOUND"}
        assert registry.get_sample_value("flyte:storage:read_failure", series) == 1
    assert registry.get_sample_value("flyte:storage:read_failure_unlabeled") == 2
    with pytest.raises(MetricError, match=r"has the labels \('failure_type',\), not \(\)"):
        legacy.count("read_failure")


def test_registering_again_gives_the_same_object(scope: Scope) -> None:
    """A second store shares the first one's families; another table or a taken name is a clash."""
    families = [LegacyFamily(name="bad_key", kind=COUNTER, help="x")]
    assert LegacyMetrics.register(scope, families) is LegacyMetrics.register(scope, families)
    with pytest.raises(MetricClash, match="definition"):
        LegacyMetrics.register(scope, [LegacyFamily(name="other", kind=COUNTER, help="x")])
    other = Scope("other", scope.registry, Naming.FLYTE)
    other.histogram("head", "taken")
    with pytest.raises(MetricClash, match="other:head"):
        LegacyMetrics.register(other, [LegacyFamily(name="head", kind=COUNTER, help="x")])


def test_misuse_is_refused(scope: Scope, registry: CollectorRegistry) -> None:
    """Wrong scopes, names, types and values are errors that say so."""
    families = [
        LegacyFamily(name="c", kind=COUNTER, help="x"),
        LegacyFamily(name="s_ms", kind=SUMMARY, help="x"),
    ]
    with pytest.raises(MetricError, match=r"Naming\.FLYTE"):
        LegacyMetrics.register(Scope("stow", registry), families)
    legacy = LegacyMetrics.register(scope, families)
    with pytest.raises(MetricError, match="no legacy metric 'd'"):
        legacy.count("d")
    with pytest.raises(MetricError, match="is a summary, not a counter"):
        legacy.count("s_ms")
    with pytest.raises(MetricError, match="is a counter, not a summary or a histogram"):
        legacy.observe("c", 1)
    for bad in (-1.0, math.nan):
        with pytest.raises(ValueError, match="c can only go up"):
            legacy.count("c", bad)
        with pytest.raises(ValueError, match="finite number of seconds"):
            legacy.observe("s_ms", bad)


def test_twins_keep_the_unit_last() -> None:
    """A summary's twin has `_unlabeled` before its unit, everything else at the end."""
    assert LegacyFamily(name="head_ms", kind=SUMMARY, help="x").twin_name == "head_unlabeled_ms"
    assert LegacyFamily(name="head", kind=HISTOGRAM, help="x").twin_name == "head_unlabeled"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.floats(0.01, 1))
def test_quantiles_are_exact_while_they_fit(observed: list[float], quantile: float) -> None:
    """The quantile is the smallest observation that at least that share of observations do not exceed."""
    window = SlidingQuantiles(clock=Clock())
    for value in observed:
        window.observe(value)
    (found,) = window.quantiles([quantile])
    share = quantile * (1 - 1e-9)
    assert found in observed
    assert sum(value <= found for value in observed) >= share * len(observed)
    assert sum(value < found for value in observed) < quantile * (1 + 1e-9) * len(observed)


def test_old_observations_leave_the_window() -> None:
    """Quantiles forget what is older than the window, slice by slice, and are NaN when nothing is left."""
    clock = Clock()
    window = SlidingQuantiles(clock=clock)
    window.observe(1)
    clock.now += 300
    window.observe(3)
    assert window.quantiles([0.5, 1]) == [1, 3]
    clock.now += 360
    assert window.quantiles([0.5, 1]) == [3, 3]
    clock.now += 600
    assert all(math.isnan(value) for value in window.quantiles([0.5, 1]))


def test_memory_is_bounded_and_slices_keep_their_weight() -> None:
    """A busy slice is sampled, and still outweighs a quiet one by how much it saw."""
    clock = Clock()
    window = SlidingQuantiles(capacity=50, clock=clock)
    for _ in range(10):
        window.observe(1000)
    clock.now += 120
    for value in range(10_000):
        window.observe(value / 10_000)
    assert sum(len(sample) for _, sample, _ in window._recent) == 60
    assert window.quantiles([0.99])[0] <= 1
    assert window.quantiles([1])[0] == 1000
