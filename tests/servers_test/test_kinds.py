"""What each kind of server is trusted with, asked through an independent client."""

import io
import socket
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable

import obstore
import pytest
import redis as redis_client
import urllib3
from minio import Minio, S3Error
from obstore.exceptions import BaseError
from obstore.store import AzureStore, S3Store

from tests.servers import Identity, Kind, Server, radosgw, redis
from tests.servers.prometheus_server import Promtool, add_target, query

PROMETHEUS_WITHIN = 30.0


def _minio(server: Server, identity: Identity) -> Minio:
    return Minio(
        server.endpoint.removeprefix("http://"),
        access_key=identity.access_key,
        secret_key=identity.secret_key,
        region=server.extra["region"],
        secure=False,
        http_client=urllib3.PoolManager(retries=False, timeout=20),
    )


def _put(client: Minio, bucket: str, body: bytes) -> None:
    client.put_object(bucket, "a/b c", io.BytesIO(body), len(body))


def _get(client: Minio, bucket: str) -> bytes:
    response = client.get_object(bucket, "a/b c")
    try:
        return response.data
    finally:
        response.close()
        response.release_conn()


@pytest.mark.parametrize("name", ["radosgw", "swift"])
def test_s3_serves_its_owner(name: str, request: pytest.FixtureRequest) -> None:
    """What minio puts, minio gets, and obstore as well."""
    server: Server = request.getfixturevalue(name)
    client = _minio(server, server.owner)
    bucket = f"owner-{uuid.uuid4().hex}"
    client.make_bucket(bucket)
    _put(client, bucket, b"content")
    store = S3Store(
        bucket,
        endpoint=server.endpoint,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        region=server.extra["region"],
        client_options={"allow_http": True},
    )
    assert _get(client, bucket) == b"content"
    assert bytes(obstore.get(store, "a/b c").bytes()) == b"content"


@pytest.mark.parametrize("name", ["radosgw", "swift"])
def test_s3_denies_the_stranger(name: str, request: pytest.FixtureRequest) -> None:
    """The second user is known and may neither read, list, write nor make a bucket."""
    server: Server = request.getfixturevalue(name)
    owner, stranger = _minio(server, server.owner), _minio(server, server.stranger)
    bucket = f"private-{uuid.uuid4().hex}"
    owner.make_bucket(bucket)
    _put(owner, bucket, b"content")
    for attempt in (
        lambda: _get(stranger, bucket),
        lambda: list(stranger.list_objects(bucket)),
        lambda: _put(stranger, bucket, b"graffiti"),
    ):
        with pytest.raises(S3Error) as denied:
            attempt()
        assert denied.value.code == "AccessDenied"
    with pytest.raises(S3Error):
        stranger.make_bucket(f"other-{uuid.uuid4().hex}")
    assert _get(owner, bucket) == b"content"


@pytest.mark.parametrize("name", ["radosgw", "swift"])
def test_s3_checks_signatures(name: str, request: pytest.FixtureRequest) -> None:
    """A wrong secret is refused."""
    server: Server = request.getfixturevalue(name)
    liar = _minio(server, Identity(access_key=server.access_key, secret_key="wrong"))
    with pytest.raises(S3Error) as refused:
        list(liar.list_objects("any"))
    assert refused.value.code == "SignatureDoesNotMatch"


def test_an_outage_of_radosgw_keeps_the_data(provided: Callable[[Kind], Kind]) -> None:
    """With the gateway stopped connections are refused; started again it has every object."""
    with provided(radosgw).start() as server:
        client = _minio(server, server.owner)
        client.make_bucket("kept")
        _put(client, "kept", b"content")
        server.stop_gateway()
        with pytest.raises(urllib3.exceptions.HTTPError):
            _get(client, "kept")
        host, port = server.endpoint.removeprefix("http://").split(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))
        server.start_gateway()
        assert _get(client, "kept") == b"content"
        _put(client, "kept", b"newer")
        client.make_bucket("after")
        assert _get(client, "kept") == b"newer"


