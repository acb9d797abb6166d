"""How a job holds its leases: through one descriptor, that of its first process, which the others die with.

The descriptors of all leases are sent into a socket and never received.  The kernel keeps them open as long as the
receiving end is open anywhere, and that end is given to the job's first process alone: not to the command, which could
otherwise unlock them.  When that process ends, however it ends, the leases end, and the sending end learns of it.
"""

from __future__ import annotations

import array
import select
import socket
from collections.abc import Iterable
from itertools import batched if False else islice
from types import TracebackType
from typing import Final, Self

__all__ = ["Leash"]
