"""Stores that are wrong in one way each, for proving that the conformance kit notices."""

from __future__ import annotations

import threading
import time
import unicodedata
from collections.abc import Iterable, Mapping

from attrs import evolve

from datastore import Cursor, DataReference, Feature, ListPage, MemoryStore, Metadata, ObjectEntry, ReadStream
from datastore.driver import Container
from datastore.errors import AlreadyExists, NotFound, PermissionDenied, StoreError
from datastore.memory import MEMORY_CAPABILITIES
from datastore.model import Capabilities, WriteOptions
from datastore.protocol import Reference, Store
from datastore.source import Source, SourceLike
from datastore.testing import Harness

__all__ = ["BROKEN", "BrokenHarness"]

_SECRET = "hunter2-kit"


class Sound(MemoryStore):
    """Nothing wrong: what the others are compared with."""


class _Listing(MemoryStore):
    """Gathers everything below a prefix and lets a subclass arrange it wrongly."""

    def list_page(
        self,
        prefix: Reference,
        max_items: int | None = None,
        cursor: Cursor | None = None,
        *,
        delimiter: str = "",
        directory: bool = False,
    ) -> ListPage:
        page = super().list_page(prefix, max_items, cursor, delimiter=delimiter, directory=directory)
        return evolve(page, entries=tuple(self.arrange(list(page.entries))))

    def arrange(self, entries: list[ObjectEntry]) -> Iterable[ObjectEntry]:
        return entries


class OrderOfUtf16(_Listing):
    def arrange(self, entries: list[ObjectEntry]) -> Iterable[ObjectEntry]:
        return sorted(entries, key=lambda entry: entry.reference.key.encode("utf-16-be"))


class OrderOfPathSegments(_Listing):
    def arrange(self, entries: list[ObjectEntry]) -> Iterable[ObjectEntry]:
        return sorted(entries, key=lambda entry: entry.reference.key.split("/"))


class ListedWithQuotedEtag(_Listing):
    def arrange(self, entries: list[ObjectEntry]) -> Iterable[ObjectEntry]:
        return [entry._replace(etag=f'"{entry.etag}"') for entry in entries]


class ListedWithoutItsPrefix(_Listing):
    """Upstream's documentation: paths relative to the prefix."""

    def arrange(self, entries: list[ObjectEntry]) -> Iterable[ObjectEntry]:
        return [entry._replace(reference=entry.reference.with_key(entry.reference.name)) for entry in entries]


class ListedWithWrongSize(_Listing):
    def arrange(self, entries: list[ObjectEntry]) -> Iterable[ObjectEntry]:
        return [entry._replace(size=entry.size or 4096) for entry in entries]


class PrefixBySegment(MemoryStore):
    def list_page(self, prefix: Reference, *more: object, **named: object) -> ListPage:
        return super().list_page(prefix, *more, **{**named, "directory": True})  # type: ignore[arg-type]


class PageSizeIgnored(MemoryStore):
    def list_page(self, prefix: Reference, max_items: int | None = None, *more: object, **named: object) -> ListPage:
        return super().list_page(prefix, 1000, *more, **named)  # type: ignore[arg-type]


class EndCursorAccepted(MemoryStore):
    def list_page(
        self, prefix: Reference, max_items: int | None = None, cursor: Cursor | None = None, **named: object
    ) -> ListPage:
        if cursor is not None and cursor.is_at_end:
            cursor = None
        return super().list_page(prefix, max_items, cursor, **named)  # type: ignore[arg-type]


class CursorCountsObjects(MemoryStore):
    """The cursor is a number of objects, so inserts repeat and deletes lose some."""

    def list_page(
        self, prefix: Reference, max_items: int | None = None, cursor: Cursor | None = None, **named: object
    ) -> ListPage:
        page = super().list_page(prefix, 0, None, **named)  # type: ignore[arg-type]
        if cursor is not None and cursor.is_at_end:
            return super().list_page(prefix, 1, cursor)
        first = int(cursor.after) if cursor is not None and cursor.after.isdigit() else 0
        last = first + (max_items or 1000)
        more = last < len(page.entries)
        return ListPage(
            entries=page.entries[first:last],
            prefixes=page.prefixes,
            cursor=Cursor.after_key(str(last)) if more else Cursor.at_end(),
        )


