"""How a store's configuration is read, from wherever it comes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from datastore.errors import ConfigError
from stowstore import ContainerPolicy, StoreConfig
from stowstore.durations import parse_duration

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "references.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", VECTORS["durations"], ids=lambda row: repr(row["input"]))
def test_duration(row: dict[str, Any]) -> None:
    """A duration is what Go's time.ParseDuration makes of it; a bare number is nanoseconds."""
    if "error" in row:
        with pytest.raises(ConfigError, match="bad_duration"):
            parse_duration(row["input"])
    else:
        assert row["expect_ns"] == parse_duration(row["input"])


def test_upstream_section_is_read_as_it_is() -> None:
    """A Flyte storage section, outer key included, becomes a configuration."""
    config = StoreConfig.from_mapping(
        {
            "storage": {
                "type": "stow",
                "container": "main",
                "enable-multicontainer": True,
                "stow": {"kind": "s3", "config": {"endpoint": "http://h:9000", "disable_ssl": True}},
                "signedUrl": {"stowConfigOverride": {"endpoint": "https://public"}},
                "limits": {"maxDownloadMBs": 1},
                "cache": {"max_size_mbs": 16, "target_gc_percent": 70},
                "defaultHttpClient": {"headers": {"X": ["a", "b"]}, "timeout": "1m30s", "maxIdleConns": 512},
                "schemes": {"gs": {"config": {"project_id": "p"}}},
            }
        }
    )

    assert ("s3", "main", True) == (config.kind, config.container, config.enable_multicontainer)
    assert {"endpoint": "http://h:9000", "disable_ssl": "true"} == dict(config.options)
    assert {"endpoint": "https://public"} == dict(config.signed_url_options)
    assert 1 << 20 == config.max_download_bytes == config.max_protobuf_bytes
    assert config.cache is not None
    assert 16 << 20 == config.cache.max_bytes
    assert ({"X": ("a", "b")}, 90.0, 512) == (
        config.http.headers,
        config.http.timeout,
        config.http.max_idle_connections,
    )
    assert {"project_id": "p"} == dict(config.schemes["gs"].options)


def test_unknown_options_of_a_kind_stay_verbatim_in_the_configuration() -> None:
    """Options belong to the kind, which judges them when it is dialled; the configuration keeps their spelling."""
    config = StoreConfig.from_mapping({"type": "s3", "container": "c", "stow": {"config": {"AccessKey": "x"}}})

    assert {"AccessKey": "x"} == dict(config.options)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"type": "invalid", "container": "c"}, r"type is of an invalid value \[invalid\]"),
        ({"type": "s33", "container": "c"}, "did you mean 's3'"),
        (
            {"type": "stow", "container": "c", "stow": {"kind": "s3x"}},
            r"unsupported stow.kind \[s3x\].*did you mean 's3'",
        ),
        ({"type": "mem", "container": "c", "conatiner": "d"}, "'conatiner'.*did you mean 'container'"),
        ({"type": "mem", "container": "c", "cache": {"max_size_mb": 1}}, "'cache.max_size_mb'.*max_size_mbs"),
        (
            {"type": "mem", "container": "c", "limits": {"maxDownloadMBs": "two"}},
            "limits.maxDownloadMBs is a whole number",
        ),
        (
            {"type": "mem", "container": "c", "limits": {"maxDownloadMBs": True}},
            "limits.maxDownloadMBs is a whole number",
        ),
        ({"type": "mem", "container": "c", "limits": {"maxDownloadMBs": -1}}, "limits.maxDownloadMBs is -1"),
        ({"type": "mem", "container": "c", "enable-multicontainer": "maybe"}, "enable-multicontainer is true or false"),
        ({"type": "mem", "container": "c", "defaultHttpClient": {"timeout": "5"}}, "bad_duration"),
        ({"type": "mem", "container": "c", "create-container": "sometimes"}, "create-container is of an invalid value"),
        ({"type": "mem", "container": "c", "stow": ["kind"]}, "stow is a mapping, not list"),
        ({"type": "mem"}, "initContainer is required"),
        ({"type": "redis", "container": "c"}, "requires redis.addr"),
    ],
)
def test_what_upstream_ignores_is_refused(section: dict[str, Any], says: str) -> None:
    """Unknown keys, wrong types and missing values are errors that name the key and the nearest valid one."""
    with pytest.raises(ConfigError, match=says):
        StoreConfig.from_mapping(section)


