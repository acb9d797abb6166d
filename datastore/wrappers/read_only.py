"""A view of a store that changes nothing in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import evolve

from datastore.errors import PermissionDenied, StoreError
from datastore.model import (
    Capabilities,
    Feature,
    Metadata,
    SignedURLProperties,
    SignedURLResponse,
    SignedURLScope,
    WriteOptions,
)
from datastore.protocol import Reference
from datastore.reference import DataReference
from datastore.source import Source, SourceLike
from datastore.wrappers.base import StoreWrapper, as_reference

__all__ = ["ReadOnlyStore"]

_WRITING = frozenset(
    {
        Feature.CREATE_IF_ABSENT,
        Feature.ATOMIC_CREATE,
        Feature.REPLACE_IF_MATCH,
        Feature.SERVER_SIDE_COPY,
        Feature.SIGN_WRITE,
        Feature.SIGN_DELETE,
    }
)
_SIGNABLE = (SignedURLScope.READ, SignedURLScope.HEAD)


class ReadOnlyStore(StoreWrapper):
    """A store that can be read, listed and signed for reading; everything else raises `PermissionDenied`.

    It refuses before anything reaches the wrapped store, and before a source is read.  It guards against mistakes, not
    against code that asks for ``inner``.
    """

    def capabilities(self, reference: Reference | None = None) -> Capabilities:
        able = self._inner.capabilities(reference)
        return evolve(able, features=able.features - _WRITING)

    def write_raw(
        self,
        reference: Reference,
        size: int | None,
        options: WriteOptions | None,
        stream: SourceLike | Source,
    ) -> Metadata:
        raise _refusal("write", reference)

    def delete(self, reference: Reference, *, missing_ok: bool = True) -> None:
        raise _refusal("delete", reference)

    def delete_many(self, references: Iterable[Reference]) -> Mapping[DataReference, StoreError]:
        return {(ref := as_reference(reference)): _refusal("delete", ref) for reference in references}

    def copy_raw(self, source: Reference, destination: Reference, options: WriteOptions | None = None) -> Metadata:
        raise _refusal("copy", destination)

    def create_signed_url(self, reference: Reference, properties: SignedURLProperties) -> SignedURLResponse:
        if properties.scope not in _SIGNABLE:
            raise _refusal("sign", reference, f"a URL for {properties.scope.value} would change it")
        return self._inner.create_signed_url(reference, properties)


def _refusal(op: str, reference: Reference, detail: str = "") -> PermissionDenied:
    return PermissionDenied(
        f"this store is read-only{f': {detail}' if detail else ''}",
        op=op,
        # Parsed, so that text with a secret in it is never repeated.
        reference=str(as_reference(reference)),
        hint="write through the store this one is a view of",
    )
