"""Listing blobs from a key on, of which the service knows nothing: it goes on from markers of its own.

A small memory of markers makes reading page after page cost one request each.  A listing resumed where no marker is
known (another process, or long ago) reads from the start of its prefix and leaves out what it has passed.

Names come as the service orders them, which was seen to be by UTF-16 code units.  That is the order of UTF-8 but for
characters beyond the Basic Multilingual Plane, which come before U+E000 to U+FFFF.  A listing that meets them is read
to its end for each page, keeping the smallest names.
"""

from __future__ import annotations

import heapq
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from datastore.context import check
from datastore.driver import DriverEntry, DriverPage, resume_after
from datastore.errors import StoreError
from datastore.model import clean_etag
from stowstore.locations.azure import xml
from stowstore.locations.azure.service import AzureService

__all__ = ["Markers", "list_page"]

#: The most the service puts on a page.
_PAGE = 5000
_REMEMBERED = 512

_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_HIGH = re.compile("[\ue000-\U0010ffff]")


class _Found(NamedTuple):
    name: str
    entry: DriverEntry | None


class _Place(NamedTuple):
    container: str
    prefix: str
    delimiter: str
    after: str

    def is_past(self, item: _Found) -> bool:
        """Whether an earlier page has it: below a common prefix everything is past."""
        return bool(self.after) and item.name <= resume_after(self.after, self.delimiter, self.prefix)


class Markers:
    """Where listings stood: the marker of the page that follows a key; thread-safe, the oldest is forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[_Place, str] = OrderedDict()

    def get(self, place: _Place) -> str:
        with self._lock:
            return self._known.get(place, "")

    def put(self, place: _Place, marker: str) -> None:
        with self._lock:
            self._known[place] = marker
            self._known.move_to_end(place)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def forget(self, place: _Place) -> None:
        with self._lock:
            self._known.pop(place, None)


def list_page(
    service: AzureService, markers: Markers, container: str, prefix: str, after: str, limit: int, delimiter: str
) -> DriverPage:
    """One page of a listing, as `datastore.driver.Container.list` describes it."""
    place = _Place(container, prefix, delimiter, after)
    marker = markers.get(place)
    if not marker and _HIGH.search(after):
        return _scan(service, place, limit)
    try:
        page = _go_on(service, markers, place, marker, limit)
    except StoreError as error:
        if not marker or error.http_status != 400:
            raise
        # Markers are the service's own and may end: start over.
        markers.forget(place)
        return list_page(service, markers, container, prefix, after, limit, delimiter)
    return _scan(service, place, limit) if page is None else page


def _go_on(service: AzureService, markers: Markers, place: _Place, marker: str, limit: int) -> DriverPage | None:
    """Reads on from a marker, "" for the start; None when the order of the names is not sure."""
    found: list[_Found] = []
    omitted = 0
    while True:
        # Behind a remembered marker everything counts; else much may have to be left out first.
        size = limit - len(found) if marker or not place.after else _PAGE
        names, next_marker, unreadable = _page(service, place, marker, size)
        omitted += unreadable
        for item in names:
            if place.is_past(item):
                continue
            if _ASTRAL.search(item.name):
                return None
            if len(found) == limit:
                # The page has more than was asked for: it is read again, from its start, to go on.
                next_marker = marker
                break
            found.append(item)
        else:
            if not next_marker:
                return _result(found, omitted, more=False)
            if len(found) < limit:
                marker = next_marker
                continue
        if next_marker:
            markers.put(place._replace(after=found[-1].name), next_marker)
        return _result(found, omitted, more=True)


def _scan(service: AzureService, place: _Place, limit: int) -> DriverPage:
    """Reads everything below the prefix and keeps the smallest names."""
    omitted = 0

    def names() -> Iterator[_Found]:
        nonlocal omitted
        marker = ""
        while True:
            page, marker, unreadable = _page(service, place, marker, _PAGE)
            omitted += unreadable
            yield from (item for item in page if not place.is_past(item))
            if not marker:
                return

    smallest = heapq.nsmallest(limit + 1, names(), key=_by_name)
    return _result(smallest[:limit], omitted, more=len(smallest) > limit)


def _result(found: list[_Found], omitted: int, *, more: bool) -> DriverPage:
    return DriverPage(
        [item.entry for item in found if item.entry],
        [item.name for item in found if not item.entry],
        more,
        omitted,
        found[-1].name if found else None,
    )


def _page(service: AzureService, place: _Place, marker: str, size: int) -> tuple[list[_Found], str, int]:
    """Blobs and prefixes in order, the marker of the next page, and how many names could not be read."""
    check()
    asked = {"maxresults": str(min(size, _PAGE))}
    given = {"prefix": place.prefix, "delimiter": place.delimiter, "marker": marker}
    asked.update((name, text) for name, text in given.items() if text)
    root = xml.parse(service.list_blobs(place.container, asked))
    found: list[_Found] = []
    unreadable = 0
    for element in root.iterfind("Blobs/*"):
        try:
            name = xml.name_of(element)
        except UnicodeDecodeError:
            unreadable += 1
            continue
        entry = None
        if element.tag == "Blob":
            properties = element.find("Properties")
            if xml.text_of(properties, "ResourceType") == "directory":
                # Accounts with a hierarchical namespace list their directories as empty blobs.
                continue
            entry = DriverEntry(
                name,
                int(xml.text_of(properties, "Content-Length") or 0),
                clean_etag(xml.text_of(properties, "Etag")),
                _date(xml.text_of(properties, "Last-Modified")),
            )
        found.append(_Found(name, entry))
    # Blobs and prefixes are in order each, not always together.
    found.sort(key=_by_name)
    return found, xml.text_of(root, "NextMarker"), unreadable


def _by_name(item: _Found) -> str:
    # Code points are in the order of their UTF-8 bytes.
    return item.name


def _date(text: str) -> datetime | None:
    return parsedate_to_datetime(text) if text else None
