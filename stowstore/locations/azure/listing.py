"""Listing blobs from a key on, of which the service knows nothing: it goes on from markers of its own.

A small memory of markers makes reading page after page cost one request each.  A listing resumed where no marker is
known (another process, or long ago) reads from the start of its prefix and leaves out what it has passed.

The service orders names by UTF-16 code units, which is the order of UTF-8 but for characters beyond the Basic
Multilingual Plane, which come before U+E000 to U+FFFF.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from datastore.context import check
from datastore.driver import DriverEntry, DriverPage
from datastore.errors import InvalidReference, StoreError
from datastore.model import clean_etag
from stowstore.locations.azure import xml
from stowstore.locations.azure.service import AzureService

__all__ = ["Markers", "list_page"]

#: The most the service puts on a page.
_PAGE = 5000
_REMEMBERED = 512


class _Place(NamedTuple):
    container: str
    prefix: str
    delimiter: str
    after: str


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


class _Found(NamedTuple):
    order: bytes
    name: str
    entry: DriverEntry | None


def list_page(
    service: AzureService, markers: Markers, container: str, prefix: str, after: str, limit: int, delimiter: str
) -> DriverPage:
    """One page of a listing, as `datastore.driver.Container.list` describes it."""
    place = _Place(container, prefix, delimiter, after)
    passed = _order(after)
    params = {name: text for name, text in (("prefix", prefix), ("delimiter", delimiter)) if text}
    found: list[_Found] = []
    omitted = 0
    last = after
    marker = markers.get(place)
    while True:
        check()
        # Behind a remembered marker everything counts; else much may have to be left out first.
        size = limit - len(found) if marker or not after else _PAGE
        asked = {**params, "maxresults": str(min(size, _PAGE))}
        if marker:
            asked["marker"] = marker
        try:
            document = service.list_blobs(container, asked)
        except (StoreError, InvalidReference) as error:
            if marker and error.http_status == 400:
                # Markers are the service's own and may end: start over.
                markers.forget(place)
                return list_page(service, markers, container, prefix, after, limit, delimiter)
            raise
        names, next_marker, unreadable = _page(document)
        omitted += unreadable
        for item in names:
            if item.order <= passed or (delimiter and after.endswith(delimiter) and item.name.startswith(after)):
                continue
            if len(found) == limit:
                # The page has more than was asked for: it is read again, from its start, to go on.
                return _result(found, markers, place, marker, last, omitted)
            found.append(item)
            last = item.name
        if not next_marker:
            return DriverPage(
                [item.entry for item in found if item.entry],
                [item.name for item in found if not item.entry],
                False,
                omitted,
            )
        marker = next_marker
        if len(found) >= limit:
            return _result(found, markers, place, marker, last, omitted)


def _result(found: list[_Found], markers: Markers, place: _Place, marker: str, last: str, omitted: int) -> DriverPage:
    if marker:
        markers.put(place._replace(after=last), marker)
    return DriverPage(
        [item.entry for item in found if item.entry],
        [item.name for item in found if not item.entry],
        True,
        omitted,
        last,
    )


def _page(document: bytes) -> tuple[list[_Found], str, int]:
    """Blobs and prefixes in order, the marker of the next page, and how many names could not be read."""
    root = xml.parse(document)
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
        found.append(_Found(_order(name), name, entry))
    # Blobs and prefixes are in order each, not always together.
    found.sort(key=lambda item: item.order)
    return found, xml.text_of(root, "NextMarker"), unreadable


def _order(name: str) -> bytes:
    return name.encode("utf-16-be")


def _date(text: str) -> datetime | None:
    return parsedate_to_datetime(text) if text else None
