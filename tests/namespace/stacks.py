"""A session over the whole stack: packs in a store, staged data and a journal on the local disk."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from datastore.memory import MemoryStore
from stowstore.chunks.store import ChunkStore
from stowstore.index.snapshot import SnapshotRef
from stowstore.namespace.content import FileContent
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.metastore.base import open_metastore
from stowstore.namespace.staging import StagingArea
from tests.chunks.chunk_stores import PLAIN, ROOT
from tests.index.nodes import MemoryNodes
from tests.namespace.sessions import Session


class StackSession(Session):
    """Opens content and journal anew whenever the file system is, from the same directories."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="stowstore-stack-"))
        self.chunks = ChunkStore(MemoryStore(), ROOT, PLAIN, workers=2)
        self.writer = self.chunks.writer()
        self.nodes = MemoryNodes()
        self.content: Any = None
        self.metastore: Any = None
        self.ref = SnapshotRef()
        self.files = self._open(self.ref)

    def close(self) -> None:
        super().close()
        self._leave()
        self.writer.close()
        self.chunks.close()
        shutil.rmtree(self.directory)

    def _leave(self) -> None:
        if self.content is not None:
            self.content.close()
            self.metastore.close()

    def _open(self, ref: SnapshotRef, **options: Any) -> FileSystem:
        self._leave()
        self.content = FileContent(StagingArea(self.directory / "cache"), self.chunks.reader)
        self.metastore = open_metastore("sqlite", self.directory / "meta")
        return super()._open(ref, **options)
