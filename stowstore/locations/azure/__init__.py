"""Azure Blob Storage, ADLS included, as the kind ``abfs``.

Checked against Azurite, which verifies signatures, conditions and SAS.  Not checked for want of a service: tokens
of Entra ID beyond being sent, accounts with a hierarchical namespace, copies that take the service longer than the
request, and the order of names beyond the Basic Multilingual Plane.

Keys with empty segments, backslashes or control characters are refused: clients and service would change them.
"""

from __future__ import annotations

from stowstore.locations.azure.config import OPTIONS
from stowstore.locations.base import Dial, Kind, Location

__all__ = ["KIND"]


def _dial(dial: Dial) -> Location:
    from stowstore.locations.azure.location import AzureLocation

    return AzureLocation.dial(dial)


KIND = Kind(
    name="abfs",
    schemes=("abfs", "abfss", "wasb", "wasbs"),
    dial=_dial,
    options=dict(OPTIONS.items()),
    summary="Azure Blob Storage and Data Lake Storage",
    aliases=("azure", "wasb"),
    extra="azure",
)