class CursorForgetsItsPrefix(MemoryStore):
    """Pages that end in a common prefix go on inside it."""

    def _container(self, reference: DataReference) -> Container:
        return _ResumingInside(super()._container(reference))


class _Wrapped:
    def __init__(self, inner: Container) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


class _ResumingInside(_Wrapped):
    def list(self, prefix: str, after: str, limit: int, delimiter: str) -> object:
        return self._inner.list(prefix, after.rstrip("/"), limit, delimiter)


class ReadsTooLittle(MemoryStore):
    def read_raw(self, reference: Reference, start: int = 0, length: int | None = None, **named: object) -> ReadStream:
        with super().read_raw(reference, start, length, **named) as stream:  # type: ignore[arg-type]
            data = stream.read()
        cut = data[:-1] if len(data) > 100 else data
        return ReadStream(cut, len(cut), stream.metadata)


class RangesIncludeTheirEnd(MemoryStore):
    def read_raw(self, reference: Reference, start: int = 0, length: int | None = None, **named: object) -> ReadStream:
        return super().read_raw(reference, start, None if length is None else length + 1, **named)  # type: ignore[arg-type]


class NegativeStartIsZero(MemoryStore):
    def read_raw(self, reference: Reference, start: int = 0, length: int | None = None, **named: object) -> ReadStream:
        return super().read_raw(reference, max(start, 0), length, **named)  # type: ignore[arg-type]


class RangeTellsItsOwnSize(MemoryStore):
    def read_raw(self, reference: Reference, start: int = 0, length: int | None = None, **named: object) -> ReadStream:
        with super().read_raw(reference, start, length, **named) as stream:  # type: ignore[arg-type]
            return ReadStream(stream.read(), stream.size, evolve(stream.metadata, size=stream.size))


class MissingReadsAsEmpty(MemoryStore):
    def read_raw(self, reference: Reference, start: int = 0, length: int | None = None, **named: object) -> ReadStream:
        try:
            return super().read_raw(reference, start, length, **named)  # type: ignore[arg-type]
        except NotFound:
            return ReadStream(b"", 0, Metadata())


class LimitIgnored(MemoryStore):
    def __init__(self, *, max_download_bytes: int = 0) -> None:
        super().__init__()


class LimitOffByOne(MemoryStore):
    def __init__(self, *, max_download_bytes: int = 0) -> None:
        super().__init__(max_download_bytes=max(0, max_download_bytes - 1))


class _Writing(MemoryStore):
    """Lets a subclass change one thing about a write."""

    def write_raw(
        self, reference: Reference, size: int | None, options: WriteOptions | None, stream: SourceLike | Source
    ) -> Metadata:
        return self.put(reference, size, options or WriteOptions(), stream)

    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        return super().write_raw(reference, size, options, stream)


class WritesInPlace(_Writing):
    """Readers see what has arrived so far, and keep it when the source fails."""

    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        source, arrived, shown = Source(stream, size, content_md5=options.content_md5), bytearray(), 0
        while piece := source.read(1 << 18):
            arrived += piece
            if len(arrived) >= 2 * shown:
                shown = len(arrived)
                super().put(reference, None, WriteOptions(metadata=options.metadata), bytes(arrived))
        return super().put(reference, None, options, bytes(arrived))


class SizeNotChecked(_Writing):
    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        return super().put(reference, None, options, stream)


class DigestNotChecked(_Writing):
    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        return super().put(reference, size, evolve(options, content_md5=None), stream)


class MetadataLost(_Writing):
    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        return super().put(reference, size, evolve(options, metadata={}), stream)


class HeadersLost(_Writing):
    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        return super().put(reference, size, evolve(options, content_type=None), stream)


class SourceErrorsTranslated(_Writing):
    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        try:
            return super().put(reference, size, options, stream)
        except Exception as error:
            raise error if isinstance(error, (StoreError, TypeError, ValueError)) else StoreError("failed") from error


class TailKept(_Writing):
    """A shorter object over a longer one leaves the rest."""

    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        try:
            old = self.read_bytes(reference)
        except NotFound:
            old = b""
        super().put(reference, size, options, stream)
        new = self.read_bytes(reference)
        return super().put(reference, None, options, new + old[len(new) :])


