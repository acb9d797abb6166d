"""What a data store is: references, values, errors, the protocol, and wrappers that work over any store."""

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
