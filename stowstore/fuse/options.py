"""How a file system is shown to the kernel."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from attrs import field, frozen, validators

from stowstore.fuse.wire import MAX_WRITE

__all__ = ["FuseOptions", "KernelCache"]


class KernelCache(StrEnum):
    """What the kernel does with written data.

    ``WRITE_THROUGH`` hands every write on at once, which is best for trees of small files; ``WRITE_BACK`` gathers them
    in its page cache, which is best for small writes all over a file.
    """

    WRITE_THROUGH = "writethrough"
    WRITE_BACK = "writeback"


@frozen(kw_only=True)
class FuseOptions:
    """Times in seconds: how long the kernel may keep attributes and names; listings are kept unless it is 0.

    ``spin`` goes on asking for the next request that long before it sleeps, at the price of a busy processor.
    ``workers`` bounds the threads for what has to wait.  ``passthrough`` names a directory for plain files that the
    kernel reads by itself, of at most ``passthrough_bytes``: for file systems that nobody writes, in no cache mode but
    write-through.
    """

    attr_seconds: float = field(default=60.0, validator=validators.ge(0))
    entry_seconds: float = field(default=60.0, validator=validators.ge(0))
    directory_seconds: float = field(default=60.0, validator=validators.ge(0))
    kernel_cache: KernelCache = KernelCache.WRITE_THROUGH
    xattrs: bool = True
    spin: float = field(default=0.0, validator=validators.ge(0))
    workers: int = field(default=64, validator=validators.ge(1))
    passthrough: Path | None = None
    passthrough_bytes: int = 10 << 30
    max_write: int = field(default=MAX_WRITE, validator=[validators.ge(4096), validators.le(MAX_WRITE)])
