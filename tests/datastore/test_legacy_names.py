"""A measured store under flytestdlib's names."""

import pytest
from prometheus_client import CollectorRegistry

from datastore import CancelToken, MemoryStore, Metadata, cancellable, errors
from datastore.legacy_names import LEGACY_FAMILIES, LegacyNames
from datastore.protocol import Reference
from datastore.wrappers.measured import MeasuredStore, StoreMetrics
from metrics import Naming, Scope
from metrics.legacy import LegacyMetrics

REF = "mem://c/key"


class Forbidding(MemoryStore):
    def head(self, reference: Reference) -> Metadata:
        raise errors.ContainerNotAllowed("only the base container")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def measured(inner: MemoryStore, registry: CollectorRegistry) -> MeasuredStore:
    scope = Scope("flyte", registry, Naming.FLYTE).sub("storage")
    legacy = LegacyNames(LegacyMetrics.register(scope, LEGACY_FAMILIES))
    return MeasuredStore(inner, StoreMetrics(Scope("stow", registry), "memory", "main"), observer=legacy)


def nonzero(registry: CollectorRegistry) -> dict[str, float]:
    """The counts of the legacy families without labels that are not 0, by the rest of their names."""
    prefix = "flyte:storage:"
    return {
        sample.name.removeprefix(prefix): sample.value
        for family in registry.collect()
        for sample in family.samples
        if family.name.startswith(prefix)
        and not sample.name.endswith(("_sum", "_bucket"))
        and "quantile" not in sample.labels
        and not sample.labels
        and sample.value
    }


def test_successes_are_timed_twice_over(registry: CollectorRegistry) -> None:
    """Each success is in the summary in milliseconds and in the histogram in seconds, twins included."""
    store = measured(MemoryStore(), registry)
    store.write_bytes(REF, b"abc")
    store.read_bytes(REF)
    store.head(REF)
    store.list("mem://c/")
    store.copy_raw(REF, "mem://c/copy")
    store.delete(REF)
    timed = ("write", "read_open", "head", "list", "delete")
    found = nonzero(registry)
    for name in timed:
        assert found[f"{name}_unlabeled_count"] == found[f"{name}_unlabeled_ms_count"] == 1
    assert found["copy:overall_unlabeled_ms_count"] == 1
    seconds = registry.get_sample_value("flyte:storage:write_unlabeled_sum")
    milliseconds = registry.get_sample_value("flyte:storage:write_unlabeled_ms_sum")
    assert seconds is not None
    assert milliseconds == pytest.approx(seconds * 1000)
    assert not [name for name in found if "failure" in name]


def test_failures_have_their_counters(registry: CollectorRegistry) -> None:
    """Failures are counted by operation and code, those with context labels twice; what is cancelled is not."""
    store = measured(MemoryStore(), registry)
    store.write_bytes(REF, b"abc")
    with pytest.raises(errors.NotFound):
        store.read_raw("mem://c/no")
    with pytest.raises(errors.SizeMismatch):
        store.write_raw(REF, 9, None, b"x")
    with pytest.raises(ValueError, match="max_items"):
        store.list("mem://c/", -1)
    with pytest.raises(errors.NotFound):
        store.copy_raw("mem://c/no", "mem://c/copy")
    with pytest.raises(errors.InvalidReference):
        store.head("mem://c/%zz")
    with store.read_raw(REF):
        pass
    token = CancelToken()
    token.cancel()
    with cancellable(token), pytest.raises(errors.Cancelled):
        store.delete(REF)
    with pytest.raises(errors.ContainerNotAllowed):
        measured(Forbidding(), registry).head(REF)
    found = nonzero(registry)
    assert {name: value for name, value in found.items() if not name.endswith("_count")} == {
        "read_failure_unlabeled": 1,
        "write_failure_unlabeled": 1,
        **dict.fromkeys(("list_failure", "list_failure_unlabeled"), 1),
        **dict.fromkeys(("bad_key", "bad_key_unlabeled"), 1),
        **dict.fromkeys(("bad_container", "bad_container_unlabeled"), 1),
        "copy:read_failure_unrelated_to_cache": 1,
    }
    (labelled,) = [family for family in registry.collect() if family.name == "flyte:storage:read_failure"]
    assert [sample.labels["failure_type"] for sample in labelled.samples] == ["NOT_FOUND"]
