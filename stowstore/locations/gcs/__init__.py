"""Google Cloud Storage as the kind ``gs``.

The etags of this kind are generations: the service has another ETag for the same object in each of its two APIs, and
its conditions speak of generations.

Checked against the JSON API of gcp-storage-emulator (buckets, listing, copies, resumable uploads) and, since no
emulator knows generations, conditions and the XML API the data go through, against a small service of the project's
own tests that keeps their published rules.  Signed URLs are equal, byte for byte, to those of Google's own library.
Nothing was run against Google.
"""

from __future__ import annotations

from stowstore.locations.base import Dial, Kind, Location
from stowstore.locations.gcs.config import OPTIONS

__all__ = ["KIND"]


def _dial(dial: Dial) -> Location:
    from stowstore.locations.gcs.location import GcsLocation

    return GcsLocation.dial(dial)


KIND = Kind(
    name="gs",
    schemes=("gs",),
    dial=_dial,
    options=dict(OPTIONS.items()),
    summary="Google Cloud Storage",
    aliases=("google", "gcs"),
    extra="gcs",
)
