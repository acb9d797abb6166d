"""A pack says itself what it holds, and cannot be made to say anything else."""

import struct

import pytest
from blake3 import blake3
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from stowstore.chunks.block import BlockRef, Codec, CorruptBlock, PackKind
from stowstore.chunks.codec import BlockCodec
from stowstore.chunks.packs import CHECKED_BYTES, MAX_PACK_BLOCKS, PACK_BYTES, PackBuilder, PackTable, new_pack_id
from tests.chunks.chunk_stores import PLAIN, SEALED, noise, prose


def packed(contents: list[bytes], codec: BlockCodec = PLAIN) -> tuple[list[BlockRef], bytes]:
    """A pack of contents."""
    builder = PackBuilder(PackKind.DATA, codec)
    refs = [builder.add(codec.name(content), *codec.compress(content), len(content)) for content in contents]
    return refs, b"".join(builder.seal())


def parse(data: bytes, pack: bytes, kind: PackKind = PackKind.DATA) -> PackTable:
    """The table at the end of a pack."""
    return PackTable.parse(data, len(data), pack, kind)


@given(st.lists(st.integers(1, 300_000), min_size=1, max_size=6), st.sampled_from([PLAIN, SEALED]))
def test_a_pack_lists_what_was_put_in(sizes: list[int], codec: BlockCodec) -> None:
    """Blocks lie where their references say, in order, and the table repeats the references."""
    contents = [(noise if size % 2 else prose)(size, number) for number, size in enumerate(sizes)]
    refs, data = packed(contents, codec)
    assert contents == [codec.decode(ref, data[ref.offset : ref.offset + ref.stored]) for ref in refs]
    table = parse(data, refs[0].pack)
    assert (refs, codec.is_sealed) == ([*table.blocks], table.is_sealed)
    for ref, content in zip(refs, contents, strict=True):
        sums = table.checksums_of(ref)
        if codec.is_sealed or ref.codec != Codec.RAW or len(content) <= CHECKED_BYTES:
            assert sums is None
        else:
            expected = [crc32c(content[at : at + CHECKED_BYTES]) for at in range(0, len(content), CHECKED_BYTES)]
            assert expected == list(sums or ())


def test_the_layout_is_the_documented_one() -> None:
    """Read by nothing but `docs/format.md`."""
    refs, data = packed([noise(100_001), b"small"])
    magic, version, zero, length, digest = struct.unpack(">8sHHI32s", data[-48:])
    assert (b"STOWPACK", 1, 0) == (magic, version, zero)
    assert blake3(data[-48 - length : -32]).digest() == digest
    footer = data[-48 - length : -48]
    assert (refs[0].pack, 0, 0, 0, 2) == struct.unpack(">16sBBHI", footer[:24])
    rows = [struct.unpack(">32sIIIBB", footer[24 + 46 * row : 70 + 46 * row]) for row in range(2)]
    assert (blake3(noise(100_001)).digest(), 0, 100_001, 100_001, 0, 2) == rows[0]
    assert (blake3(b"small").digest(), 100_001, 5, 5, 0, 0) == rows[1]
    assert crc32c(noise(100_001)[65536:]) == struct.unpack(">I", footer[-4:])[0]
    assert noise(100_001) + b"small" == data[: -48 - length]


def test_a_pack_has_room_for_4_mib_or_one_block() -> None:
    """Nor more than so many blocks, which bounds the table."""
    builder = PackBuilder(PackKind.DATA, SEALED)
    assert builder.has_room(bytes(PACK_BYTES))
    builder.add(bytes(32), Codec.RAW, bytes(PACK_BYTES - 100), PACK_BYTES - 100)
    assert builder.has_room(bytes(100 - 56))
    assert not builder.has_room(bytes(100 - 55))
    tiny = PackBuilder(PackKind.DATA, PLAIN)
    for _ in range(MAX_PACK_BLOCKS):
        assert tiny.has_room(b"x")
        tiny.add(bytes(32), Codec.RAW, b"x", 1)
    assert not tiny.has_room(b"x")
    assert MAX_PACK_BLOCKS == len(parse(b"".join(tiny.seal()), tiny.pack).blocks)


def test_every_flipped_byte_of_a_table_is_noticed() -> None:
    """Whatever it belongs to."""
    refs, data = packed([noise(70_000), prose(500)])
    body = refs[-1].offset + refs[-1].stored
    for position in range(body, len(data)):
        bad = bytearray(data)
        bad[position] ^= 0x10
        with pytest.raises(CorruptBlock, match=refs[0].pack.hex()):
            parse(bytes(bad), refs[0].pack)


def test_a_truncated_pack_is_noticed() -> None:
    """Wherever it was cut."""
    refs, data = packed([noise(1000), noise(10)])
    for end in range(0, len(data), 13):
        with pytest.raises(CorruptBlock):
            parse(data[:end], refs[0].pack)
    with pytest.raises(CorruptBlock, match=r"malformed"):
        parse(data[1:], refs[0].pack)


def test_another_pack_in_its_place_is_noticed() -> None:
    """A pack names itself, and its kind."""
    refs, data = packed([b"one"])
    with pytest.raises(CorruptBlock, match=f"data pack {refs[0].pack.hex()}"):
        parse(data, new_pack_id())
    with pytest.raises(CorruptBlock, match="data pack"):
        parse(data, refs[0].pack, PackKind.INDEX)


def test_a_newer_format_is_refused_in_words() -> None:
    """It is not taken for damage."""
    refs, data = packed([b"one"])
    newer = data[:-40] + struct.pack(">H", 2) + data[-38:]
    with pytest.raises(CorruptBlock, match=r"format 2, this release reads 1 \(use a newer release\)"):
        parse(newer, refs[0].pack)


ROW = 24


@pytest.mark.parametrize(
    ("at", "layout", "value"),
    [
        (20, ">I", 0),
        (20, ">I", 3),
        (20, ">I", 0xFFFFFFFF),
        (17, ">B", 2),
        (ROW + 32, ">I", 1),
        (ROW + 36, ">I", 0xFFFFFFFF),
        (ROW + 40, ">I", 0),
        (ROW + 40, ">I", 0xFFFFFFFF),
        (ROW + 45, ">B", 0),
        (ROW + 45, ">B", 255),
        (ROW + 46 + 32, ">I", 0),
    ],
)
def test_a_forged_table_is_malformed(at: int, layout: str, value: int) -> None:
    """A digest that fits does not make impossible rows possible."""
    refs, data = packed([noise(70_000), b"small"])
    length = struct.unpack(">I", data[-36:-32])[0]
    forged = bytearray(data)
    struct.pack_into(layout, forged, len(data) - 48 - length + at, value)
    forged[-32:] = blake3(forged[-48 - length : -32]).digest()
    with pytest.raises(CorruptBlock, match="malformed"):
        parse(bytes(forged), refs[0].pack)


def test_a_table_knows_only_its_own_blocks() -> None:
    """A reference that differs in anything is not answered."""
    refs, data = packed([noise(70_000), b"small"])
    table = parse(data, refs[0].pack)
    for change in ({"offset": 1}, {"offset": 1 << 30}, {"name": bytes(32)}, {"length": 69_999}, {"codec": 1}):
        with pytest.raises(CorruptBlock, match="does not hold"):
            table.checksums_of(refs[0]._replace(**change))


def test_pack_ids_are_unique_and_begin_with_the_time() -> None:
    """They sort by the millisecond they were made in."""
    ids = [new_pack_id() for _ in range(1000)]
    assert 1000 == len(set(ids))
    assert [found[:6] for found in ids] == sorted(found[:6] for found in ids)
