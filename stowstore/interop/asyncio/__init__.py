"""Stores for coroutines: the same verbs, a bounded number at once, and cancellation that stops the work."""

from stowstore.interop.asyncio.store import AsyncStore
from stowstore.interop.asyncio.streams import AsyncReadStream

__all__ = ["AsyncReadStream", "AsyncStore"]
