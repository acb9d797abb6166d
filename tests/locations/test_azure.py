"""What only Azure has: its options, its SAS, its metadata names and markers, and how its errors read."""

import base64
import multiprocessing
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from datastore.context import cancellable, deadline
from datastore.driver import Container
from datastore.errors import (
    AlreadyExists,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    ForkUnsafe,
    InvalidReference,
    NoSuchContainer,
    NotFound,
    NotSupported,
    PermissionDenied,
    PreconditionFailed,
    SizeMismatch,
    StoreError,
    TransientError,
)
from datastore.model import Feature, SignedURLProperties, SignedURLScope, WriteOptions
from datastore.source import Source
from stowstore.locations.azure import KIND, xml
from stowstore.locations.azure.config import BearerToken, SharedKey, configure
from stowstore.locations.azure.location import AzureLocation
from stowstore.locations.azure.names import incoming_name, outgoing_name
from stowstore.locations.azure.signing import sign_blob
from stowstore.locations.base import Dial
from tests.servers import Server

_KEY = base64.b64encode(b"not the key of any account").decode()
_PLAIN = WriteOptions()


def _dial(account: str | None = None, /, **given: str) -> Dial:
    return Dial(options=KIND.check(given), account=account)


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCOUNT_NAME", "ACCOUNT", "ACCOUNT_KEY", "KEY", "CONNECTION_STRING", "SAS_TOKEN", "ENDPOINT"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)


@pytest.fixture
def location(azurite: Server) -> Iterator[AzureLocation]:
    found = AzureLocation.dial(_dial(account=azurite.access_key, key=azurite.secret_key, endpoint=azurite.endpoint))
    yield found
    found.close()


@pytest.fixture
def container(location: AzureLocation, request: pytest.FixtureRequest) -> Container:
    name = f"t{abs(hash(request.node.nodeid)):x}"[:40]
    location.create_container(name)
    return location.container(name)


# -- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ({"account": "acct", "key": _KEY}, "https://acct.blob.core.windows.net"),
        ({"account_name": "acct", "account_key": _KEY}, "https://acct.blob.core.windows.net"),
        ({"account": "acct", "key": _KEY, "domain_suffix": "core.chinacloudapi.cn"}, "https://acct.blob.core.chinacloudapi.cn"),
        ({"account": "acct", "key": _KEY, "base_url": "blob.example.org"}, "https://acct.blob.example.org"),
        ({"key": _KEY, "endpoint": "https://acct.blob.example.org/"}, "https://acct.blob.example.org"),
        ({"key": _KEY, "endpoint": "http://127.0.0.1:10000/acct"}, "http://127.0.0.1:10000/acct"),
        ({"account": "acct", "key": _KEY, "endpoint": "http://127.0.0.1:10000"}, "http://127.0.0.1:10000/acct"),
        ({"use_emulator": "true"}, "http://127.0.0.1:10000/devstoreaccount1"),
        ({"connection_string": "UseDevelopmentStorage=true"}, "http://127.0.0.1:10000/devstoreaccount1"),
        (
            {"connection_string": f"AccountName=acct;AccountKey={_KEY};EndpointSuffix=core.usgovcloudapi.net"},
            "https://acct.blob.core.usgovcloudapi.net",
        ),
    ],
)  # fmt: skip
def test_where_the_account_is(given: dict[str, str], endpoint: str) -> None:
    """Accounts, clouds, emulators and connection strings lead to one endpoint; upstream's names are understood."""
    account, credentials = configure(_dial(**given))
    assert endpoint == account.endpoint
    assert account.name in ("acct", "devstoreaccount1")
    assert isinstance(credentials, SharedKey)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "missing account"),
        ({"account": "acct", "key": "not base64!"}, "key is not base64"),
        ({"account": "acct", "key": _KEY, "use_https": "true"}, "use_https"),
        ({"account": "acct", "key": _KEY, "api_version": "2018"}, "api_version"),
        ({"account": "Not_An_Account", "key": _KEY}, "not the name"),
        ({"account": "acct", "key": _KEY, "domain_suffix": "https://x/"}, "not a domain"),
        ({"key": _KEY, "endpoint": "ftp://x"}, "endpoint"),
        ({"key": _KEY, "endpoint": "https://user:pw@acct.blob.x"}, "credentials in it"),
        ({"connection_string": "nonsense"}, "connection_string"),
        ({"account": "acct", "client_secret": "s"}, "tenant_id"),
        ({"account": "acct", "keey": _KEY}, "'key'"),
    ],
)
def test_bad_options(given: dict[str, str], said: str) -> None:
    """What cannot be dialled is refused by name, and no secret is repeated."""
    with pytest.raises(ConfigError) as refused:
        configure(_dial(**given))
    assert said in str(refused.value)
    assert _KEY not in str(refused.value)


