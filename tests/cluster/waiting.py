"""What keeps workers busy; apart, since each of them imports it anew."""

from __future__ import annotations

import time
from pathlib import Path

__all__ = ["wait_for_file"]


def wait_for_file(path: str, _: int) -> None:
    """Returns once there is a file, or after a time in which every test has ended."""
    deadline = time.monotonic() + 120
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
