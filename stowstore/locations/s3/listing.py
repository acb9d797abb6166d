"""Listing a bucket by text, from anywhere, in pages of any size."""

from __future__ import annotations

from datastore.context import current_limits
from datastore.driver import DriverEntry, DriverPage, resume_after
from stowstore.locations.s3.documents import parse_listing
from stowstore.locations.s3.wire import Wire

__all__ = ["list_page"]

#: What S3 lists in one request.
_PAGE = 1000


def list_page(wire: Wire, bucket: str, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage:
    """Lists as `datastore.driver.Container.list` says, in as many requests as that takes."""
    entries: list[DriverEntry] = []
    prefixes: list[str] = []
    omitted = 0
    query = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
    if delimiter:
        query["delimiter"] = delimiter
    if after:
        after = resume_after(after, delimiter, prefix)
        folded = _folded(prefix, after, delimiter)
        if folded:
            past = resume_after(folded, delimiter, prefix)
            # Services disagree whether a prefix they start inside of is still to come: look, and start behind it.
            if after != past and list_page(wire, bucket, folded, after, 1, "").entries:
                prefixes.append(folded)
            after = past
        query["start-after"] = after
    while True:
        missing = limit - len(entries) - len(prefixes)
        query["max-keys"] = str(min(missing, _PAGE) or 1)
        page = parse_listing(wire.send("GET", bucket, limits=current_limits(), query=query).data)
        if not missing:
            return DriverPage(entries, prefixes, bool(page.entries or page.prefixes), omitted)
        entries += page.entries
        prefixes += page.prefixes
        omitted += page.omitted
        if not page.token or len(entries) + len(prefixes) >= limit:
            return DriverPage(entries, prefixes, bool(page.token), omitted)
        query["continuation-token"] = page.token


def _folded(prefix: str, after: str, delimiter: str) -> str:
    """The common prefix that ``after`` lies in, "" if it lies in none."""
    if not delimiter or not after.startswith(prefix):
        return ""
    cut = after.find(delimiter, len(prefix))
    return after[: cut + 1] if cut >= 0 else ""
