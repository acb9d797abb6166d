"""What only Google Cloud Storage has: its options and tokens, generations, resumable uploads, owners of names."""

import json
from collections.abc import Iterator

import pytest

from datastore.driver import Container
from datastore.errors import (
    AlreadyExists,
    ConfigError,
    ContainerTaken,
    InvalidReference,
    NotFound,
    NotSupported,
    PreconditionFailed,
    SizeMismatch,
    Throttled,
    TransientError,
)
from datastore.model import Feature, SignedURLProperties, WriteOptions
from datastore.source import Source
from stowstore.locations.base import Dial
from stowstore.locations.gcs import KIND
from stowstore.locations.gcs.config import HmacKey, ServiceAccount, configure
from stowstore.locations.gcs.location import GcsLocation
from tests.locations.gcs_service import FakeService, running

_PLAIN = WriteOptions()
_MIB = 1 << 20


def _dial(**given: str) -> Dial:
    return Dial(options=KIND.check(given))


@pytest.fixture(scope="module")
def service() -> Iterator[FakeService]:
    with running() as found:
        yield found


@pytest.fixture
def location(service: FakeService) -> Iterator[GcsLocation]:
    found = GcsLocation.dial(_dial(json=json.dumps(service.account), endpoint=service.endpoint))
    service.seen.clear()
    yield found
    found.close()


@pytest.fixture
def container(service: FakeService, location: GcsLocation) -> Container:
    service.buckets["bucket"] = {}
    return location.container("bucket")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"json": "{"}, "not JSON"),
        ({"json": '{"type": "authorized_user"}'}, "client_email"),
        ({"json": '{"client_email": "a@b", "private_key": "SECRET"}'}, "private key"),
        ({"service_account_path": "/nowhere/key.json"}, "/nowhere/key.json"),
        ({"hmac_access_id": "GOOG"}, "hmac_secret"),
        ({"endpoint": "storage.googleapis.com"}, "endpoint"),
        ({"projct_id": "p"}, "'project_id'"),
    ],
)
def test_bad_options(given: dict[str, str], said: str) -> None:
    """What cannot be dialled is refused by name, and no secret is repeated, not even in the cause."""
    with pytest.raises(ConfigError) as refused:
        configure(_dial(**given))
    assert said in str(refused.value)
    assert "SECRET" not in f"{refused.value} {refused.value.__cause__}"


def test_upstreams_names(service: FakeService, tmp_path: pytest.TempPathFactory) -> None:
    """Upstream's `json`, `project_id` and `scopes` are understood; the project is the key's unless told."""
    text = json.dumps(service.account)
    config = configure(_dial(json=text, scopes="a, b"))
    assert isinstance(config.signer, ServiceAccount)
    assert "project" == config.project
    assert "other" == configure(_dial(json=text, project_id="other")).project
    assert "BEGIN" not in f"{config!r} {_dial(json=text)!r}"


def test_who_can_sign(service: FakeService) -> None:
    """A service account's key or an HMAC key signs; a store without says so in its capabilities and its error."""
    assert isinstance(configure(_dial(anonymous="true", hmac_access_id="a", hmac_secret="b")).signer, HmacKey)
    guest = GcsLocation.dial(_dial(anonymous="true", endpoint=service.endpoint))
    assert Feature.SIGN_READ not in guest.capabilities
    with pytest.raises(NotSupported, match="key"):
        guest.container("bucket").sign("k", SignedURLProperties())


def test_one_token_for_all_requests(service: FakeService, location: GcsLocation, container: Container) -> None:
    """Tokens are fetched with a signed assertion, once, and sent with data and with the service's own requests."""
    container.put("k", Source(b"1"), _PLAIN)
    container.list("", "", 1, "")
    location.has_container("bucket")
    assert 1 == sum(path == "/token" for _, path, _, _ in service.seen)
    assert 1 == len({headers["authorization"] for _, path, _, headers in service.seen if path != "/token"})


@pytest.mark.parametrize("name", ["ab", "Upper", "-a-", "a/b", "a" * 223])
def test_container_names(location: GcsLocation, name: str) -> None:
    """Names no bucket can have are refused without a request."""
    with pytest.raises(InvalidReference):
        location.container(name)


