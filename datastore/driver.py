"""What a driver implements, and what it is promised.

The portable layer (`datastore.portable`) stands between callers and drivers.  A driver may assume:

- keys are decoded text, at most ``capabilities.max_key_bytes`` of UTF-8, not empty, without a slash at either
  end, without
  ``.`` and ``..`` segments and NUL, and without empty segments unless it declares `Feature.EMPTY_SEGMENTS`;
- user metadata names are lower case ``[a-z0-9][a-z0-9_-]*``, values printable ASCII without spaces at their ends,
  2 KiB together;
- etags are bare; ``limit`` is at least 1; options it did not declare the feature for are never set;
- calls come from many threads at once.

In return it raises errors of `datastore.errors` only (foreign ones translated in one function, kept as
``__cause__``), says
which are retryable, does not retry on its own what it cannot rewind, and never leaves half an object visible.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from attrs import frozen

from datastore.errors import StoreError
from datastore.model import Capabilities, Metadata, SignedURLProperties, SignedURLResponse, WriteOptions
from datastore.source import Source
from datastore.stream import ReadStream

__all__ = ["Container", "DriverEntry", "DriverPage", "Location", "resume_after"]


class DriverEntry(NamedTuple):
    """One object as a driver lists it; ``etag`` is bare, ``last_modified`` aware."""

    key: str
    size: int
    etag: str = ""
    last_modified: datetime | None = None


@frozen
class DriverPage:
    """What a driver lists: objects and common prefixes (with their trailing delimiter), each ascending by UTF-8
    bytes.

    ``more`` says whether anything follows.  ``omitted`` counts names the driver could not even decode.
    ``next_after``
    is where to go on when the last name seen is not in ``entries`` or ``prefixes`` (everything was omitted).
    """

    entries: Sequence[DriverEntry] = ()
    prefixes: Sequence[str] = ()
    more: bool = False
    omitted: int = 0
    next_after: str | None = None


class Container(Protocol):
    """One bucket, container or directory of a location; thread-safe."""

    @property
    def name(self) -> str: ...

    def head(self, key: str) -> Metadata:
        """Size, etag and metadata of an object, in one request.

        Raises:
            NotFound, NoSuchContainer: it is not there.
        """
        ...

    def open(self, key: str, start: int, length: int | None, if_match: str | None) -> ReadStream:
        """Opens a range of an object.

        A negative ``start`` counts from the end and is clipped to the object; a ``start`` at or past the end yields
        an empty stream, a ``length`` past the end is clipped.  The stream's metadata give the size of the whole
        object.  Nothing large is transferred before the stream is read.

        Raises:
            NotFound, NoSuchContainer: it is not there.
            PreconditionFailed: ``if_match`` names another object.
        """
        ...

    def put(self, key: str, source: Source, options: WriteOptions) -> str:
        """Writes an object atomically and returns its etag; whatever ``source.read`` raises passes through.

        Raises:
            AlreadyExists: ``if_absent`` and something is there.
            PreconditionFailed: ``if_match`` and it is another object, or none.
            NoSuchContainer: before more than ``source`` can rewind was read, where the backend allows.
        """
        ...

    def delete(self, key: str) -> None:
        """Removes an object; removing what is not there, or from a container that is not there, is no error."""
        ...

    def delete_many(self, keys: Sequence[str]) -> Mapping[str, StoreError]:
        """Removes objects in as few requests as the backend allows; returns the errors of those that failed."""
        ...

    def list(self, prefix: str, after: str, limit: int, delimiter: str) -> DriverPage:
        """Objects whose keys start with ``prefix`` (raw text) and sort after ``after`` ("" for all), at most
        ``limit``.

        With ``delimiter`` ("/" or "") names that go on after it are folded into common prefixes, which count towards
        the limit; an ``after`` that ends with the delimiter is such a prefix and everything below it is past.

        Raises:
            NoSuchContainer: it is not there.
        """
        ...

    def copy(self, key: str, source: Container, source_key: str, options: WriteOptions | None) -> str:
        """Copies inside the location without moving bytes through here; ``options`` None carries everything over.

        Raises:
            NotFound: the source object is not there.
            NotSupported: the backend cannot; the caller streams instead.
        """
        ...

    def sign(self, key: str, properties: SignedURLProperties) -> SignedURLResponse:
        """Signs a URL; called only for scopes the capabilities declare."""
        ...


class Location(Protocol):
    """A dialled backend: one kind with one configuration; thread-safe."""

    @property
    def kind(self) -> str: ...

    @property
    def scheme(self) -> str:
        """The scheme of the references to what lies here."""
        ...

    @property
    def capabilities(self) -> Capabilities: ...

    def container(self, name: str) -> Container:
        """A handle on a container, which need not exist; no request is made.

        Raises:
            InvalidReference: the backend can have no container of this name.
        """
        ...

    def has_container(self, name: str) -> bool:
        """Whether the container exists and may be used; one request.

        Raises:
            PermissionDenied: the answer is not ours to know.
        """
        ...

    def create_container(self, name: str) -> None:
        """Creates a private container; that it exists and is ours is success.

        Raises:
            ContainerTaken: it belongs to somebody else.
        """
        ...

    def delete_container(self, name: str) -> None:
        """Removes an empty container.

        Raises:
            NoSuchContainer: it is not there.
            ContainerNotEmpty: it holds objects.
        """
        ...

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        """The names of the containers, ascending."""
        ...

    def close(self) -> None:
        """Frees connections; handles and streams may stop working."""
        ...


def resume_after(after: str, delimiter: str, prefix: str = "") -> str:
    """The largest key that a listing of ``prefix`` which stopped at ``after`` is past.

    Behind a common prefix everything below it is past, which one greatest code point expresses for backends that only
    know "start after this key".  The marker object ``folder/`` that other tools leave, listed by that very prefix, is
    no common prefix: what lies below it is still to come.
    """
    folded = delimiter and after.endswith(delimiter) and len(after) > len(prefix)
    return f"{after}\U0010ffff" if folded else after
