"""A reader of roots of format version 1, written from ``docs/format.md`` alone.

It imports nothing of the project, only libraries for msgpack, zstd, BLAKE3, CRC-32C and AES: what it can read proves
that the document says enough.  It is simple rather than fast, holds whole versions in memory, and proves every byte.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import stat
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import google_crc32c
import msgspec
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

__all__ = ["BlockReference", "Damaged", "Inode", "NewerFormat", "Reader", "Version"]

_BLOCK_BYTES = 4 << 20
_STRETCH = 65_536
_REFERENCE = struct.Struct(">16sIIIB32s")
_EXTENT = struct.Struct(">QII61s")
_FOOTER = struct.Struct(">16sBBHI")
_ROW = struct.Struct(">32sIIIBB")
_TRAILER = struct.Struct(">8sHHI32s")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


class Damaged(Exception):
    """Something is not what the document says."""


class NewerFormat(Exception):
    """A newer release wrote it."""


class BlockReference(NamedTuple):
    pack: bytes
    offset: int
    stored: int
    length: int
    codec: int
    name: bytes


class Extent(NamedTuple):
    offset: int
    length: int
    start: int
    block: BlockReference


class Inode(NamedTuple):
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    birth_ns: int
    rdev: int
    parent: int
    target: bytes
    extents: bytes
    many_extents: bool
    xattrs: bool
    allocated: int


class Version(NamedTuple):
    """A manifest, and the map that its snapshot is."""

    manifest: Mapping[str, Any]
    records: Mapping[bytes, bytes]


class Reader:
    """Reads a root; ``get`` gives the content of an object by its name below the root."""

    def __init__(self, get: Callable[[str], bytes], *, key: bytes | None = None, passphrase: str | None = None) -> None:
        self._get = get
        self._tables: dict[tuple[int, bytes], dict[BlockReference, tuple[int, ...]]] = {}
        self._packs: dict[tuple[int, bytes], bytes] = {}
        self._blocks: dict[tuple[int, BlockReference], bytes] = {}
        self._naming: bytes | None = None
        self._sealing: AESGCM | None = None
        form = _json(get("format.json"))
        _require(form.get("format") == "stowstore-volumes", "format.json is of something else")
        _refuse(form["version"], 1)
        if form["hash"] != "blake3" or form["compression"] not in ("zstd", "none"):
            raise NewerFormat(f"hash {form['hash']}, compression {form['compression']}")
        if form["encryption"] is not None:
            self._unlock(form["encryption"], key, passphrase)

    # -- names ---------------------------------------------------------------------------------------------------------

    def head(self, volume: str) -> Version:
        return self._referred(f"refs/{_name(volume)}/head")

    def tag(self, volume: str, tag: str) -> Version:
        return self._referred(f"refs/{_name(volume)}/tags/{_name(tag)}")

    def locator(self, text: str) -> Version:
        """The version a locator names; its root is the one that is read."""
        volume, _, rest = text.rpartition("#")[2].partition("@")
        identity, _, digest = rest.partition(":")
        return self.version(volume, identity, digest)

    def version(self, volume: str, identity: str, digest: str | None = None) -> Version:
        """A version; its records are read and proved."""
        _require(bool(_ULID.fullmatch(identity)), f"{identity} is no version")
        raw = self._get(f"versions/{_name(volume)}/{identity}")
        _require(digest is None or hashlib.sha256(raw).hexdigest() == digest, "the manifest has another digest")
        manifest = _json(raw)
        _refuse(manifest["format"], 1)
        canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        _require(raw == canonical.encode(), "the manifest is not written as it should be")
        _require((manifest["volume"], manifest["id"]) == (volume, identity), "the manifest is of another version")
        return Version(manifest, self._snapshot(manifest["snapshot"]))

    def parents(self, version: Version) -> list[Version]:
        return [self.version(one["volume"], one["id"], one["digest"]) for one in version.manifest["parents"]]

    def lease(self, volume: str) -> dict[str, Any]:
        """Who writes a volume."""
        found = _json(self._get(f"leases/{_name(volume)}"))
        _require(
            {"token", "holder", "host", "pid", "process", "base", "started", "expires"} == set(found), "a lease differs"
        )
        return found

    # -- files ---------------------------------------------------------------------------------------------------------

    def walk(self, version: Version) -> Iterator[tuple[bytes, int, Inode]]:
        """Every path from ``/`` on with its inode, directories before what lies in them."""
        entries: dict[int, list[tuple[bytes, int, int]]] = {}
        for key, value in version.records.items():
            if key[:1] == b"d":
                ino, kind = _array(value, 2)
                name = key[9:]
                _require(0 < len(name) <= 255 and b"/" not in name and b"\0" not in name, "a name is none")
                _require(name not in (b".", b".."), "a name is none")
                entries.setdefault(_number(key[1:9]), []).append((name, ino, kind))
        waiting: list[tuple[bytes, int, int]] = [(b"/", 1, 1)]
        seen = set()
        while waiting:
            path, ino, above = waiting.pop()
            node = self.inode(version, ino)
            yield path, ino, node
            if not stat.S_ISDIR(node.mode):
                continue
            _require(ino not in seen and node.parent == above, "a directory has two places")
            seen.add(ino)
            inside = sorted(entries.pop(ino, ()), reverse=True)
            _require(node.nlink == 2 + sum(stat.S_ISDIR(kind) for _, _, kind in inside), "a directory counts wrong")
            for name, child, kind in inside:
                _require(stat.S_IFMT(self.inode(version, child).mode) == kind, "an entry has another type")
                waiting.append((path.rstrip(b"/") + b"/" + name, child, ino))
        _require(not entries, "entries of no directory")

    def inode(self, version: Version, ino: int) -> Inode:
        raw = version.records.get(b"i" + ino.to_bytes(8, "big"))
        if raw is None:
            raise Damaged(f"inode {ino} is not there")
        return Inode(*_array(raw, len(Inode._fields)))

    def superblock(self, version: Version) -> tuple[int, int, int, int, int]:
        """Next inode, bytes, inodes, and the limits of both."""
        first, used, count, limit_bytes, limit_inodes = _array(version.records[b"s"], 5)
        return first, used, count, limit_bytes, limit_inodes

    def xattrs(self, version: Version, ino: int) -> dict[bytes, bytes]:
        prefix = b"x" + ino.to_bytes(8, "big")
        return {key[9:]: value for key, value in version.records.items() if key.startswith(prefix)}

    def extents(self, version: Version, ino: int) -> list[Extent]:
        """Where the content of a file lies, ascending."""
        node = self.inode(version, ino)
        if not node.many_extents:
            found = _extents(node.extents)
            _require(len(found) <= 4, "an inode record has more extents than it may")
            return found
        _require(not node.extents, "extents in two places")
        found = []
        prefix = b"e" + ino.to_bytes(8, "big")
        for key in sorted(key for key in version.records if key.startswith(prefix)):
            window = _number(key[9:])
            part = _extents(version.records[key])
            _require(window % _BLOCK_BYTES == 0 and bool(part), "a window is none")
            _require(
                all(window <= one.offset and one.offset + one.length <= window + _BLOCK_BYTES for one in part),
                "an extent leaves its window",
            )
            found += part
        return found

    def read(self, version: Version, ino: int, offset: int, size: int) -> bytes:
        """A range of a file, as much of it as there is."""
        end = min(offset + size, self.inode(version, ino).size)
        content = bytearray(max(end - offset, 0))
        for extent in self.extents(version, ino):
            first, last = max(extent.offset, offset), min(extent.offset + extent.length, end)
            if first < last:
                block = self.block(0, extent.block)
                begin = extent.start + first - extent.offset
                content[first - offset : last - offset] = block[begin : begin + last - first]
        return bytes(content)

    # -- blocks --------------------------------------------------------------------------------------------------------

    def block(self, kind: int, reference: BlockReference) -> bytes:
        """The content of a block, proved by its name and held against the table of its pack."""
        known = self._blocks.get((kind, reference))
        if known is not None:
            return known
        _require(1 <= reference.length <= _BLOCK_BYTES, "a block has an impossible length")
        sums = self.table(kind, reference.pack).get(reference)
        _require(sums is not None, "the pack's table says something else of a block")
        stored = self._packs[kind, reference.pack][reference.offset : reference.offset + reference.stored]
        for number, checksum in enumerate(sums or ()):
            stretch = stored[number * _STRETCH : (number + 1) * _STRETCH]
            _require(google_crc32c.value(stretch) == checksum, "a checksum differs")
        if self._sealing is not None:
            try:
                stored = self._sealing.decrypt(stored[:12], stored[12:], reference.name + reference.pack)
            except InvalidTag as error:
                raise Damaged("a seal does not open") from error
        if reference.codec == 1:
            decompressor = zstandard.ZstdDecompressor().decompressobj()
            try:
                stated = zstandard.get_frame_parameters(stored).content_size
                _require(stated == reference.length, "a frame states another length")
                content = decompressor.decompress(stored)
            except zstandard.ZstdError as error:
                raise Damaged("a frame cannot be decompressed") from error
            _require(not decompressor.unused_data, "something lies behind a frame")
        else:
            _require(reference.codec == 0, f"codec {reference.codec} is unknown")
            content = stored
        _require(len(content) == reference.length, "a block has another length")
        _require(self._name(content) == reference.name, "a block has another name")
        self._blocks[kind, reference] = content
        return content

    def _name(self, content: bytes) -> bytes:
        return (blake3(content, key=self._naming) if self._naming else blake3(content)).digest()

    def _check_filter(self, bits: bytes, keys: list[bytes]) -> None:
        """A segment's filter is the one of its keys, bit for bit."""
        expected = [False] * (8 * len(bits))
        for key in keys:
            for number in struct.unpack(">4I", self._name(key)[:16]):
                expected[number % len(expected)] = True
        _require(len(bits) == (3 * len(keys) + 1) // 2, "a filter has another length")
        _require(
            [bool(bits[bit // 8] >> (bit % 8) & 1) for bit in range(8 * len(bits))] == expected, "a filter differs"
        )

    def table(self, kind: int, pack: bytes) -> dict[BlockReference, tuple[int, ...]]:
        """The blocks of a pack and their checksums."""
        known = self._tables.get((kind, pack))
        if known is not None:
            return known
        name = pack.hex()
        raw = self._packs[kind, pack] = self._get(f"{('packs', 'index')[kind]}/{name[-2:]}/{name}")
        magic, version, zero, length, digest = _TRAILER.unpack(raw[-48:])
        _require((magic, zero) == (b"STOWPACK", 0), "a pack has another trailer")
        _refuse(version, 1)
        footer = raw[-48 - length : -48]
        _require(blake3(footer + raw[-48:-32]).digest() == digest, "the digest of a footer differs")
        its_id, its_kind, sealed, zero, count = _FOOTER.unpack_from(footer)
        _require((its_id, its_kind, zero) == (pack, kind, 0), "a pack is another one")
        _require(bool(sealed) == (self._sealing is not None), "a pack is sealed, or is not")
        _require(1 <= count <= 16_384, "a pack has too many blocks, or none")
        found: dict[BlockReference, tuple[int, ...]] = {}
        at, end = 24 + 46 * count, 0
        for number in range(count):
            block, offset, stored, size, codec, sums = _ROW.unpack_from(footer, 24 + 46 * number)
            _require(offset == end, "rows leave a gap")
            end += stored
            checked = not sealed and codec == 0 and stored > _STRETCH
            _require(sums == (-(-stored // _STRETCH) if checked else 0), "a row has another number of checksums")
            reference = BlockReference(pack, offset, stored, size, codec, block)
            found[reference] = struct.unpack_from(f">{sums}I", footer, at)
            at += 4 * sums
        _require((at, end) == (len(footer), len(raw) - 48 - length), "a footer has another length")
        self._tables[kind, pack] = found
        return found

    def _unlock(self, said: Mapping[str, Any], key: bytes | None, passphrase: str | None) -> None:
        _require((said["cipher"], said["derivation"]) == ("AES-256-GCM", "HKDF-SHA256"), "another cipher")
        derived = said["passphrase"]
        if derived is not None:
            n, r, p = derived["n"], derived["r"], derived["p"]
            _require(derived["kdf"] == "scrypt" and n & (n - 1) == 0 and 1 << 14 <= n <= 1 << 20, "another derivation")
            _require(1 <= r <= 16 and 1 <= p <= 16, "impossible parameters")
            stretching = bytes.fromhex(derived["salt"])
            key = hashlib.scrypt((passphrase or "").encode(), salt=stretching, n=n, r=r, p=p, maxmem=1 << 30, dklen=32)
        _require(key is not None and len(key) == 32, "a key of 32 bytes is needed")
        assert key is not None
        salt = bytes.fromhex(said["salt"])

        def subkey(use: str, length: int) -> bytes:
            return HKDF(SHA256(), length, salt, f"stowstore volume 1 {use}".encode()).derive(key)

        _require(subkey("check", 16).hex() == said["check"], "the key or passphrase is wrong")
        self._naming, self._sealing = subkey("naming", 32), AESGCM(subkey("sealing", 32))

    # -- the index -----------------------------------------------------------------------------------------------------

    def _referred(self, name: str) -> Version:
        said = _json(self._get(name))
        return self.version(said["volume"], said["id"], said["digest"])

    def _snapshot(self, said: Mapping[str, Any]) -> dict[bytes, bytes]:
        records: dict[bytes, bytes] = {}
        if said["root"] is not None:
            records.update(self._node(_reference(bytes.fromhex(said["root"])), said["depth"]))
            _require(list(records) == sorted(records), "keys of a tree do not ascend")
        for delta in said["deltas"]:
            pairs = []
            for block in delta["blocks"]:
                pairs += msgspec.msgpack.decode(self.block(1, _reference(bytes.fromhex(block))))
            keys = [key for key, _ in pairs]
            _require(keys == sorted(set(keys)) and len(keys) == delta["records"], "a segment is not what it should be")
            if "filter" in delta:
                self._check_filter(base64.b64decode(delta["filter"], validate=True), keys)
            for key, value in pairs:
                if value is None:
                    records.pop(key, None)
                else:
                    records[key] = value
        return records

    def _node(self, reference: BlockReference, expected: int) -> Iterator[tuple[bytes, bytes]]:
        form, level, keys, values = _array(self.block(1, reference), 4, form=1)
        _require(form == 1 and level == expected and 0 <= level <= 12, "a node has another level")
        _require(bool(keys) and keys == sorted(set(keys)) and len(keys) == len(values), "a node's keys do not ascend")
        for key, value in zip(keys, values, strict=True):
            if level:
                yield from self._node(_reference(value), level - 1)
            else:
                yield key, value


def _reference(raw: bytes) -> BlockReference:
    return BlockReference(*_REFERENCE.unpack(raw))


def _extents(raw: bytes) -> list[Extent]:
    found = [
        Extent(offset, length, start, _reference(block)) for offset, length, start, block in _EXTENT.iter_unpack(raw)
    ]
    end = 0
    for extent in found:
        _require(extent.offset >= end and 1 <= extent.length <= _BLOCK_BYTES, "extents overlap")
        end = extent.offset + extent.length
        _require(extent.offset // _BLOCK_BYTES == (end - 1) // _BLOCK_BYTES, "an extent leaves its window")
        _require(extent.start + extent.length <= extent.block.length, "an extent ends behind its block")
    return found


def _array(raw: bytes, length: int, *, form: int | None = None) -> list[Any]:
    found = msgspec.msgpack.decode(raw)
    _require(isinstance(found, list), "a record is no array")
    if form is not None:
        _refuse(found[0], form)
    _require(len(found) == length, "a record has another number of items")
    return list(found)


def _number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def _json(raw: bytes) -> dict[str, Any]:
    found = json.loads(raw)
    _require(isinstance(found, dict), "JSON is no object")
    return dict(found)


def _name(name: str) -> str:
    _require(bool(_NAME.fullmatch(name)), f"{name} is no name")
    return name


def _refuse(version: int, known: int) -> None:
    if version > known:
        raise NewerFormat(f"format {version} is newer than {known}")
    _require(version == known, f"format {version} is none")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Damaged(otherwise)
