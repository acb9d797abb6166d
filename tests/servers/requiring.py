"""Where a missing server is a failure rather than a reason to skip."""

import os

__all__ = ["are_required"]


def are_required() -> bool:
    """Whether `CI` or `STOWSTORE_REQUIRE_SERVERS` is set to something other than a denial."""
    denials = ("", "0", "false", "no")
    return any(os.environ.get(name, "").lower() not in denials for name in ("CI", "STOWSTORE_REQUIRE_SERVERS"))
