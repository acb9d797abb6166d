"""StowStore: opening, routing, reconfiguring, sending to other processes, measuring."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from datastore import DataReference, errors
from datastore.memory import MemoryLocation
from datastore.wrappers.cached import CachePolicy
from datastore.wrappers.retrying import RetryPolicy
from metrics import Scope, generate_text
from stowstore import StoreConfig, StowStore, open_store
from stowstore.config import Measuring
from stowstore.locations import registry
from stowstore.locations.base import Kind, Option
from stowstore.locations.registry import known_kinds, load_kind, register_kind, register_scheme


@pytest.fixture
def scope() -> Scope:
    return Scope("stow", registry=CollectorRegistry())


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kinds a test registers end with it: they belong to the process, which other tests share."""
    monkeypatch.setattr(registry, "_registry", registry._Registry())


def test_open_store_from_anything(tmp_path: Path, scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL, a mapping, a configuration, a YAML file and the environment all open the same store."""
    config = StoreConfig(kind="file", container="main", options={"path": str(tmp_path)})
    yaml = tmp_path / "store.yaml"
    yaml.write_text(
        f"storage: {{type: local, container: main, stow: {{config: {{path: {tmp_path}}}}}}}", encoding="utf-8"
    )
    monkeypatch.setenv("STOWSTORE_URL", f"file://{tmp_path}/main")
    with open_store(config, scope=scope) as store:
        store.write_bytes("file://main/k", b"x")

    for source in (f"file://{tmp_path}/main", yaml, str(yaml), config, None, _mapping(tmp_path)):
        with open_store(source, scope=scope) as store:
            assert b"x" == store.read_bytes("file://main/k")
            assert DataReference("file://main") == store.base_container_fqn


@pytest.mark.parametrize("source", ["/data/main", "store.ini", 5])
def test_what_is_no_store(source: object) -> None:
    """Anything else is refused with an example of what works."""
    with pytest.raises(errors.ConfigError, match="file:///data/main"):
        open_store(source)  # type: ignore[arg-type]


def test_unknown_option_names_the_nearest(tmp_path: Path) -> None:
    """A mistyped option of a kind is refused when it is dialled, by its nearest name."""
    with pytest.raises(
        errors.ConfigError, match=r"unable to configure the storage for file.*'pth'.*did you mean 'path'"
    ):
        open_store(f"file://main?pth={tmp_path}")


def test_references_of_other_schemes_are_served(tmp_path: Path, scope: Scope) -> None:
    """Another scheme is dialled when a reference first needs it, with any container, and copies work across."""
    config = StoreConfig.from_mapping(
        {
            "type": "mem",
            "container": "main",
            "schemes": {"file": {"config": {"path": str(tmp_path)}}},
        }
    )
    with open_store(config, scope=scope) as store:
        store.write_bytes("mem://main/k", b"content")
        store.copy_raw("mem://main/k", "file://disk/a/b")

        assert b"content" == store.read_bytes("file://disk/a/b")
        assert b"content" == (tmp_path / "disk" / "a" / "b").read_bytes()
        assert DataReference("mem://main") == store.base_container_fqn
        assert store.is_primary("mem://main/k")
        assert not store.is_primary("file://disk/a/b")


def test_other_scheme_without_its_configuration_says_what_is_missing(scope: Scope) -> None:
    """A lazily dialled scheme whose options are missing names them."""
    with open_store("mem://main", scope=scope) as store, pytest.raises(errors.ConfigError, match="path"):
        store.head("file://c/k")


def test_refresh_config_moves_to_a_new_backend(tmp_path: Path) -> None:
    """A store can be moved while in use: the new backend first, the metrics go on."""
    collected = CollectorRegistry()
    scope = Scope("stow", registry=collected)
    with open_store("mem://main", scope=scope) as store:
        store.write_bytes("mem://main/k", b"old")
        store.refresh_config(f"file://{tmp_path}/main")
        store.write_bytes("file://main/k", b"new")

        assert DataReference("file://main") == store.base_container_fqn
        assert b"new" == (tmp_path / "main" / "k").read_bytes()
        text = generate_text(collected)
    assert 'stow_operations_total{backend="memory",location="main",operation="write",outcome="ok"} 1.0' in text
    assert 'stow_operations_total{backend="local",location="main",operation="write",outcome="ok"} 1.0' in text


def test_failed_refresh_leaves_the_store_as_it_was(scope: Scope) -> None:
    """A configuration that cannot be dialled changes nothing."""
    with open_store("mem://main", scope=scope) as store:
        store.write_bytes("mem://main/k", b"x")
        with pytest.raises(errors.ConfigError):
            store.refresh_config("file://main")

        assert b"x" == store.read_bytes("mem://main/k")


def test_store_travels_to_spawned_workers(tmp_path: Path) -> None:
    """A pickled store dials anew where it arrives."""
    with open_store(f"file://{tmp_path}/main") as store:
        store.write_bytes("file://main/k", b"content")
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            assert [b"content"] * 4 == pool.starmap(_read, [(store, "file://main/k")] * 4)


def test_store_in_memory_does_not_travel() -> None:
    """A store whose objects live in this process refuses to be sent to another, instead of arriving empty."""
    with open_store("mem://main") as store, pytest.raises(errors.NotSupported, match="cannot be sent"):
        pickle.dumps(store)


def test_secrets_travel_but_do_not_show(tmp_path: Path) -> None:
    """A pickled configuration still works; its repr shows no secret."""
    config = StoreConfig(kind="s3", container="c", options={"secret_key": "hush"})

    assert config == pickle.loads(pickle.dumps(config))
    assert "hush" not in repr(pickle.loads(pickle.dumps(config)))


def test_operations_are_logged_when_somebody_listens(
    scope: Scope, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Debug logging shows every operation with its context; without it nothing is printed."""
    with open_store("mem://main", scope=scope) as store:
        store.write_bytes("mem://main/quiet", b"x")
    assert ("", "") == capfd.readouterr()
    assert not caplog.records

    caplog.set_level(logging.DEBUG, logger="stowstore")
    with open_store("mem://main", scope=scope) as store:
        store.write_bytes("mem://main/loud", b"x")
    assert "storage.operation" in caplog.text
    assert "mem://main/loud" in caplog.text


def test_importing_is_light() -> None:
    """Heavy client libraries are imported when a location is dialled, not with the package."""
    heavy = ("obstore", "minio", "libcloud", "redis", "yaml")
    probe = f"import sys, stowstore; print(*[name for name in {heavy} if name in sys.modules])"

    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert "" == found.stdout.strip()


def test_kinds_are_found_by_name_alias_and_scheme() -> None:
    """Built-in kinds answer to upstream's names too."""
    assert load_kind("file") is load_kind("local")
    assert load_kind("mem") is load_kind("memory")
    assert {"s3", "gs", "abfs", "sw", "redis", "file", "mem", "libcloud"} <= set(known_kinds())
    with pytest.raises(errors.ConfigError, match=r"unsupported stow.kind \[s3x\].*did you mean 's3'"):
        load_kind("s3x")


@pytest.mark.usefixtures("own_registry")
def test_registering_kinds_and_schemes(scope: Scope) -> None:
    """A kind can be added to a running process; names and schemes that are taken are refused."""
    kind = Kind(
        name="tests-shelf",
        schemes=("shelf",),
        dial=load_kind("mem").dial,
        options={"colour": Option(help="of the shelf", default="red", choices=("red", "blue"))},
    )
    register_kind(kind)

    with pytest.raises(errors.ConfigError, match=r"kind \[tests-shelf\] already registered"):
        register_kind(kind)
    with pytest.raises(errors.ConfigError, match=r"scheme \[shelf\] already registered"):
        register_scheme("SHELF", "mem")
    register_scheme("Shelf", "tests-shelf")
    with pytest.raises(errors.ConfigError, match="invalid colour 'green'"):
        open_store("shelf://c?colour=green")
    assert isinstance(open_store("shelf://c", scope=scope), StowStore)


def _mapping(directory: Path) -> dict[str, object]:
    return {"type": "local", "container": "main", "stow": {"config": {"path": str(directory)}}}


def _read(store: StowStore, reference: str) -> bytes:
    return store.read_bytes(reference)


def test_messages_are_read_and_written(scope: Scope) -> None:
    """Protobuf messages are kept as objects, with upstream's limit of 2 MiB unless configured otherwise."""
    from google.protobuf.wrappers_pb2 import StringValue

    with open_store("mem://main", scope=scope) as store:
        store.write_protobuf("mem://main/m", StringValue(value="hello"))
        store.write_protobuf("mem://main/large", StringValue(value="x" * (2 << 20)))

        assert "hello" == store.read_protobuf("mem://main/m", StringValue(value="gone")).value
        with pytest.raises(errors.LimitExceeded):
            store.read_protobuf("mem://main/large", StringValue())
        assert 2 << 20 == len(store.read_protobuf("mem://main/large", StringValue(), max_bytes=0).value)


def test_flytestdlibs_names_on_request() -> None:
    """With a legacy scope the store, its cache and its messages are also counted under upstream's exact names."""
    from google.protobuf.wrappers_pb2 import StringValue

    collected = CollectorRegistry()
    config = StoreConfig.from_mapping(
        {"type": "mem", "container": "c", "cache": {"max_size_mbs": 1}, "metrics": {"legacyScope": "flyte:storage"}}
    )
    with open_store(config, scope=Scope("stow", registry=collected)) as store:
        store.write_protobuf("mem://c/k", StringValue(value="x"))
        store.read_protobuf("mem://c/k", StringValue())
        store.copy_raw("mem://c/k", "mem://c/copy")
        store.read_bytes("mem://c/copy")
        with pytest.raises(errors.NotFound):
            store.read_raw("mem://c/missing")

    lines = generate_text(collected).splitlines()
    for expected in (
        "flyte:storage:cache_hit 1.0",
        "flyte:storage:cache_miss 1.0",
        "flyte:storage:marshal_ms_count 1.0",
        "flyte:storage:proto_fetch_ms_count 1.0",
        "flyte:storage:read_failure_unlabeled 1.0",
    ):
        assert expected in lines


@pytest.mark.parametrize(
    ("name", "overrides", "variables", "measured"),
    [
        ("scraped", {"measuring": Measuring.ALWAYS}, {}, True),
        ("unheard", {}, {}, False),
        ("unheard-cached", {"cache": CachePolicy(max_bytes=1 << 20)}, {}, False),
        ("legacy", {"legacy_scope": "unscraped:storage"}, {}, True),
        ("files", {}, {"PROMETHEUS_MULTIPROC_DIR": "/nowhere"}, True),
    ],
)
def test_a_store_that_nobody_hears_of_is_not_measured(
    name: str,
    overrides: dict[str, Any],
    variables: dict[str, str],
    measured: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that nobody scrapes counts only where its numbers go elsewhere; stores do the same either way."""
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    config = StoreConfig(kind="mem", container="c", name=name, **{"measuring": Measuring.IF_HEARD, **overrides})
    with open_store(config) as store:
        store.create_container("c")
        store.write_bytes("mem://c/k", b"x")
        assert [b"x", b"x"] == [store.read_bytes("mem://c/k") for _ in range(2)]
        with pytest.raises(errors.NotFound):
            store.read_bytes("mem://c/missing")

    assert measured == (f'location="{name}"' in generate_text())


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize("is_measured", [True, False])
def test_opening_is_tried_again(scope: Scope, is_measured: bool) -> None:
    """A backend that is briefly unreachable when a store is opened, or a container is made, costs a retry."""
    dialled = []

    def dial(_: object) -> MemoryLocation:
        dialled.append(_FlakyLocation())
        return dialled[0]

    register_kind(Kind(name="tests-flaky", schemes=("flaky",), dial=dial))
    retry = RetryPolicy(base_delay=0)
    config = StoreConfig.from_url("flaky://c", retry=retry, enable_multicontainer=True, measuring=Measuring.IF_HEARD)
    with open_store(config, scope=scope if is_measured else None) as store:
        store.create_container("d")

    assert {"c", "d"} == set(dialled[0].list_containers())
    assert 4 == dialled[0].failures


class _FlakyLocation(MemoryLocation):
    """Memory that answers about containers only every third time."""

    scheme = "flaky"
    failures = 0
    _calls = 0

    def create_container(self, name: str) -> None:
        self._calls += 1
        if self._calls % 3:
            self.failures += 1
            raise errors.TransientError("not now")
        super().create_container(name)
