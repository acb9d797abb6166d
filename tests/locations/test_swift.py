"""What is Swift's own: logging in, tokens that expire, creation that is no lock, large and broken uploads."""

import json
import multiprocessing
import os
import socket
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from attrs import evolve

from datastore import deadline
from datastore.errors import AlreadyExists, ConfigError, DeadlineExceeded, LimitExceeded, NotFound, PermissionDenied
from datastore.model import Feature, WriteOptions
from datastore.source import Source
from stowstore.locations._swift_session import credentials_from
from stowstore.locations.base import Dial, HttpSettings
from stowstore.locations.swift import KIND, SwiftContainer, SwiftLocation
from tests.servers import Server

_PLAIN = WriteOptions()


def _dial(http: HttpSettings | None = None, **options: str) -> SwiftLocation:
    location = KIND.dial(Dial(options=KIND.check(options), http=http or HttpSettings(timeout=30.0)))
    assert isinstance(location, SwiftLocation)
    return location


def _login(server: Server) -> dict[str, str]:
    return {"auth_url": server.extra["auth_url"], "username": server.access_key, "key": server.secret_key}


@pytest.fixture
def location(swift: Server) -> Iterator[SwiftLocation]:
    location = _dial(**_login(swift))
    yield location
    location.close()


@pytest.fixture
def container(location: SwiftLocation) -> Iterator[SwiftContainer]:
    name = f"swift-{uuid.uuid4().hex[:12]}"
    location.create_container(name)
    container = location.container(name)
    yield container
    container.delete_many([entry.key for entry in container.list("", "", 1000, "").entries])
    location.delete_container(name)


def test_creation_is_not_taken_for_a_lock(container: SwiftContainer) -> None:
    """Swift looks before it writes, so more than one creator may win: declared as a convenience, never as atomic."""
    able = container._location.capabilities
    assert Feature.CREATE_IF_ABSENT in able
    assert Feature.ATOMIC_CREATE not in able

    def create(number: int) -> bool:
        try:
            container.put("lock", Source(str(number).encode()), WriteOptions(if_absent=True))
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) >= 1
    assert not create(9)


def test_a_token_that_expired_is_replaced(container: SwiftContainer) -> None:
    """Whoever meets the refusal logs in again; nobody else notices."""
    session = container._session
    container.put("object", Source(b"x"), _PLAIN)
    assert session._account is not None
    session._account = evolve(session._account, token="AUTH_tkexpired")
    session._connections.renew()
    assert container.head("object").size == 1
    session._account = evolve(session._account, token="AUTH_tkexpired")
    session._connections.renew()
    # A stream that cannot be read twice is sent only once the login is known to be good.
    container.put("object", Source(iter([b"x" * (1 << 20)] * 6)), _PLAIN)
    assert container.head("object").size == 6 << 20


def test_a_token_needs_no_login(swift: Server, container: SwiftContainer) -> None:
    """With a token and the account's URL nothing is asked of the identity service."""
    account = container._session._login()
    other = _dial(storage_url=account.url, token=account.token)
    assert other.has_container(container.name)
    assert account.token not in repr(account)


def test_connections_are_used_again(container: SwiftContainer) -> None:
    """Answers without a body, short errors and fully read objects leave their connection open."""
    container.put("object", Source(b"x" * 1000), _PLAIN)
    adapter = container._session.transport.adapter()
    for _ in range(5):
        container.head("object")
        with pytest.raises(NotFound):
            container.open("missing", 0, None, None)
        with container.open("object", 0, None, None) as stream:
            stream.read()
        container.list("", "", 10, "")
    pools: Any = adapter.poolmanager.pools
    assert [pools[key].num_connections for key in pools.keys()] == [1]  # noqa: SIM118  # no mapping of its own


def test_a_stream_over_the_largest_object_is_refused(swift: Server, container: SwiftContainer) -> None:
    """Without a size it is stopped on its way, and nothing is visible."""
    small = _dial(**_login(swift), max_object_bytes=str(5 << 20)).container(container.name)
    with pytest.raises(LimitExceeded, match="5242880"):
        small.put("object", Source(iter([b"x" * (1 << 20)] * 6)), _PLAIN)
    with pytest.raises(NotFound):
        container.head("object")


def test_it_works_in_a_forked_child(container: SwiftContainer) -> None:
    """Parent and child have connections of their own."""
    container.put("object", Source(b"x"), _PLAIN)

    def child() -> None:
        os._exit(0 if container.head("object").size == 1 else 1)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert container.head("object").size == 1