class WriteTellsNoEtag(_Writing):
    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        return evolve(super().put(reference, size, options, stream), etag="")


class CreateOverwrites(_Writing):
    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        return super().put(reference, size, evolve(options, if_absent=False), stream)


class CreateLooksFirst(_Writing):
    """Right alone, wrong in a race."""

    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        if options.if_absent and self.head(reference).exists:
            raise AlreadyExists("it is there", op="write", reference=str(reference))
        time.sleep(0.01)
        return super().put(reference, size, evolve(options, if_absent=False), stream)


class MatchIgnored(_Writing):
    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        return super().put(reference, size, evolve(options, if_match=None), stream)


class WriteForgotten(_Writing):
    """Upstream's defect: a write to a missing container makes it, writes nothing and reports success."""

    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        ref = self._object(reference)
        if not self._location.has_container(ref.container):
            self._location.create_container(ref.container)
            return Metadata(exists=True, size=size or 0, etag="written")
        return super().put(reference, size, options, stream)


class _Heads(MemoryStore):
    def head(self, reference: Reference) -> Metadata:
        known = super().head(reference)
        return self.change(known) if known.exists else known

    def change(self, known: Metadata) -> Metadata:
        return known


class EtagQuoted(_Heads):
    def change(self, known: Metadata) -> Metadata:
        return evolve(known, etag=f'"{known.etag}"')


class EtagOfSize(_Heads):
    def change(self, known: Metadata) -> Metadata:
        return evolve(known, etag=f"size-{known.size}")


class EtagOfTheMoment(_Heads):
    def change(self, known: Metadata) -> Metadata:
        return evolve(known, etag=str(time.monotonic_ns()))


class TimeWithoutZone(_Heads):
    def change(self, known: Metadata) -> Metadata:
        assert known.last_modified is not None
        return evolve(known, last_modified=known.last_modified.replace(tzinfo=None))


class MissingHeadRaises(MemoryStore):
    def head(self, reference: Reference) -> Metadata:
        known = super().head(reference)
        if not known.exists:
            raise NotFound("nothing there", op="head", reference=str(reference))
        return known


class HeadFindsPrefixes(MemoryStore):
    """Upstream's Azure driver: the first object whose name starts so."""

    def head(self, reference: Reference) -> Metadata:
        found = self.list_page(reference, 1).entries
        return super().head(found[0].reference) if found else Metadata()


class DeleteOfNothingRaises(MemoryStore):
    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        super().delete(reference, missing_ok=False)


class DeleteNeverInsists(MemoryStore):
    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        super().delete(reference)


class DeletesByPrefix(MemoryStore):
    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        super().delete(reference, missing_ok=missing_ok)
        for entry in self.list_page(reference).entries:
            super().delete(entry.reference)


class DeletesOnlyTheFirst(MemoryStore):
    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        return super().delete_many(list(references)[:999])


class CopyMoves(MemoryStore):
    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        told = super().copy_raw(source, destination, options)
        if str(source) != str(destination):
            self.delete(source)
        return told


class CopyLosesMetadata(MemoryStore):
    """Upstream's copies: empty options."""

    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        with self.read_raw(source) as stream:
            return self.write_raw(destination, stream.size, options, stream)


class CopyReplacesMetadata(MemoryStore):
    """Options replace all metadata instead of those they name."""

    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        if options is None or not options.metadata:
            return super().copy_raw(source, destination, options)
        data = self.read_bytes(source)
        return self.write_raw(destination, len(data), options, data)


class _Keys(MemoryStore):
    """Understands keys in its own way."""

    def _object(self, reference: Reference) -> DataReference:
        ref = super()._object(reference)
        return ref.with_key(self.change(ref.key))

    def change(self, key: str) -> str:
        return key


class KeysLoseEmptySegments(_Keys):
    def change(self, key: str) -> str:
        return "/".join(part for part in key.split("/") if part)


class KeysAreDecoded(_Keys):
    def change(self, key: str) -> str:
        return key.replace("%20", " ").replace("+", " ")


class KeysAreNormalised(_Keys):
    def change(self, key: str) -> str:
        return unicodedata.normalize("NFC", key)


class KeysHaveNoCase(_Keys):
    def change(self, key: str) -> str:
        return key.lower()


