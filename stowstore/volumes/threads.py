"""Blocking work of coroutines, in threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["in_thread"]

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Does blocking work in a thread, with this context, while the event loop goes on."""
    # Whoever awaits has it loaded; daemons and commands, which never do, need not pay for it.
    import asyncio

    return await asyncio.to_thread(work, *args, **kwargs)
