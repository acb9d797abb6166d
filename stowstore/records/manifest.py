"""Manifests as JSON, and long lists of files in parts.

Up to `INLINE` files stand in the manifest itself.  More are cut into parts where the hash of a path says so, each an
object named by its digest: ten changed files among ten thousand then cost ten parts, not the list.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import evolve

from stowstore.records.errors import InvalidRecord, RecordDamaged, RecordFormatTooNew
from stowstore.records.model import Edge, FileKind, Manifest, RecordFile, RecordHeader, Retired, check_uuid
from stowstore.records.paths import check_link, check_path, check_tree

__all__ = ["FORMAT", "INLINE", "cut", "decode_manifest", "decode_part", "encode_manifest", "encode_part", "with_files"]

FORMAT: Final = 1
#: Files that stand in the manifest itself.
INLINE: Final = 256
#: A part ends at a path whose hash is a multiple of this, or at four times as many files.
_CUT: Final = 96
#: Bytes of a part, unpacked: many times what four cuts of the longest paths take.
_LARGEST_PART: Final = 16 << 20

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
#: A part is named by its digest and by who wrote it, so that no name is ever written twice.
_PART: Final = re.compile(r"[0-9a-f]{64}-[0-9a-f]{8}")


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as it is stored: with its files, or with the names of their parts if it has any."""
    data: dict[str, Any] = {
        "format": FORMAT,
        "uuid": manifest.uuid,
        "generation": manifest.generation,
        "commit": manifest.commit,
        "committed_at_ns": manifest.committed_at_ns,
        "updated_at": manifest.updated_at,
        "header": manifest.header.to_data(),
        "place": manifest.place,
        "model": dict(manifest.model),
        "edges": [list(edge) for edge in manifest.edges],
        "file_count": manifest.file_count,
        "total_bytes": manifest.total_bytes,
        "retired": [list(retired) for retired in manifest.retired],
    }
    if manifest.parts:
        data["parts"] = list(manifest.parts)
    else:
        data["files"] = [_file_data(file) for file in manifest.files]
    return json.dumps(data, separators=(",", ":")).encode()


def decode_manifest(raw: bytes, uuid: str) -> Manifest:
    """Reads a manifest somebody stored; nothing in it is trusted before it was checked.

    Raises:
        RecordDamaged: it is none, or one of another record, or names paths that leave the record.
        RecordFormatTooNew: a newer release wrote it.
    """
    data = _json(raw, uuid)
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise _damaged(uuid, "is no manifest")
    if data["format"] > FORMAT:
        raise RecordFormatTooNew(
            f"the record {uuid} is of format {data['format']}, and this release reads up to {FORMAT}",
            hint="upgrade stowstore",
        )
    try:
        place = data.get("place")
        manifest = Manifest(
            header=RecordHeader.from_data(data["header"]),
            generation=_number(data["generation"]),
            commit=str(data["commit"]),
            committed_at_ns=_number(data["committed_at_ns"]),
            updated_at=str(data.get("updated_at") or ""),
            place=None if place is None else check_path(place),
            model=_mapping(data.get("model") or {}),
            edges=tuple(_edge(item) for item in data.get("edges") or ()),
            files=tuple(_file(item) for item in data.get("files") or ()),
            parts=tuple(_part_name(item) for item in data.get("parts") or ()),
            file_count=_number(data.get("file_count", 0)),
            total_bytes=_number(data.get("total_bytes", 0)),
            retired=tuple(Retired(_key(key), _number(at)) for key, at in data.get("retired") or ()),
        )
        if manifest.uuid != uuid or data.get("uuid") != uuid:
            raise InvalidRecord(f"it is the manifest of {manifest.uuid}")
        check_tree(manifest.files)
    except (InvalidRecord, KeyError, TypeError, ValueError) as error:
        raise _damaged(uuid, f"cannot be trusted: {error}") from error
    return manifest


def cut(files: Sequence[RecordFile]) -> Iterator[Sequence[RecordFile]]:
    """Pieces of a list of files that is sorted by path; a change in one moves no cut of the others."""
    first = 0
    for index, file in enumerate(files, start=1):
        try:
            name = file.path.encode()
        except UnicodeEncodeError:
            name = file.path.encode("utf-8", "surrogateescape")
        if zlib.crc32(name) % _CUT == 0 or index - first >= 4 * _CUT:
            yield files[first:index]
            first = index
    if first < len(files):
        yield files[first:]