class KeysEndAtAQuestionMark(_Keys):
    def change(self, key: str) -> str:
        return key.partition("?")[0].rstrip("/") or key


class KeysAreCutOff(_Keys):
    def change(self, key: str) -> str:
        return key[:255].rstrip("/")


class MetadataRefusedInSilence(_Writing):
    """Declares that it keeps no metadata, and drops them without a word."""

    def capabilities(self, reference: Reference | None = None) -> Capabilities:
        return evolve(MEMORY_CAPABILITIES, features=MEMORY_CAPABILITIES.features - {Feature.USER_METADATA})

    def put(
        self, reference: Reference, size: int | None, options: WriteOptions, stream: SourceLike | Source
    ) -> Metadata:
        return super().put(reference, size, evolve(options, metadata={}), stream)


class SignsWhatItCannot(MemoryStore):
    """Hands out URLs for scopes it does not declare."""

    def create_signed_url(self, reference: Reference, properties: object) -> object:  # type: ignore[override]
        return f"http://127.0.0.1/{reference}"


class DeadlineIgnored(MemoryStore):
    def head(self, reference: Reference) -> Metadata:
        ref = self._object(reference)
        try:
            return self._container(ref).head(ref.key)
        except NotFound:
            return Metadata()


class ErrorsWithoutReference(MemoryStore):
    def read_raw(self, reference: Reference, start: int = 0, length: int | None = None, **named: object) -> ReadStream:
        try:
            return super().read_raw(reference, start, length, **named)  # type: ignore[arg-type]
        except NotFound as error:
            raise NotFound("no such object") from error


class ErrorsTellSecrets(MemoryStore):
    def read_raw(self, reference: Reference, start: int = 0, length: int | None = None, **named: object) -> ReadStream:
        try:
            return super().read_raw(reference, start, length, **named)  # type: ignore[arg-type]
        except NotFound as error:
            raise error from RuntimeError(f"GET http://user:{_SECRET}@localhost/")


class SwallowsDenials(MemoryStore):
    """Upstream's head: whatever goes wrong, the object does not exist."""

    def head(self, reference: Reference) -> Metadata:
        try:
            return super().head(reference)
        except StoreError:
            return Metadata()


class HangsAfterFork(MemoryStore):
    """As a client whose threads are gone in the child: a lock that nobody there will ever release."""

    def __init__(self, *, max_download_bytes: int = 0) -> None:
        super().__init__(max_download_bytes=max_download_bytes)
        self._process = threading.main_thread().ident, _process()

    def read_raw(self, reference: Reference, *more: object, **named: object) -> ReadStream:
        if self._process[1] != _process():
            threading.Event().wait()
        return super().read_raw(reference, *more, **named)  # type: ignore[arg-type]


def _process() -> int:
    import os

    return os.getpid()


class BrokenHarness(Harness):
    """Stores of one class, each a world of its own."""

    shared = False
    secrets = (_SECRET,)

    def __init__(self, kind: type[MemoryStore]) -> None:
        self._kind = kind

    def open_store(self, *, max_download_bytes: int = 0) -> Store:
        return self._kind(max_download_bytes=max_download_bytes)

    def denied_store(self) -> Store:
        return type("Denied", (_Denying, self._kind), {})()

    @property
    def root(self) -> DataReference:
        return DataReference("mem://kit")


class _Denying(MemoryStore):
    def _container(self, reference: DataReference) -> Container:
        raise PermissionDenied("the credentials are not accepted")

    def _write_container(self, reference: DataReference, source: Source) -> Container:
        return self._container(reference)