def test_names_of_others(service: FakeService, location: GcsLocation) -> None:
    """A bucket of our own that exists is success; a name somebody else has is not."""
    location.create_container("ours")
    location.create_container("ours")
    service.foreign.add("theirs")
    with pytest.raises(ContainerTaken):
        location.create_container("theirs")


def test_etags_are_generations(container: Container) -> None:
    """Writing, looking, reading and listing tell the same etag, and equal content written again has another."""
    first = container.put("k", Source(b"1"), _PLAIN)
    assert first.isdecimal()
    assert first == container.head("k").etag == container.list("k", "", 1, "").entries[0].etag
    with container.open("k", 0, None, first) as stream:
        assert first == stream.metadata.etag
    second = container.put("k", Source(b"1"), WriteOptions(if_match=first))
    assert second != first
    for stale in (first, "no-generation", "0"):
        with pytest.raises(PreconditionFailed):
            container.open("k", 0, None, stale)
        with pytest.raises(PreconditionFailed):
            container.put("k", Source(b"2"), WriteOptions(if_match=stale))


def test_conditions_hold_for_large_objects(container: Container) -> None:
    """Resumable uploads carry the conditions; their bodies may end anywhere."""
    for size in (8 * _MIB + 1, 16 * _MIB, 20 * _MIB):
        pieces = [bytes([number]) * _MIB for number in range(size >> 20)] + [b"x" * (size % _MIB)]
        etag = container.put("k", Source(iter(pieces)), WriteOptions(if_absent=True, metadata={"a-b": "1"}))
        known = container.head("k")
        assert (size, etag, "1") == (known.size, known.etag, known.user_metadata["a-b"])
        with container.open("k", 0, None, etag) as stream:
            assert b"".join(pieces) == stream.read()
        with pytest.raises(AlreadyExists):
            container.put("k", Source(iter(pieces)), WriteOptions(if_absent=True))
        with pytest.raises(PreconditionFailed):
            container.put("k", Source(iter(pieces)), WriteOptions(if_match="7"))
        container.delete("k")


def test_a_piece_is_sent_again(service: FakeService, container: Container) -> None:
    """A piece the service had no time for is sent again; an upload whose source fails is called off."""
    service.faults.append(("PUT", "/upload/", 503, {"Retry-After": "0"}))
    container.put("k", Source(iter([b"x" * _MIB] * 17)), WriteOptions(if_absent=True))
    assert 17 * _MIB == container.head("k").size
    with pytest.raises(SizeMismatch):
        container.put("other", Source(iter([b"x" * _MIB] * 17), 18 * _MIB), WriteOptions(if_absent=True))
    assert not service.uploads
    with pytest.raises(NotFound):
        container.head("other")


def test_faults_are_told_apart(service: FakeService, container: Container) -> None:
    """Single requests are not repeated here: errors say whether that helps, and how long the server asks to wait."""
    container.put("k", Source(b"1"), _PLAIN)
    service.faults.append(("GET", "/bucket/", 503, {}))
    with pytest.raises(Throttled) as throttled:
        container.open("k", 0, None, None)
    assert throttled.value.retryable
    service.faults.append(("GET", "/storage/v1/b/bucket/o", 429, {"Retry-After": "7"}))
    with pytest.raises(Throttled) as patience:
        container.list("", "", 1, "")
    assert 7.0 == patience.value.retry_after
    service.faults.append(("PUT", "/bucket/", 500, {}))
    with pytest.raises(TransientError):
        container.put("k", Source(b"2"), _PLAIN)
    with container.open("k", 0, None, None) as stream:
        assert b"1" == stream.read()


def test_a_copy_may_take_steps(container: Container) -> None:
    """A copy the service makes in steps is followed to its end, and carries everything or what it is told."""
    container.put("k", Source(b"x" * 1000), WriteOptions(metadata={"a": "1"}, content_type="text/x"))
    etag = container.copy("copy", container, "k", None)
    known = container.head("copy")
    assert (etag, {"a": "1"}, "text/x") == (known.etag, dict(known.user_metadata), known.content_type)
    container.copy("told", container, "k", WriteOptions(metadata={"b": "2"}))
    assert {"b": "2"} == dict(container.head("told").user_metadata)
    with pytest.raises(AlreadyExists):
        container.copy("copy", container, "k", WriteOptions(if_absent=True))