def test_a_stalled_server_meets_the_deadline() -> None:
    """A server that accepts and says nothing keeps nobody longer than allowed."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        location = _dial(storage_url=f"{url}/v1/AUTH_x", token="t", http=HttpSettings())
        with pytest.raises(DeadlineExceeded), deadline(0.2):
            location.has_container("c")
        configured = _dial(storage_url=f"{url}/v1/AUTH_x", token="t", http=HttpSettings(timeout=0.2))
        with pytest.raises(DeadlineExceeded, match="configured"):
            configured.has_container("c")


def test_rights_are_permission_denied(swift: Server, container: SwiftContainer) -> None:
    """A known user without rights learns no more than that."""
    assert swift.address.stranger is not None
    stranger = swift.address.stranger
    denied = _dial(auth_url=swift.extra["auth_url"], username=stranger.access_key, key=stranger.secret_key)
    with pytest.raises(PermissionDenied):
        denied.container(container.name).head("object")
    with pytest.raises(PermissionDenied):
        denied.has_container(container.name)


@pytest.mark.parametrize("version", ["2", "3"])
def test_keystone_finds_the_account(container: SwiftContainer, version: str) -> None:
    """Keystone's catalogue says where the account of a region is; here a stand-in for it knows the real Swift."""
    account = container._session._login()
    with _Keystone(account.url, account.token) as auth_url:
        location = _dial(
            auth_url=f"{auth_url}/v{version}" + (".0" if version == "2" else ""),
            username="u",
            key="right",
            tenant_name="p",
            region="here",
        )
        assert location.has_container(container.name)
        with pytest.raises(PermissionDenied) as raised:
            _dial(auth_url=f"{auth_url}/v3", username="u", key="hidden", tenant_name="p").has_container("c")
        assert "hidden" not in str(raised.value)


def test_the_environment_logs_in() -> None:
    """OpenStack's own variables fill in what the options leave open."""
    environment = {
        "OS_AUTH_URL": "https://keystone/v3",
        "OS_USERNAME": "u",
        "OS_PASSWORD": "p",
        "OS_PROJECT_NAME": "project",
        "OS_REGION_NAME": "r",
    }
    found = credentials_from(KIND.check({"username": "mine"}), environment)
    assert (found.username, found.tenant, found.region) == ("mine", "project", "r")
    assert found.auth_version == "3.x_password"
    application = {"OS_AUTH_URL": "https://k/v3", "OS_APPLICATION_CREDENTIAL_ID": "i"}
    found = credentials_from(KIND.check({}), application | {"OS_APPLICATION_CREDENTIAL_SECRET": "s"})
    assert (found.username, found.key, found.auth_version) == ("i", "s", "3.x_appcred")
    assert "'s'" not in repr(found)


def test_missing_credentials_are_named() -> None:
    """The error says which option and which variable would do."""
    with pytest.raises(ConfigError, match="OS_AUTH_URL"):
        credentials_from(KIND.check({}), {})
    with pytest.raises(ConfigError, match="OS_PASSWORD"):
        credentials_from(KIND.check({"tenant_auth_url": "http://h", "username": "u"}), {})


class _Keystone:
    """As much of Keystone v2 and v3 as a login needs: one password, one token, two regions."""

    def __init__(self, storage_url: str, token: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, answer = (401, {}) if "right" not in sent else (201, _catalogue(storage_url, token, self.path))
                body = json.dumps(answer).encode()
                self.send_response(200 if status == 201 and "v2" in self.path else status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-Subject-Token", token)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
                """Keeps quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _catalogue(url: str, token: str, path: str) -> dict[str, Any]:
    expires = "2099-01-01T00:00:00Z"
    other = "http://127.0.0.1:1/v1/AUTH_elsewhere"
    if "v2" in path:
        points = [{"region": r, "publicURL": u} for r, u in (("here", url), ("there", other))]
        catalogue = [{"type": "object-store", "name": "swift", "endpoints": points}]
        return {"access": {"token": {"id": token, "expires": expires}, "serviceCatalog": catalogue, "user": {}}}
    both = [
        {"interface": "public", "region": r, "region_id": r, "url": u} for r, u in (("here", url), ("there", other))
    ]
    catalogue = [{"type": "object-store", "name": "swift", "endpoints": both}]
    return {"token": {"expires_at": expires, "catalog": catalogue, "user": {}, "roles": []}}