def test_the_environment_is_asked_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Static credentials win over the environment's; without any, or with `ambient`, those are used."""
    other = base64.b64encode(b"of the environment").decode()
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "environment")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", other)
    assert SharedKey(base64.b64decode(_KEY)) == configure(_dial(account="acct", key=_KEY))[1]
    account, credentials = configure(_dial())
    assert ("environment", SharedKey(b"of the environment")) == (account.name, credentials)
    assert SharedKey(b"of the environment") == configure(_dial(account="acct", key=_KEY, ambient="true"))[1]


def test_tokens_of_entra_id() -> None:
    """Without a key azure-identity is asked, for a principal or whatever it finds; such a store signs no URLs."""
    pytest.importorskip("azure.identity")
    principal = {"tenant_id": "t", "client_id": "c", "client_secret": "s"}
    for options in ({"account": "acct"}, {"account": "acct", **principal}):
        assert isinstance(configure(_dial(**options))[1], BearerToken)
        found = AzureLocation.dial(_dial(**options))
        assert Feature.SIGN_READ not in found.capabilities
        with pytest.raises(NotSupported, match="key"):
            found.container("abc").sign("k", SignedURLProperties())


def test_the_account_of_a_reference() -> None:
    """A reference may name its account; one that is not the configured key's is refused instead of read from there."""
    given = {"account": "acct", "key": _KEY}
    assert "acct" == configure(_dial("acct", **given))[0].name
    assert "acct" == configure(_dial("acct.dfs.core.windows.net", **given))[0].name
    assert "https://other.blob.core.windows.net" == configure(_dial("other.dfs.core.windows.net"))[0].endpoint
    for foreign in ("other", "other.dfs.core.windows.net", "acct2"):
        with pytest.raises(ConfigError, match="'acct'"):
            configure(_dial(foreign, **given))
    with pytest.raises(ConfigError, match="known cloud"):
        configure(_dial("acct.evil.example"))


def test_secrets_stay_inside() -> None:
    """Neither options nor credentials nor locations show a secret."""
    given = {"account": "acct", "key": _KEY}
    account, credentials = configure(_dial(**given))
    shown = f"{_dial(**given)!r} {account!r} {credentials!r} {AzureLocation.dial(_dial(**given))!r}"
    assert _KEY not in shown
    assert "not the key" not in shown


# -- names ----------------------------------------------------------------------------------------------------------


@given(st.from_regex(r"[a-z0-9][a-z0-9_-]*", fullmatch=True))
def test_metadata_names_go_and_come_back(name: str) -> None:
    """Every name becomes a C# identifier and is found again; one that is an identifier stays as it is."""
    sent = outgoing_name(name)
    assert sent.isidentifier()
    assert sent.isascii()
    assert name == incoming_name(sent)
    if "-" not in name and not name[0].isdigit():
        assert name == sent


@pytest.mark.parametrize("name", ["ab", "a" * 64, "Upper", "a--b", "-a", "a-", "a_b", "a.b", ""])
def test_container_names(location: AzureLocation, name: str) -> None:
    """Names no container can have are refused without a request."""
    with pytest.raises(InvalidReference):
        location.container(name)


def test_entities_are_not_read() -> None:
    """An answer that declares entities is refused before any is expanded."""
    bomb = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><a>&y;</a>'
    for document in (bomb, bomb.decode().replace("1.0", '1.0" encoding="utf-16').encode("utf-16")):
        with pytest.raises(StoreError, match="document type"):
            xml.parse(document)
    with pytest.raises(TransientError):
        xml.parse(b"<html>")


# -- signing --------------------------------------------------------------------------------------------------------


def test_a_sas_ends_when_it_says() -> None:
    """A SAS holds for exactly the time asked for, over https unless the endpoint is http."""
    from datetime import UTC, datetime

    for endpoint, protocol in (
        ("https://acct.blob.core.windows.net", "https"),
        ("http://127.0.0.1:1/acct", "https,http"),
    ):
        signed = sign_blob(
            SignedURLProperties(expires_in=90),
            account="acct",
            key=b"k",
            endpoint=endpoint,
            container="abc",
            blob="a b?#%+ü",
            now=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        )
        query = parse_qs(urlsplit(signed.url).query)
        assert (["2026-01-02T03:05:35Z"], [protocol], ["r"]) == (query["se"], query["spr"], query["sp"])
        assert "st" not in query
        assert signed.url.startswith(f"{endpoint}/abc/a%20b%3F%23%25%2B%C3%BC?")


