"""Scopes: names, idempotent declarations, clashes."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge

from metrics import MetricClash, Naming, Scope, generate_text
from metrics.names import check_metric_name


def test_prefixes_join_with_underscores(registry: CollectorRegistry) -> None:
    """A scope's prefix ends in one underscore and a sub-scope's continues it."""
    scope = Scope("stow", registry)
    assert scope.prefix == "stow_"
    assert scope.sub("cache").prefix == "stow_cache_"
    assert Scope("stow_", registry).prefix == "stow_"
    assert (registry, Naming.PROMETHEUS) == (scope.sub("cache").registry, scope.sub("cache").naming)


def test_flyte_scopes_follow_the_vectors(vectors: dict[str, Any], registry: CollectorRegistry) -> None:
    """Under Naming.FLYTE names are cleaned and joined as flytestdlib does."""
    assert len(vectors["metric_scope"]) >= 8
    for row in vectors["metric_scope"]:
        if "error" in row:
            with pytest.raises(ValueError, match="empty"):
                Scope(row["new_scope"], registry, Naming.FLYTE)
            continue
        scope = Scope(row["new_scope"], registry, Naming.FLYTE)
        sub = row.get("sub", [])
        for part in [sub] if isinstance(sub, str) else sub:
            scope = scope.sub(part)
        assert row["expect"] == scope.prefix, row


@given(st.text(), st.text())
def test_flyte_names_are_valid_or_refused(first: str, second: str) -> None:
    """Whatever text is given, a Flyte scope's prefix is a valid name with one separator at its end, or an error."""
    try:
        prefix = Scope(first, CollectorRegistry(), Naming.FLYTE).sub(second).prefix
    except ValueError:
        return
    assert prefix.endswith(":")
    assert not prefix.endswith("::")
    assert prefix == check_metric_name(prefix, colons=True)


@pytest.mark.parametrize("name", ["", "_", "1st", "a-b", "a.b", "utf.8 name", "a:b", "é"])
def test_prometheus_scopes_refuse_bad_names(name: str, registry: CollectorRegistry) -> None:
    """Under Naming.PROMETHEUS a name that is not classic is an error, for scopes and for metrics."""
    with pytest.raises(ValueError, match="name"):
        Scope(name, registry)
    if name not in ("_", "1st"):  # fine after a prefix
        with pytest.raises(ValueError, match="name"):
            Scope("stow", registry).counter(name, "help")


@pytest.mark.parametrize("label_names", [("",), ("a-b",), ("1a",), ("__a",), ("a", "a"), ("le",), "text"], ids=repr)
def test_bad_label_names_are_refused(label_names: Any, registry: CollectorRegistry) -> None:
    """Label names must be classic, unreserved and different."""
    with pytest.raises(ValueError, match="label"):
        Scope("stow", registry).histogram("x", "help", label_names)


@pytest.mark.parametrize("buckets", [(), (1, 1), (2, 1), (float("nan"), 1)], ids=repr)
def test_bad_buckets_are_refused(buckets: tuple[float, ...], registry: CollectorRegistry) -> None:
    """Bucket bounds must go up."""
    with pytest.raises(ValueError, match="buckets of x"):
        Scope("stow", registry).histogram("x", "help", buckets=buckets)


def test_counters_get_one_total(registry: CollectorRegistry) -> None:
    """A counter is exposed with `_total` whether its name has it or not, and both spellings are one counter."""
    scope = Scope("stow", registry)
    reads = scope.counter("reads", "Objects read")
    assert reads is scope.counter("reads_total", "Objects read")
    reads.inc(3)
    assert "\nstow_reads_total 3.0\n" in generate_text(registry)


def test_declaring_again_gives_the_same_object(registry: CollectorRegistry) -> None:
    """The second store in one scope gets the first one's metrics."""
    first, second = Scope("stow", registry), Scope("stow", registry)
    assert first == second
    assert first.counter("a", "help", ("x",)) is second.counter("a", "help", ("x",))
    assert first.gauge("b", "help") is second.gauge("b", "help")
    assert first.histogram("c", "help", buckets=(1, 2)) is second.histogram("c", "help", buckets=(1.0, 2.0))


def test_registries_are_apart(registry: CollectorRegistry) -> None:
    """The same name in another registry is another metric."""
    Scope("stow", registry).counter("a", "help").inc()
    Scope("stow", CollectorRegistry()).counter("a", "help").inc()
    assert registry.get_sample_value("stow_a_total") == 1


def test_clashes_say_what_differs(registry: CollectorRegistry) -> None:
    """The same name with another type, labels, buckets or mode is an error that names both sides."""
    scope = Scope("stow", registry)
    scope.counter("a", "help", ("x",))
    scope.gauge("g", "help", (), "livesum")
    scope.histogram("h", "help", buckets=(1, 2))
    with pytest.raises(MetricClash, match=r"stow_a .*type gauge where it was counter"):
        scope.gauge("a", "help", ("x",))
    with pytest.raises(MetricClash, match=r"labels \('y',\) where they were \('x',\)"):
        scope.counter("a", "help", ("y",))
    with pytest.raises(MetricClash, match=r"multiprocess_mode 'max' where it was 'livesum'"):
        scope.gauge("g", "help", (), "max")
    with pytest.raises(MetricClash, match=r"buckets \(1.0, 3.0\) where it was \(1.0, 2.0\)"):
        scope.histogram("h", "help", buckets=(1, 3))
    with pytest.raises(MetricClash, match="stow_a_total"):
        scope.gauge("a_total", "help")


def test_foreign_metrics_clash_clearly(registry: CollectorRegistry) -> None:
    """A name that somebody registered without a scope is a clash, not a foreign exception."""
    Gauge("stow_x", "foreign", registry=registry)
    with pytest.raises(MetricClash, match="registered elsewhere"):
        Scope("stow", registry).gauge("x", "help")


def test_many_threads_get_one_object(registry: CollectorRegistry) -> None:
    """Declaring is safe from many threads at once."""
    barrier = Barrier(8)

    def declare(_: int) -> object:
        barrier.wait()
        return Scope("stow", registry).counter("a", "help")

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(declare, range(8)))) == 1


def test_the_default_registry_is_the_clients() -> None:
    """Without a registry a scope registers where the client library does by default."""
    scope = Scope("metrics_test_default")
    assert prometheus_client.REGISTRY is scope.registry


def test_importing_registers_nothing() -> None:
    """Importing the package leaves the default registry as the client library made it."""
    code = (
        "import prometheus_client as p; before = set(p.REGISTRY._names_to_collectors)\n"
        "import metrics, metrics.legacy, metrics.dashboards.grafana, metrics.dashboards.rules\n"
        "assert before == set(p.REGISTRY._names_to_collectors)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