@pytest.mark.parametrize(
    ("url", "kind", "container", "options"),
    [
        ("file:///data/main", "file", "main", {"path": "/data"}),
        ("file:///main", "file", "main", {"path": "/"}),
        ("file:///data/a%20b", "file", "a b", {"path": "/data"}),
        ("file://main?path=/data", "file", "main", {"path": "/data"}),
        (
            "s3://bucket?region=eu-west-1&endpoint=http://h:9000",
            "s3",
            "bucket",
            {"region": "eu-west-1", "endpoint": "http://h:9000"},
        ),
        ("minio://bucket", "s3", "bucket", {}),
        ("gs://bucket", "gs", "bucket", {}),
        ("abfs://c@acct.dfs.core.windows.net", "abfs", "c", {}),
        ("wasb://c@acct.blob.core.windows.net", "abfs", "c", {}),
        ("sw://c", "sw", "c", {}),
        ("mem://", "mem", "main", {}),
        ("libcloud+b2://bucket?key=k", "libcloud+b2", "bucket", {"key": "k"}),
    ],
)
def test_url(url: str, kind: str, container: str, options: dict[str, str]) -> None:
    """A URL names the kind by its scheme, the container, and the options in its query."""
    config = StoreConfig.from_url(url)

    assert (kind, container, options) == (config.kind, config.container, dict(config.options))


def test_store_settings_in_a_url() -> None:
    """Some names in the query are settings of the store, not options of the kind."""
    config = StoreConfig.from_url(
        "mem://c?multicontainer=true&create_container=never&max_download_mbs=3&cache_mbs=8&name=scratch"
    )

    assert config.enable_multicontainer
    assert ContainerPolicy.NEVER is config.create_container
    assert (3 << 20, "scratch") == (config.max_download_bytes, config.name)
    assert config.cache is not None
    assert 8 << 20 == config.cache.max_bytes


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("s3:bucket", "is no store URL"),
        ("s33://bucket", "did you mean 's3'"),
        ("s3://bucket/below", "below a container"),
        ("file:///", "names no directory"),
        ("mem://c?cache_mbs=lots", "cache_mbs='lots'"),
        ("gs://user:secret-word@bucket", "takes no user and password"),
    ],
)
def test_wrong_url(url: str, says: str) -> None:
    """A URL that cannot be a store says why, without repeating credentials."""
    with pytest.raises(ConfigError, match=says) as caught:
        StoreConfig.from_url(url)

    assert "secret-word" not in str(caught.value)


def test_environment() -> None:
    """One variable a key, or a URL that says everything; unknown variables are refused."""
    config = StoreConfig.from_env(
        {
            "STOWSTORE_TYPE": "s3",
            "STOWSTORE_CONTAINER": "c",
            "STOWSTORE_STOW_CONFIG_ENDPOINT": "http://h",
            "STOWSTORE_LIMITS_MAXDOWNLOADMBS": "4",
            "STOWSTORE_ENABLE_MULTICONTAINER": "true",
            "STOWSTORE_SERVERS": "/somewhere",
            "PATH": "/bin",
        }
    )

    assert ("s3", "c", {"endpoint": "http://h"}) == (config.kind, config.container, dict(config.options))
    assert (4 << 20, True) == (config.max_download_bytes, config.enable_multicontainer)
    assert "mem" == StoreConfig.from_env({"STOWSTORE_URL": "mem://c", "STOWSTORE_TYPE": "s3"}).kind
    with pytest.raises(ConfigError, match=r"STOWSTORE_CONTAINR.*CONTAINER"):
        StoreConfig.from_env({"STOWSTORE_CONTAINR": "c"})
    with pytest.raises(ConfigError, match="no store is configured"):
        StoreConfig.from_env({})


def test_yaml_round_trip(tmp_path: Path) -> None:
    """A YAML file says what the same mapping says; a broken or missing file is a clear error."""
    section = {"storage": {"type": "local", "container": "c", "stow": {"config": {"path": "/data"}}}}
    path = tmp_path / "store.yaml"
    path.write_text(json.dumps(section), encoding="utf-8")

    assert StoreConfig.from_mapping(section) == StoreConfig.from_yaml(path)
    path.write_text("storage: [", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not YAML"):
        StoreConfig.from_yaml(path)
    path.write_text("just text", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no mapping"):
        StoreConfig.from_yaml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        StoreConfig.from_yaml(tmp_path / "missing.yaml")


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    """Tags that would make YAML run code are refused."""
    path = tmp_path / "store.yaml"
    path.write_text("!!python/object/apply:os.system ['true']", encoding="utf-8")

    with pytest.raises(ConfigError, match="is not YAML"):
        StoreConfig.from_yaml(path)


def test_no_secret_in_a_repr() -> None:
    """What looks like a secret is masked wherever options are shown."""
    config = StoreConfig.from_url("s3://c?secret_key=hush&access_key_id=user&token=hush")
    config = StoreConfig(
        kind="s3",
        container="c",
        options=config.options,
        signed_url_options={"secret_key": "hush"},
        http=config.http,
    )

    assert "hush" not in repr(config)
    assert "user" in repr(config)


def test_cache_size_is_validated() -> None:
    """A negative cache is no cache but a mistake."""
    with pytest.raises(ConfigError, match=r"cache\.max_size_mbs"):
        StoreConfig.from_mapping({"type": "mem", "container": "c", "cache": {"max_size_mbs": -1}})
