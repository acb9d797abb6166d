"""The Prometheus of the whole run, to be asked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.observability.scraping import Scraper
from tests.servers import Server


@pytest.fixture
def scraper(prometheus_server: Server) -> Iterator[Scraper]:
    """It is shared with other tests: look at what you have made it scrape."""
    scraper = Scraper(prometheus_server)
    yield scraper
    scraper.leave()
