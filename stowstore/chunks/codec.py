"""The codec: how the bytes of a block are named, compressed, sealed and, read back, proved."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

import zstandard
from blake3 import blake3

from stowstore.chunks.block import BlockRef, Codec, CorruptBlock
from stowstore.chunks.encryption import RootKeys
from stowstore.chunks.scattered import Content, Scattered

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["SEAL_BYTES", "BlockCodec", "Buffer", "corrupt"]

Buffer = bytes | memoryview

#: What a seal adds to a block: the nonce before it and the tag behind.
SEAL_BYTES: Final = 28

_NONCE_BYTES = 12

#: Blocks above this are compressed only if a sample of this size says it pays.
_PROBE_BYTES = 64 << 10

#: The sample is taken in so many places: the head of a file is seldom like the rest.
_PROBES = 4


class BlockCodec:
    """Turns content into stored bytes and back, by the settings of one root; thread-safe.

    ``keys`` None leaves blocks unsealed.  ``compression_level`` is zstd's, 0 for none; it may differ from writer to
    writer.
    """

    def __init__(self, keys: RootKeys | None = None, *, compression_level: int = 1) -> None:
        if not 0 <= compression_level <= 19:
            raise ValueError(f"a compression level is between 0 and 19, not {compression_level}")
        self._level = compression_level
        self._naming = None if keys is None else keys.naming
        self._seal: AESGCM | None = None
        if keys is not None:
            # Few roots are encrypted, and the library takes as long to load as many a mount.
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            self._seal = AESGCM(keys.sealing)
        self._local = _Contexts(compression_level)
        #: Bytes by which a stored block is longer than its encoded content.
        self.overhead = 0 if keys is None else SEAL_BYTES

    @property
    def is_sealed(self) -> bool:
        """Whether blocks are encrypted."""
        return self._seal is not None

    def name(self, content: Buffer | Scattered) -> bytes:
        """The 32 bytes that name a content: BLAKE3, keyed in an encrypted root."""
        # One thread: its own threads cost blocks of this size more than they bring.
        if isinstance(content, Scattered):
            hasher = blake3() if self._naming is None else blake3(key=self._naming)
            for part in content.parts:
                hasher.update(part)
            return hasher.digest()
        return (blake3(content) if self._naming is None else blake3(content, key=self._naming)).digest()

    def compress(self, content: Content) -> tuple[Codec, Content]:
        """The content in the form that is stored, before sealing: compressed if that saves a sixteenth."""
        size = len(content)
        if not self._level or (size > 2 * _PROBE_BYTES and not self._pays(content)):
            return Codec.RAW, content
        packed = self._local.compressor.compress(content.joined() if isinstance(content, Scattered) else content)
        return (Codec.ZSTD, packed) if len(packed) <= size - (size >> 4) - 1 else (Codec.RAW, content)

    def seal(self, body: bytes, name: bytes, pack: bytes) -> bytes:
        """The stored form of a block in a pack, bound to its name and to the pack; in a plain root the body itself."""
        if self._seal is None:
            return body
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._seal.encrypt(nonce, body, name + pack)

    def decode(self, ref: BlockRef, stored: Buffer) -> bytes:
        """The content of a block, proved by its name; memory is bounded by the length in the reference.

        Raises:
            CorruptBlock: it is anything else.
        """
        if len(stored) != ref.stored:
            raise corrupt(ref, f"{len(stored)} bytes of {ref.stored} are there")
        body: Buffer = stored
        if self._seal is not None:
            body = self._open(ref, memoryview(stored))
        if ref.codec == Codec.ZSTD:
            body = self._decompress(ref, body)
        elif ref.codec != Codec.RAW:
            raise corrupt(ref, f"it has the unknown codec {ref.codec}", hint="use a newer release")
        if len(body) != ref.length:
            raise corrupt(ref, f"it holds {len(body)} bytes, not {ref.length}")
        if self.name(body) != ref.name:
            raise corrupt(ref, "its content is not what it is named for")
        return body if body.__class__ is bytes else bytes(body)

    def _open(self, ref: BlockRef, stored: memoryview) -> bytes:
        from cryptography.exceptions import InvalidTag

        assert self._seal is not None
        if len(stored) < SEAL_BYTES:
            raise corrupt(ref, "it is shorter than a seal")
        try:
            return self._seal.decrypt(bytes(stored[:_NONCE_BYTES]), stored[_NONCE_BYTES:], ref.name + ref.pack)
        except InvalidTag:
            raise corrupt(ref, "its seal is broken") from None

    def _decompress(self, ref: BlockRef, body: Buffer) -> bytes:
        try:
            # The frame's own word decides how much memory is taken, so it is checked first.
            if zstandard.get_frame_parameters(body).content_size != ref.length:
                raise corrupt(ref, "it would decompress to another length")
            return self._local.decompressor.decompress(body, max_output_size=ref.length, allow_extra_data=False)
        except zstandard.ZstdError as error:
            raise corrupt(ref, "it cannot be decompressed") from error

    def _pays(self, content: Content) -> bool:
        size = _PROBE_BYTES // _PROBES
        stride = (len(content) - size) // (_PROBES - 1)
        sample = b"".join(content[place * stride : place * stride + size] for place in range(_PROBES))
        return len(self._local.compressor.compress(sample)) < _PROBE_BYTES - (_PROBE_BYTES >> 4)


def corrupt(ref: BlockRef, what: str, *, hint: str | None = None) -> CorruptBlock:
    """The error that names a damaged block and its pack."""
    return CorruptBlock(
        f"block {ref.name.hex()} of pack {ref.pack.hex()} is damaged: {what}", pack=ref.pack, block=ref.name, hint=hint
    )


class _Contexts(threading.local):
    """zstd's working memory, which threads cannot share."""

    def __init__(self, level: int) -> None:
        self.compressor = zstandard.ZstdCompressor(level=level or 1)
        self.decompressor = zstandard.ZstdDecompressor()