def test_a_restart_of_redis_keeps_the_data(provided: Callable[[Kind], Kind]) -> None:
    """What was set before a restart is there after it."""
    with provided(redis).start() as server:
        with redis_client.Redis(unix_socket_path=server.extra["socket"]) as client:
            client.set("key", "value")
        server.restart()
        with redis_client.Redis(unix_socket_path=server.extra["socket"]) as client:
            assert client.get("key") == b"value"


def test_redis_answers_a_ping(redis_server: Server) -> None:
    """The URL is one that redis-py reads."""
    with redis_client.Redis.from_url(redis_server.url) as client:
        assert client.ping()


def _azure(server: Server, key: str) -> AzureStore:
    return AzureStore(
        container_name="stowstore",
        account_name=server.access_key,
        account_key=key,
        endpoint=server.endpoint,
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )


def test_azurite_serves_the_key_and_refuses_another(azurite: Server) -> None:
    """What obstore puts with the account's key it gets; a wrong key is refused."""
    from tests.servers import azurite as kind

    kind.probe(azurite.address)  # makes the container, which obstore cannot
    store = _azure(azurite, azurite.secret_key)
    obstore.put(store, "a/b c", b"content")
    assert bytes(obstore.get(store, "a/b c").bytes()) == b"content"
    with pytest.raises(BaseError, match="403"):
        obstore.get(_azure(azurite, "d3Jvbmc="), "a/b c")


def test_swift_tells_its_users_apart(swift: Server) -> None:
    """The owner logs in and puts; the stranger logs in and is forbidden; a wrong key does not log in."""

    def log_in(user: str, key: str) -> tuple[str, str]:
        request = urllib.request.Request(swift.extra["auth_url"], headers={"X-Auth-User": user, "X-Auth-Key": key})
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.headers["X-Auth-Token"], response.headers["X-Storage-Url"]

    def put(user: str, key: str) -> int:
        token, account = log_in(user, key)
        request = urllib.request.Request(f"{account}/users", headers={"X-Auth-Token": token}, method="PUT")
        with urllib.request.urlopen(request, timeout=30) as response:
            return int(response.status)

    assert put(swift.access_key, swift.secret_key) in (201, 202)
    for user, key, status in (
        (swift.stranger.access_key, swift.stranger.secret_key, 403),
        (swift.access_key, "wrong", 401),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            put(user, key)
        with refused.value:
            assert refused.value.code == status


def test_the_gcs_emulator_still_ignores_generations(gcs_emulator: Server) -> None:
    """The gap its module warns of is there: creating only what is absent overwrites. Mend the warning if not."""
    from tests.servers import gcs

    gcs.probe(gcs_emulator.address)
    url = f"{gcs_emulator.endpoint}/upload/storage/v1/b/stowstore/o?uploadType=media&name=gap"
    for body in (b"first", b"second"):
        request = urllib.request.Request(f"{url}&ifGenerationMatch=0", body, {"Content-Type": "text/plain"})
        urllib.request.urlopen(request, timeout=30).close()
    media = f"{gcs_emulator.endpoint}/storage/v1/b/stowstore/o/gap?alt=media"
    with urllib.request.urlopen(media, timeout=30) as response:
        assert response.read() == b"second"


def test_prometheus_scrapes_a_target_it_is_given(prometheus_server: Server) -> None:
    """A target added while it runs is scraped, with the labels it was given."""
    add_target(prometheus_server.address, prometheus_server.endpoint.removeprefix("http://"), {"who": "itself"})
    deadline = time.monotonic() + PROMETHEUS_WITHIN
    while not (samples := query(prometheus_server.address, 'up{job="test", who="itself"} == 1')):
        assert time.monotonic() < deadline, "Prometheus does not scrape its target"
        time.sleep(0.1)
    assert samples[0]["metric"]["who"] == "itself"


def test_promtool_tells_its_version(promtool: Promtool) -> None:
    """It runs."""
    assert "promtool, version 2." in promtool.run("--version").stdout


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("# HELP a_total Things.\n# TYPE a_total counter\na_total 1\n", True),
        ("# HELP a_total Things.\n# TYPE a_total counter\na_total one\n", False),
    ],
)
def test_promtool_judges_an_exposition(text: str, accepted: bool, promtool: Promtool) -> None:
    """It accepts what is well formed and refuses what is not."""
    assert (promtool.run("check", "metrics", text=text).returncode == 0) is accepted
