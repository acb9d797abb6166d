"""Being told of the volumes that are opened and mounted in a context, by whoever has to see to their end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias

__all__ = ["Watcher", "tell", "watching"]

#: Is given the volume, and the directory of its journal where one was named.
Watcher: TypeAlias = Callable[[Any, Path | None], None]

_watcher: ContextVar[Watcher | None] = ContextVar("stowstore_watcher", default=None)


@contextmanager
def watching(watcher: Watcher) -> Iterator[None]:
    """Has every volume that this context opens or mounts told to ``watcher``, and to no other meanwhile.

    Contexts begun here, as those of tasks and of `asyncio.to_thread`, are this one's; other threads are not.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell(volume: Any, meta_dir: Path | None) -> None:
    """Says that a volume was opened or mounted."""
    watcher = _watcher.get()
    if watcher is not None:
        watcher(volume, meta_dir)
