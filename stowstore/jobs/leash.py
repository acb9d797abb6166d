"""How a job holds its leases, however many: by one descriptor.

The descriptors of all leases are sent into a socket and never received.  The kernel keeps them open as long as the
receiving end is open anywhere.  That end is given to the first process of the job, which never closes it and which no
other process of the job outlives, and is inherited by the others: what still hangs in a write when the first is killed
has the leases yet.  When the last has ended, however it did, the leases have, and the sending end learns of it.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

__all__ = ["Leash"]

#: As many descriptors go with one message (unix(7)).
_AT_ONCE: Final = 253


class Leash:
    """Two ends of a socket: the job's, with the leases in it, and ours, which tells when the job is gone."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            for start in range(0, len(descriptors), _AT_ONCE):
                socket.send_fds(self._ours, [b"leases"], list(descriptors[start : start + _AT_ONCE]))
        except BaseException:
            self.close()
            raise

    @property
    def theirs(self) -> int:
        """The descriptor that the job is to inherit."""
        return self._theirs.fileno()

    @property
    def ours(self) -> int:
        """A descriptor that poll(2) reports hung up when the last process that holds the leases is gone."""
        return self._ours.fileno()

    def hand_over(self) -> None:
        """Leaves the leases to the job, which has been started."""
        self._theirs.close()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until nobody holds the leases through this any more; false when that took too long."""
        poll = select.poll()
        poll.register(self.ours, 0)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def close(self) -> None:
        """Gives up this process's part."""
        self._ours.close()
        self._theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