#: What is wrong, and the tests of the kit that have to say so.
BROKEN: Mapping[type[MemoryStore], tuple[str, ...]] = {
    OrderOfUtf16: ("test_the_order_is_that_of_utf8", "test_any_history"),
    OrderOfPathSegments: ("test_the_order_is_that_of_utf8", "test_any_history"),
    ListedWithQuotedEtag: ("test_the_etag_is_bare_and_stable", "test_entries_tell_sizes_and_times"),
    ListedWithoutItsPrefix: ("test_results_read_back", "test_any_key_goes_round"),
    ListedWithWrongSize: ("test_entries_tell_sizes_and_times", "test_any_history"),
    PrefixBySegment: ("test_the_prefix_is_text", "test_a_name_that_is_a_prefix_of_another"),
    PageSizeIgnored: ("test_the_order_does_not_depend_on_the_page",),
    EndCursorAccepted: ("test_the_end_cursor_is_refused",),
    CursorCountsObjects: ("test_a_cursor_outlives_its_key", "test_a_cursor_stands_still_under_inserts"),
    CursorForgetsItsPrefix: ("test_a_delimiter_folds_what_lies_deeper", "test_a_delimiter_cursor_outlives_its_prefix"),
    ReadsTooLittle: ("test_reading_the_whole_object", "test_sources"),
    RangesIncludeTheirEnd: ("test_reading_ranges", "test_any_history"),
    NegativeStartIsZero: ("test_reading_ranges", "test_any_history"),
    RangeTellsItsOwnSize: ("test_reading_ranges",),
    MissingReadsAsEmpty: ("test_reading_nothing_is_not_found", "test_a_deleted_object_is_gone"),
    LimitIgnored: ("test_the_download_limit",),
    LimitOffByOne: ("test_the_download_limit",),
    WritesInPlace: (
        "test_a_source_that_raises_writes_nothing",
        "test_cancelling_a_write",
        "test_readers_never_see_a_write_that_fails",
    ),
    SizeNotChecked: ("test_a_wrong_size_writes_nothing", "test_any_history"),
    DigestNotChecked: ("test_the_md5_is_verified", "test_a_wrong_md5_of_a_large_object_writes_nothing"),
    MetadataLost: ("test_user_metadata_come_back", "test_metadata_are_carried", "test_any_history"),
    HeadersLost: ("test_content_headers_come_back",),
    SourceErrorsTranslated: ("test_a_source_that_raises_writes_nothing",),
    TailKept: ("test_overwriting_replaces_everything",),
    WriteTellsNoEtag: ("test_the_etag_is_bare_and_stable", "test_sources"),
    CreateOverwrites: ("test_creating_happens_once", "test_any_history"),
    CreateLooksFirst: ("test_exactly_one_create_wins",),
    MatchIgnored: ("test_replacing_what_is_known", "test_exactly_one_replacement_wins"),
    WriteForgotten: ("test_a_write_to_a_missing_container",),
    EtagQuoted: ("test_the_etag_is_bare_and_stable",),
    EtagOfSize: ("test_the_etag_changes_with_the_content",),
    EtagOfTheMoment: ("test_the_etag_is_bare_and_stable",),
    TimeWithoutZone: ("test_last_modified_is_aware_and_recent",),
    MissingHeadRaises: ("test_head_of_nothing_says_that_nothing_exists",),
    HeadFindsPrefixes: ("test_a_prefix_of_a_name_is_not_an_object",),
    DeleteOfNothingRaises: ("test_deleting_is_idempotent",),
    DeleteNeverInsists: ("test_deleting_what_must_be_there",),
    DeletesByPrefix: ("test_neighbours_stay",),
    DeletesOnlyTheFirst: ("test_deleting_many",),
    CopyMoves: ("test_copying_the_bytes",),
    CopyLosesMetadata: ("test_metadata_are_carried", "test_content_headers_are_carried"),
    CopyReplacesMetadata: ("test_options_override_metadata",),
    KeysLoseEmptySegments: ("test_empty_segments",),
    KeysAreDecoded: ("test_odd_keys",),
    KeysAreNormalised: ("test_odd_keys",),
    KeysHaveNoCase: ("test_names_differ_by_case",),
    KeysEndAtAQuestionMark: ("test_odd_keys",),
    KeysAreCutOff: ("test_the_longest_key",),
    MetadataRefusedInSilence: ("test_user_metadata_that_cannot_be_kept_are_refused",),
    SignsWhatItCannot: ("test_what_cannot_be_signed_is_refused",),
    DeadlineIgnored: ("test_a_deadline_that_has_passed", "test_a_cancelled_token"),
    ErrorsWithoutReference: ("test_errors_say_what_was_asked",),
    ErrorsTellSecrets: ("test_errors_say_what_was_asked",),
    SwallowsDenials: ("test_credentials_that_are_not_accepted",),
    HangsAfterFork: ("test_a_used_store_in_a_forked_child",),
}
