"""Which backing a volume gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from stowstore.named.backings.base import Backing
from stowstore.named.backings.chunked import ChunkedBacking
from stowstore.named.backings.directory import DirectoryBacking
from stowstore.named.backings.loop import LoopBacking
from stowstore.named.backings.tmpfs import TmpfsBacking
from stowstore.named.errors import BackingUnsupported, InvalidType
from stowstore.named.record import BackingKind, VolumeType

__all__ = ["backing_of", "choose_backing"]

_BACKINGS: Final[Mapping[BackingKind, Callable[[], Backing]]] = MappingProxyType(
    {
        BackingKind.CHUNKED: ChunkedBacking,
        BackingKind.LOOP: LoopBacking,
        BackingKind.TMPFS: TmpfsBacking,
        BackingKind.DIRECTORY: DirectoryBacking,
    }
)

#: What each type of volume may have, the best first.
_ORDER: Final[Mapping[VolumeType, tuple[BackingKind, ...]]] = MappingProxyType(
    {
        VolumeType.FILESYSTEM: (BackingKind.CHUNKED, BackingKind.LOOP, BackingKind.DIRECTORY),
        VolumeType.MEMORY: (BackingKind.CHUNKED, BackingKind.TMPFS),
    }
)


def backing_of(kind: BackingKind) -> Backing:
    """The backing of a kind."""
    return _BACKINGS[kind]()


def choose_backing(base: Path, type_: VolumeType, wanted: BackingKind | None) -> tuple[Backing, list[str]]:
    """The backing a new volume gets, and why better ones were passed over.

    Raises:
        InvalidType: the type cannot have the one that is wanted.
        BackingUnsupported: this host has none, or not the one that is wanted; the message says what is missing.
    """
    order = _ORDER[type_]
    if wanted is not None:
        if wanted not in order:
            raise InvalidType(
                f"a volume of type {type_} cannot have the backing {wanted}", hint=f"use one of {', '.join(order)}"
            )
        backing = backing_of(wanted)
        backing.probe(base)
        return backing, []
    passed: list[str] = []
    for kind in order:
        backing = backing_of(kind)
        try:
            backing.probe(base)
        except BackingUnsupported as error:
            passed.append(f"{kind}: {error.message}")
        else:
            return backing, passed
    raise BackingUnsupported(
        f"this host can provide no volume of type {type_}: {'; '.join(passed)}", hint="`stowstore doctor` says more"
    )