def test_create_only_urls_do_not_replace(container: Container) -> None:
    """A write URL made with `if_absent` cannot replace a blob, even for one who leaves out its headers."""
    signed = container.sign("k", SignedURLProperties(scope=SignedURLScope.WRITE, if_absent=True))
    bare = {"x-ms-blob-type": "BlockBlob"}
    assert 201 == requests.put(signed.url, b"1", headers=dict(signed.required_request_headers), timeout=30).status_code
    for headers in (dict(signed.required_request_headers), bare):
        # The missing right and the failed condition are told as they are noticed.
        assert requests.put(signed.url, b"2", headers=headers, timeout=30).status_code in (403, 409)
    with container.open("k", 0, None, None) as stream:
        assert b"1" == stream.read()


def test_a_sas_as_credentials(azurite: Server, location: AzureLocation, container: Container) -> None:
    """A location lives on somebody else's SAS, for data and for the service's own requests, and never shows it."""
    token = _account_sas(azurite)
    guest = AzureLocation.dial(_dial(account=azurite.access_key, sas_token=f"?{token}", endpoint=azurite.endpoint))
    there = guest.container(container.name)
    there.put("a-b", Source(b"1"), WriteOptions(metadata={"x-y": "1"}))
    assert ["a-b"] == [entry.key for entry in there.list("", "", 10, "").entries]
    assert {"x-y": "1"} == dict(there.head("a-b").user_metadata)
    there.copy("copy", there, "a-b", None)
    assert {"x-y": "1"} == dict(location.container(container.name).head("copy").user_metadata)
    with pytest.raises(NotSupported):
        there.sign("k", SignedURLProperties())
    broken = AzureLocation.dial(
        _dial(account=azurite.access_key, sas_token=token.replace("sig=", "sig=AAAA"), endpoint=azurite.endpoint)
    )
    signature = parse_qs(token)["sig"][0]
    for operation in (
        lambda c: c.head("k"),
        lambda c: c.list("", "", 1, ""),
        lambda c: c.put("k", Source(b""), _PLAIN),
    ):
        with pytest.raises(PermissionDenied) as denied:
            operation(broken.container(container.name))
        text = "".join(traceback.format_exception(denied.value))
        assert signature not in text
        assert signature[:12] not in text.replace("%", "")
    guest.close()
    broken.close()


def _account_sas(server: Server) -> str:
    """An account SAS, written from the documentation, for everything on containers and blobs."""
    import hashlib
    import hmac
    from urllib.parse import urlencode

    fields = {
        "sp": "rwdlac",
        "ss": "b",
        "srt": "sco",
        "se": "2099-01-01T00:00:00Z",
        "spr": "https,http",
        "sv": "2020-12-06",
    }
    text = "\n".join(
        (
            server.access_key,
            fields["sp"],
            fields["ss"],
            fields["srt"],
            "",
            fields["se"],
            "",
            fields["spr"],
            fields["sv"],
            "",
            "",
        )
    )
    digest = hmac.new(base64.b64decode(server.secret_key), text.encode(), hashlib.sha256).digest()
    return urlencode({**fields, "sig": base64.b64encode(digest).decode()})


# -- listing --------------------------------------------------------------------------------------------------------


