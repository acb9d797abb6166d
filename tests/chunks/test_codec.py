"""A block is stored in the fewest bytes that pay, and what comes back is what went in or an error."""

import os

import pytest
import zstandard
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from stowstore.chunks.block import BLOCK_BYTES, BLOCK_REF_BYTES, BlockRef, Codec, CorruptBlock
from stowstore.chunks.codec import SEAL_BYTES, BlockCodec
from stowstore.chunks.packs import new_pack_id
from tests.chunks.chunk_stores import PLAIN, SEALED, noise, prose

PACK = new_pack_id()
BOTH = pytest.mark.parametrize("codec", [PLAIN, SEALED], ids=["plain", "sealed"])


def stored(codec: BlockCodec, content: bytes) -> tuple[BlockRef, bytes]:
    """A block as it lies in a pack."""
    name = codec.name(content)
    form, body = codec.compress(content)
    sealed = codec.seal(body, name, PACK)
    return BlockRef(PACK, 0, len(sealed), len(content), form, name), sealed


@given(st.one_of(st.binary(min_size=1, max_size=5000), st.builds(prose, st.integers(1, 300_000))))
@BOTH
def test_any_content_comes_back(codec: BlockCodec, content: bytes) -> None:
    """Encoding and decoding are inverse."""
    ref, data = stored(codec, content)
    assert content == codec.decode(ref, data) == codec.decode(ref, memoryview(data))
    assert ref == BlockRef.unpack(ref.pack_bytes())


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (noise(4096), Codec.RAW),
        (noise(BLOCK_BYTES), Codec.RAW),
        (prose(4096), Codec.ZSTD),
        (prose(BLOCK_BYTES), Codec.ZSTD),
        (prose(100_000) + noise(4 << 20)[100_000:], Codec.RAW),
        (noise(100_000) + prose(BLOCK_BYTES - 100_000), Codec.ZSTD),
        (b"x", Codec.RAW),
    ],
    ids=["noise", "much noise", "prose", "much prose", "a head of prose", "a head of noise", "one byte"],
)
def test_compression_is_used_where_it_pays(content: bytes, form: Codec) -> None:
    """The head of a block does not decide for the rest of it."""
    found, body = PLAIN.compress(content)
    assert form is found
    assert len(body) <= len(content)


def test_level_0_stores_everything_as_it_is() -> None:
    """What was compressed before is still read."""
    ref, data = stored(BlockCodec(compression_level=0), prose(9999))
    assert (Codec.RAW, prose(9999)) == (ref.codec, data)
    assert prose(9999) == BlockCodec(compression_level=0).decode(*stored(PLAIN, prose(9999)))
    with pytest.raises(ValueError, match="level"):
        BlockCodec(compression_level=42)


def test_names_are_blake3_keyed_where_the_root_is_encrypted() -> None:
    """Nobody without the key can tell whether a known file is in an encrypted root."""
    assert blake3(b"abc").digest() == PLAIN.name(b"abc")
    assert blake3(b"abc", key=b"n" * 32).digest() == SEALED.name(b"abc")


def test_a_seal_hides_the_content_and_never_repeats() -> None:
    """Equal blocks have different nonces."""
    ref, one = stored(SEALED, b"attack at dawn, attack at dawn")
    _, other = stored(SEALED, b"attack at dawn, attack at dawn")
    assert one != other
    assert b"dawn" not in one
    assert SEAL_BYTES + 30 == ref.stored


def test_a_seal_is_bound_to_its_pack_and_name() -> None:
    """A sealed block moved elsewhere is not accepted there."""
    ref, data = stored(SEALED, noise(1000))
    for moved in (ref._replace(pack=new_pack_id()), ref._replace(name=bytes(32))):
        with pytest.raises(CorruptBlock, match="seal is broken"):
            SEALED.decode(moved, data)


@BOTH
@pytest.mark.parametrize("content", [noise(777), prose(7777)], ids=["raw", "zstd"])
def test_every_flipped_byte_is_noticed(codec: BlockCodec, content: bytes) -> None:
    """The error names the pack and the block."""
    ref, data = stored(codec, content)
    for position in range(0, len(data), 7):
        bad = bytearray(data)
        bad[position] ^= 1 << position % 8
        with pytest.raises(CorruptBlock, match=f"{ref.name.hex()} of pack {PACK.hex()}") as caught:
            codec.decode(ref, bytes(bad))
        assert (PACK, ref.name) == (caught.value.pack, caught.value.block)


@BOTH
def test_missing_and_surplus_bytes_are_noticed(codec: BlockCodec) -> None:
    """Whatever the length, also when the reference agrees with it."""
    ref, data = stored(codec, prose(5000))
    for bad in (b"", data[:-1], data[:10], data + b"x"):
        with pytest.raises(CorruptBlock):
            codec.decode(ref, bad)
        with pytest.raises(CorruptBlock):
            codec.decode(ref._replace(stored=len(bad)), bad)


def test_a_decompression_bomb_takes_no_memory() -> None:
    """A frame that announces another length than the reference is refused unread, and one that lies is cut short."""
    ref, _ = stored(PLAIN, prose(5000))
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 30))
    with pytest.raises(CorruptBlock, match="another length"):
        PLAIN.decode(ref._replace(stored=len(bomb)), bomb)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 26))
    with pytest.raises(CorruptBlock, match="another length"):
        PLAIN.decode(ref._replace(stored=len(unsized)), unsized)


@given(st.binary(max_size=300))
def test_junk_is_never_a_block(junk: bytes) -> None:
    """Nothing but the right error comes out of bytes that were never encoded."""
    for codec in (PLAIN, SEALED):
        for form in (Codec.RAW, Codec.ZSTD, 2, 255):
            with pytest.raises(CorruptBlock):
                codec.decode(BlockRef(PACK, 0, len(junk), 100, form, bytes(32)), junk)


def test_two_blocks_in_one_frame_are_refused() -> None:
    """Bytes behind the frame are not ignored."""
    ref, data = stored(PLAIN, prose(5000))
    with pytest.raises(CorruptBlock):
        PLAIN.decode(ref._replace(stored=2 * len(data)), data + data)


@pytest.mark.parametrize(
    "raw",
    [b"", os.urandom(BLOCK_REF_BYTES - 1), bytes(BLOCK_REF_BYTES + 1), b"\xff" * 61],
    ids=["empty", "short", "long", "ones"],
)
def test_references_of_impossible_blocks_are_refused(raw: bytes) -> None:
    """A reference has 61 bytes and names no block larger than blocks are."""
    with pytest.raises(CorruptBlock):
        BlockRef.unpack(raw)
