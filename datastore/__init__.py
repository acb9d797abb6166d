"""What a data store is: references, values, errors, the protocol, and wrappers that work over any store."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datastore import errors
    from datastore.context import CancelToken, cancellable, deadline, remaining
    from datastore.memory import MemoryStore
    from datastore.model import (
        Capabilities,
        Cursor,
        Feature,
        ListPage,
        Metadata,
        ObjectEntry,
        SignedURLProperties,
        SignedURLResponse,
        SignedURLScope,
        WriteOptions,
    )
    from datastore.protocol import DataStore, Reference, Store
    from datastore.reference import DataReference, construct_reference
    from datastore.stream import ReadStream

__all__ = [
    "CancelToken",
    "Capabilities",
    "Cursor",
    "DataReference",
    "DataStore",
    "Feature",
    "ListPage",
    "MemoryStore",
    "Metadata",
    "ObjectEntry",
    "ReadStream",
    "Reference",
    "SignedURLProperties",
    "SignedURLResponse",
    "SignedURLScope",
    "Store",
    "WriteOptions",
    "cancellable",
    "construct_reference",
    "deadline",
    "errors",
    "remaining",
]

_HOMES = {
    "datastore.context": ("CancelToken", "cancellable", "deadline", "remaining"),
    "datastore.memory": ("MemoryStore",),
    "datastore.model": (
        "Capabilities",
        "Cursor",
        "Feature",
        "ListPage",
        "Metadata",
        "ObjectEntry",
        "SignedURLProperties",
        "SignedURLResponse",
        "SignedURLScope",
        "WriteOptions",
    ),
    "datastore.protocol": ("DataStore", "Reference", "Store"),
    "datastore.reference": ("DataReference", "construct_reference"),
    "datastore.stream": ("ReadStream",),
}


def __getattr__(name: str) -> Any:
    # Loaded when asked for: whoever needs an error or a deadline only, such as a command, starts the sooner.
    if name == "errors":
        return import_module("datastore.errors")
    for home, names in _HOMES.items():
        if name in names:
            found = globals()[name] = getattr(import_module(home), name)
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
