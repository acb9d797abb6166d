"""What the tests of the local kind share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datastore.driver import Container, DriverPage
from datastore.model import WriteOptions
from datastore.source import Source, SourceLike
from stowstore.locations.local import FsyncMode, LocalLocation

PLAIN = WriteOptions()


@contextmanager
def container_at(path: Path, fsync: FsyncMode = FsyncMode.NEVER) -> Iterator[Container]:
    """A container ``c`` below a root."""
    location = LocalLocation(str(path), fsync=fsync)
    location.create_container("c")
    try:
        yield location.container("c")
    finally:
        location.close()


def put(container: Container, key: str, data: SourceLike = b"data", **options: object) -> str:
    """Writes an object and returns its etag."""
    return container.put(key, Source(data), WriteOptions(**options) if options else PLAIN)  # type: ignore[arg-type]


def get(container: Container, key: str) -> bytes:
    """The bytes of an object."""
    with container.open(key, 0, None, None) as stream:
        return stream.read()


def keys_of(page: DriverPage) -> list[str]:
    """The keys of a page."""
    return [entry.key for entry in page.entries]


def all_keys(container: Container, prefix: str = "", page: int = 1000) -> list[str]:
    """Every key, page by page."""
    keys: list[str] = []
    after = ""
    while True:
        found = container.list(prefix, after, page, "")
        keys += keys_of(found)
        if not found.more:
            return keys
        after = keys[-1]


def drafts_of(root: Path) -> list[str]:
    """Drafts that were left behind."""
    directory = root / ".stow" / "tmp"
    return [path.name for path in directory.iterdir() if path.name != "lock"] if directory.exists() else []
