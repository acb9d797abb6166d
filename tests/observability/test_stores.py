"""A store over a real server that throttles and fails, seen through Prometheus by the dashboard of stores."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from datastore.errors import NotFound, Throttled
from datastore.wrappers.cached import CachePolicy
from datastore.wrappers.retrying import RetryPolicy
from metrics import Scope, start_http_server
from stowstore import open_store
from stowstore.store import StowStore
from tests.faulty_http import Answer, FaultyProxy
from tests.locations.s3_buckets import fresh_bucket
from tests.observability.scraping import Scraper, questions
from tests.servers import Server

_SLOW_DOWN = Answer(503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")


@pytest.fixture
def proxy(radosgw: Server) -> Iterator[FaultyProxy]:
    with FaultyProxy(radosgw.endpoint) as found:
        yield found


def act(store: StowStore, proxy: FaultyProxy, number: int) -> None:
    """Does everything a dashboard shows: all that goes well, answers, retries, giving up, and a reader who leaves."""
    base = store.base_container_fqn.join(f"round-{number}")
    for size in (100, 100_000):
        store.write_bytes(base.join(str(size)), bytes(size))
        store.read_bytes(base.join(str(size)))
        store.read_bytes(base.join(str(size)))
    store.list(base, 10)
    store.head(base.join("100"))
    with pytest.raises(NotFound):
        store.read_bytes(base.join("missing"))
    proxy.break_next(_SLOW_DOWN, method="PUT")
    store.write_bytes(base.join("throttled"), b"x")
    proxy.break_next(_SLOW_DOWN, _SLOW_DOWN, method="PUT")
    with pytest.raises(Throttled):
        store.write_bytes(base.join("given up"), b"x")
    assert 0 == proxy.pending
    stream = store.read_raw(base.join("100000"), 1)
    stream.read(10)
    stream.close()


def test_every_panel_of_the_dashboard_has_data(radosgw: Server, proxy: FaultyProxy, scraper: Scraper) -> None:
    """Whatever the dashboard of stores asks, Prometheus answers with numbers once a store has done its work."""
    name = f"stores-{uuid.uuid4().hex[:8]}"
    registry = CollectorRegistry()
    with (
        fresh_bucket(radosgw) as bucket,
        start_http_server(registry=registry) as exposed,
        open_store(
            f"s3://{bucket}?endpoint={proxy.endpoint}&region=us-east-1&name={name}",
            options={"access_key_id": radosgw.access_key, "secret_key": radosgw.secret_key},
            scope=Scope("stow", registry=registry),
            cache=CachePolicy(max_bytes=1 << 20),
            retry=RetryPolicy(attempts=2, base_delay=0.001),
        ) as store,
    ):
        scraper.watch(exposed.url)
        done = f'sum (stow_operations_total{{location="{name}", operation="write"}})'
        for number in (1, 2):
            act(store, proxy, number)
            scraper.wait_for(f"{done} == {4 * number}")
        asked = list(questions("stow_store.json", {"location": name, "backend": "s3", "operation": ".*"}))
        for question in asked:
            scraper.wait_for(question.expr)
        assert len(asked) >= 18
        where = f'location="{name}"'
        scraper.expect(f'sum (stow_operation_errors_total{{{where}, code="THROTTLED"}})', "== 2")
        scraper.expect(f'sum (stow_retries_total{{{where}, reason="throttled"}})', "== 4")
        scraper.expect(f'sum (stow_operations_total{{{where}, outcome="cancelled"}})', "== 2")
        # What was written is in the cache: every read hits but that of what is not there.
        scraper.expect(f'sum (stow_cache_requests_total{{{where}, result="hit"}})', "== 10")
        scraper.expect(f'sum (stow_cache_requests_total{{{where}, result="miss"}})', "== 2")
        written = 2 * (100 + 100_000 + 1)
        scraper.expect(f'sum (stow_transferred_bytes_total{{{where}, direction="out"}})', f"== {written}")
