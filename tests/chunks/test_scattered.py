"""Content in pieces: the same as in one, wherever it is looked at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore.memory import MemoryStore
from stowstore.chunks.block import BLOCK_BYTES, Codec
from stowstore.chunks.codec import BlockCodec
from stowstore.chunks.packs import CHECKED_BYTES, PackBuilder, PackKind, PackTable
from stowstore.chunks.scattered import Scattered, gathered
from tests.chunks.chunk_stores import PLAIN, SEALED, chunks, noise, prose

PIECES = st.lists(st.binary(max_size=50), min_size=1, max_size=10)


@given(parts=PIECES, start=st.integers(-20, 600), stop=st.integers(-20, 600))
def test_slices(parts: list[bytes], start: int, stop: int) -> None:
    """Any slice is that of the bytes, as is the length."""
    found = Scattered(parts)
    assert (len(found), found.joined()) == (len(b"".join(parts)), b"".join(parts))
    assert found[start:stop] == b"".join(parts)[start:stop]


@given(parts=PIECES, size=st.integers(1, 70))
def test_stretches(parts: list[bytes], size: int) -> None:
    """They are those of the bytes, however pieces and stretches lie to each other."""
    whole = b"".join(parts)
    found = [bytes(stretch) for stretch in Scattered(parts).stretches(size)]
    assert found == [whole[at : at + size] for at in range(0, len(whole), size)]


def test_small_pieces_are_joined() -> None:
    """Whoever takes pieces takes few of them; one alone stays what it is."""
    large = noise(100_000)
    assert gathered([large]) is large
    assert isinstance(gathered([large, large]), Scattered)
    assert gathered([large, *[b"x"] * 100]) == large + b"x" * 100


@pytest.mark.parametrize("content", [noise(BLOCK_BYTES - 5), prose(BLOCK_BYTES - 5)], ids=["noise", "prose"])
@pytest.mark.parametrize("codec", [PLAIN, SEALED], ids=["plain", "sealed"])
@pytest.mark.parametrize("cut", [CHECKED_BYTES, 1_000_001])
def test_a_block_in_pieces_is_the_block(content: bytes, codec: BlockCodec, cut: int) -> None:
    """It has the same name, codec and checksums, and is found by whoever writes or reads it in one piece."""
    parts = Scattered([content[at : at + cut] for at in range(0, len(content), cut)])
    assert codec.name(parts) == codec.name(content)
    with chunks(MemoryStore(), codec) as opened:
        writer = opened.writer()
        scattered, whole = writer.add(parts), writer.add(content)
        writer.flush()
        assert scattered.ref == whole.ref
        assert opened.reader.read(scattered.ref) == content
        assert (
            opened.reader.read(scattered.ref, CHECKED_BYTES - 3, 2 * CHECKED_BYTES)
            == (content[CHECKED_BYTES - 3 : 3 * CHECKED_BYTES - 3])
        )


def test_a_pack_of_large_pieces_copies_none() -> None:
    """What is sent are the very pieces that were added, and the table."""
    builder = PackBuilder(PackKind.DATA, PLAIN)
    parts = [noise(1 << 20, number) for number in range(4)]
    builder.add(PLAIN.name(Scattered(parts)), Codec.RAW, Scattered(parts), BLOCK_BYTES)
    *sent, table = builder.seal()
    assert all(left is right for left, right in zip(sent, parts, strict=True))
    found = PackTable.parse(table, BLOCK_BYTES + len(table), builder.pack, PackKind.DATA)
    assert len(found.checksums[0]) == BLOCK_BYTES // CHECKED_BYTES