def test_page_after_page_costs_one_request_each(container: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Going on where the last page ended asks the service once a page, however far the listing is."""
    for number in range(12):
        container.put(f"k{number:02}", Source(b""), _PLAIN)
    asked: list[dict[str, str]] = []
    plain = container._service.list_blobs
    monkeypatch.setattr(
        container._service, "list_blobs", lambda name, params: (asked.append(dict(params)), plain(name, params))[1]
    )
    found, after = [], ""
    while True:
        page = container.list("k", after, 3, "")
        found += [entry.key for entry in page.entries]
        if not page.more:
            break
        after = found[-1]
    assert [f"k{number:02}" for number in range(12)] == found
    assert len(asked) <= 5
    assert all(params["maxresults"] == "3" for params in asked)


def test_a_listing_goes_on_in_another_process(azurite: Server, container: Container) -> None:
    """Without its marker a listing goes on at the same key, and one that ended by itself is started anew."""
    for number in range(6):
        container.put(f"k{number}", Source(b""), _PLAIN)
    other = AzureLocation.dial(_dial(account=azurite.access_key, key=azurite.secret_key, endpoint=azurite.endpoint))
    page = other.container(container.name).list("k", "k2", 2, "")
    assert (["k3", "k4"], True) == ([entry.key for entry in page.entries], page.more)
    other.close()


# -- writing --------------------------------------------------------------------------------------------------------


def _large(pieces: int = 9, fail: BaseException | None = None) -> Iterator[bytes]:
    for number in range(pieces):
        if fail is not None and number == pieces - 1:
            raise fail
        yield bytes([number]) * (1 << 20)


def test_conditions_hold_for_large_objects(container: Container) -> None:
    """What takes several requests is created or replaced under the same conditions as what takes one."""
    etag = container.put(
        "k", Source(_large()), WriteOptions(if_absent=True, metadata={"a-b": "1"}, content_type="text/x")
    )
    assert (9 << 20, etag, {"a-b": "1"}, "text/x") == _described(container)
    with pytest.raises(AlreadyExists):
        container.put("k", Source(_large()), WriteOptions(if_absent=True))
    with pytest.raises(PreconditionFailed):
        container.put("k", Source(_large()), WriteOptions(if_match="0xNONE"))
    with pytest.raises(PreconditionFailed):
        container.put("missing", Source(_large()), WriteOptions(if_match=etag))
    later = container.put("k", Source(_large(10)), WriteOptions(if_match=etag))
    assert (10 << 20, later) == _described(container)[:2]
    with container.open("k", (9 << 20) - 1, 2, later) as stream:
        assert b"\x08\x09" == stream.read()


@pytest.mark.parametrize("options", [_PLAIN, WriteOptions(if_absent=True)], ids=["plain", "create"])
def test_a_failing_source_publishes_nothing(container: Container, options: WriteOptions) -> None:
    """What the caller's stream raises comes back as it is, and no object appears."""
    failure = KeyError("the caller's own")
    with pytest.raises(KeyError) as raised:
        container.put("k", Source(_large(12, failure)), options)
    assert failure is raised.value
    with pytest.raises(SizeMismatch):
        container.put("k", Source(_large(12), (12 << 20) + 1), options)
    with pytest.raises(SizeMismatch):
        container.put("k", Source(_large(12), (12 << 20) - 1), options)
    with pytest.raises(NotFound):
        container.head("k")


def test_a_missing_container_is_found_out_first(location: AzureLocation) -> None:
    """A stream that cannot be read again is not used up for a container that is not there."""
    pieces = _large(20)
    source = Source(pieces)
    with pytest.raises(NoSuchContainer):
        location.container("there-is-none").put("k", source, _PLAIN)
    assert source.position == 0


def _described(container: Container) -> tuple[int, str, dict[str, str], str | None]:
    found = container.head("k")
    return found.size, found.etag, dict(found.user_metadata), found.content_type


# -- limits ---------------------------------------------------------------------------------------------------------


def test_a_stalled_service(azurite: Server) -> None:
    """A deadline ends a request that is on its way, and a token does so from another thread."""
    import socket
    import threading

    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}/devstoreaccount1"
        stalled = AzureLocation.dial(_dial(account="devstoreaccount1", key=azurite.secret_key, endpoint=endpoint))
        there = stalled.container("abc")
        operations = (
            lambda: there.head("k"),
            lambda: there.put("k", Source(b"1"), _PLAIN),
            lambda: there.list("", "", 1, ""),
        )
        for operation in operations:
            with deadline(0.2), pytest.raises(DeadlineExceeded):
                operation()
        with cancellable() as token:
            timer = threading.Timer(0.1, token.cancel)
            timer.start()
            with pytest.raises(Cancelled):
                there.head("k")
            timer.join()
        stalled.close()


def _in_child(container: Container, answers: Any) -> None:
    try:
        container.head("k")
        answers.put("no error")
    except ForkUnsafe as error:
        answers.put(str(error))


def test_a_forked_child_is_told_to_spawn(container: Container) -> None:
    """After a fork the client library would hang; an error says what to do instead."""
    container.put("k", Source(b"1"), _PLAIN)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_in_child, args=(container, answers))
    child.start()
    try:
        assert "spawn" in answers.get(timeout=30)
    finally:
        child.join(30)
        if child.is_alive():
            child.kill()
