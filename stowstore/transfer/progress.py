"""What a transfer tells while it runs, and when it is done."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

__all__ = ["Progress", "TransferReport"]


@define
class TransferReport:
    """What a transfer did: files of all kinds, bytes of content, what was left out and why."""

    files: int = 0
    directories: int = 0
    unchanged: int = 0
    bytes: int = 0
    skipped: list[tuple[str, str]] = field(factory=list)


#: Told now and then how far a transfer is; called from the transferring thread.
Progress = Callable[[TransferReport], None]
