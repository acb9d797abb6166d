"""Metadata stores: the crash journal of a session, on the local disk or in memory."""

from stowstore.namespace.metastore.base import DEFAULT_KIND, KINDS, choose_kind, open_metastore
from stowstore.namespace.metastore.memory import MemoryMetaStore
from stowstore.namespace.metastore.redis import RedisMetaStore
from stowstore.namespace.metastore.sqlite import SqliteMetaStore

__all__ = [
    "DEFAULT_KIND",
    "KINDS",
    "MemoryMetaStore",
    "RedisMetaStore",
    "SqliteMetaStore",
    "choose_kind",
    "open_metastore",
]
