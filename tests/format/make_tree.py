"""Makes the second golden root of format version 1: run once when the version is new, and never again.

    python -m tests.format.make_tree tests/format/v1/tree.tar.xz

It has what the first (``tests/golden``) has not: an index whose segments have been merged into a tree of two levels,
with segments above it, blocks that are large enough for checksums, a file of several windows, and a lease that is held.
"""

from __future__ import annotations

import json
import random
import sys
import tarfile
import tempfile
from pathlib import Path

from stowstore import Volume
from stowstore.chunks.block import PackKind
from stowstore.versions.lease import Lease
from stowstore.versions.options import SessionOptions, chunk_store
from stowstore.versions.rewriting import rewrite_packs
from stowstore.volumes.registry import registry
from tests.golden.make import describe

__all__: list[str] = []

_WINDOW = 4 << 20


def main(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(archive, "x:xz") as tar:
        directory = Path(scratch, "tree")
        url = f"file://{directory}"
        volume = Volume.new("golden", url)
        blocking = volume.blocking
        chance = random.Random(3)
        with blocking as files:
            for number in range(300):
                files.makedirs(f"/many/{number % 10}", exist_ok=True)
                files.write_text(f"/many/{number % 10}/{number:03}", f"file {number}")
            files.write_bytes("/checked", chance.randbytes(70_000))
            with files.open("/windows", "wb") as windows:
                for number in range(8):
                    windows.seek(number * _WINDOW - (100 if number else 0))
                    windows.write(b"across a border %d" % number * 20)
            blocking.commit("many")
        root = registry.root(url)
        with chunk_store(root, SessionOptions()) as chunks:
            packs = [(PackKind.INDEX, entry.pack) for entry in chunks.list_packs(PackKind.INDEX)]
            lease = Lease(root.store, root.lease_reference("golden"), base=root.head("golden").id)
            rewrite_packs(root, chunks, "golden", lease, packs=packs)
            lease.release()
        with blocking as files:
            files.remove("/many/3/003")
            files.write_text("/many/4/004", "changed above the tree")
            files.rename("/many/5", "/five")
            with files.open("/windows", "r+b") as windows:
                windows.seek(3 * _WINDOW)
                windows.write(b"overwritten")
            blocking.commit("above the tree")
        expected = {}
        for entry in Volume.blocking.at(f"{url}#golden").blocking.log():
            with entry.version.blocking as files:
                expected[entry.id] = {"volume": "golden", "message": entry.message, "files": describe(files)}
        held = Lease(root.store, root.lease_reference("golden"), base=root.head("golden").id)
        listed = Path(scratch, "expected.json")
        listed.write_text(json.dumps({"tree": expected}, indent=0, sort_keys=True) + "\n")
        tar.add(directory, "tree")
        tar.add(listed, listed.name)
        held.release()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