def encode_part(files: Sequence[RecordFile]) -> tuple[str, bytes]:
    """A piece as it is stored, and its digest."""
    packed = zlib.compress(json.dumps([_file_data(file) for file in files], separators=(",", ":")).encode(), 6)
    return hashlib.sha256(packed).hexdigest(), packed


def decode_part(packed: bytes, name: str, uuid: str) -> list[RecordFile]:
    """Reads a part.

    Raises:
        RecordDamaged: it is not the one of this name, or no list of files.
    """
    if hashlib.sha256(packed).hexdigest() != name[:64]:
        raise _damaged(uuid, f"has a damaged part {name[:12]}")
    unpacker = zlib.decompressobj()
    try:
        raw = unpacker.decompress(packed, _LARGEST_PART)
        if unpacker.unconsumed_tail or not unpacker.eof:
            raise InvalidRecord("it is larger than a part can be")
        return [_file(item) for item in _json(raw, uuid)]
    except (zlib.error, InvalidRecord, KeyError, TypeError, ValueError) as error:
        raise _damaged(uuid, f"has a part that cannot be trusted: {error}") from error


def with_files(manifest: Manifest, files: Sequence[RecordFile]) -> Manifest:
    """The manifest with the files of its parts.

    Raises:
        RecordDamaged: together they are no directory.
    """
    try:
        check_tree(files)
    except InvalidRecord as error:
        raise _damaged(manifest.uuid, f"cannot be trusted: {error}") from error
    if len(files) != manifest.file_count:
        raise _damaged(manifest.uuid, f"lists {len(files)} of its {manifest.file_count} files")
    return evolve(manifest, files=tuple(files))


def _file_data(file: RecordFile) -> dict[str, Any]:
    try:
        file.path.encode()
        data: dict[str, Any] = {"path": file.path}
    except UnicodeEncodeError:
        data = {"raw": base64.b64encode(file.path.encode("utf-8", "surrogateescape")).decode()}
    if file.kind is FileKind.LINK:
        return {**data, "link": base64.b64encode(file.target.encode("utf-8", "surrogateescape")).decode()}
    if file.kind is FileKind.DIRECTORY:
        return {**data, "directory": True, "mode": file.mode}
    return {**data, "size": file.size, "sha256": file.sha256, "mode": file.mode, "key": file.key}


def _file(data: Any) -> RecordFile:
    if "raw" in data:
        path = base64.b64decode(data["raw"], validate=True).decode("utf-8", "surrogateescape")
    else:
        path = data["path"]
    check_path(path)
    if "link" in data:
        target = base64.b64decode(data["link"], validate=True).decode("utf-8", "surrogateescape")
        return RecordFile(path=path, kind=FileKind.LINK, target=check_link(path, target))
    mode = _number(data["mode"]) & 0o777
    if data.get("directory"):
        return RecordFile(path=path, kind=FileKind.DIRECTORY, mode=mode)
    return RecordFile(
        path=path, size=_number(data["size"]), sha256=_digest(data["sha256"]), mode=mode, key=_key(data["key"])
    )


def _edge(data: Any) -> Edge:
    name, uuid, related, fn = data
    return Edge(str(name), check_uuid(uuid), check_uuid(related), str(fn))


def _key(data: Any) -> str:
    # A manifest may name objects of its own record and shared blobs; the reader checks which.
    return check_path(data)


def _digest(data: Any) -> str:
    if not isinstance(data, str) or not _DIGEST.fullmatch(data):
        raise InvalidRecord(f"{data!r} is no digest")
    return data


def _part_name(data: Any) -> str:
    if not isinstance(data, str) or not _PART.fullmatch(data):
        raise InvalidRecord(f"{data!r} is no name of a part")
    return data


def _number(data: Any) -> int:
    if not isinstance(data, int) or isinstance(data, bool) or data < 0:
        raise InvalidRecord(f"{data!r} is no count")
    return data


def _mapping(data: Any) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise InvalidRecord("the model is no mapping")
    return data


def _json(raw: bytes, uuid: str) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise _damaged(uuid, "is no JSON") from error


def _damaged(uuid: str, what: str) -> RecordDamaged:
    return RecordDamaged(f"the manifest of the record {uuid} {what}", hint="push the record again from a good copy")
