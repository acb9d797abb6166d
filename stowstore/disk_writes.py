"""Writing to local files in pieces that every machine takes quickly."""

from __future__ import annotations

import os
from typing import Final

__all__ = ["WRITE_BYTES", "write_all"]

#: What is given to the kernel at once.  It caches a larger write in pages of 2 MiB, and on a virtual machine that hands
#: free memory back to its host just those are slow to get: 4 MiB at once took ten times as long as 1 MiB four times.
WRITE_BYTES: Final = 1 << 20


def write_all(descriptor: int, data: bytes | bytearray | memoryview, offset: int | None = None) -> None:
    """Writes all of the data, at the file's own position or at an offset; for files that block.

    Raises:
        OSError: a part may have been written.
    """
    size = len(data)
    if offset is None:
        done = os.write(descriptor, data) if size <= WRITE_BYTES else 0
    else:
        done = os.pwrite(descriptor, data, offset) if size <= WRITE_BYTES else 0
    if done == size:
        return
    with memoryview(data) as view:
        # A disk that is nearly full takes a part, and says so when the rest comes.
        while done < size:
            piece = view[done : done + WRITE_BYTES]
            done += os.write(descriptor, piece) if offset is None else os.pwrite(descriptor, piece, offset + done)
