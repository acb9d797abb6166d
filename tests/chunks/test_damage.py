"""Damaged, exchanged, truncated and missing packs never give wrong bytes, and the error says what is lost."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore.memory import MemoryStore
from datastore.metric_names import Operation
from datastore.wrappers.faulty import FaultyStore, Rule, Truncate
from stowstore.chunks.block import BLOCK_BYTES, BlockRef, CorruptBlock, PackKind
from stowstore.chunks.codec import BlockCodec
from stowstore.chunks.disk_cache import DiskCache
from stowstore.chunks.memory_cache import MemoryCache
from stowstore.chunks.store import ChunkStore
from tests.chunks.chunk_stores import PLAIN, SEALED, chunks, noise, prose, write

BOTH = pytest.mark.parametrize("codec", [PLAIN, SEALED], ids=["plain", "sealed"])

CONTENTS = [noise(3000), prose(9000), noise(300_000), noise(1_200_000), prose(3_000_000)]


def change(store: MemoryStore, opened: ChunkStore, pack: bytes, edit: Callable[[bytes], bytes]) -> None:
    """Rewrites a pack behind everybody's back."""
    reference = opened.pack_reference(PackKind.DATA, pack)
    store.write_bytes(reference, edit(store.read_bytes(reference)))


def outcome(opened: ChunkStore, ref: BlockRef, start: int = 0, length: int | None = None) -> bytes | None:
    """What a read gives: content, or None for an error that names the pack."""
    try:
        return opened.reader.read(ref, start, length)
    except CorruptBlock as error:
        if error.pack == ref.pack and ref.pack.hex() in str(error):
            return None
        raise


@settings(max_examples=60)
@given(
    st.integers(0, 2**32), st.sampled_from([PLAIN, SEALED]), st.sampled_from(["flip", "cut", "zero", "insert", "swap"])
)
def test_no_damage_gives_wrong_bytes(seed: int, codec: BlockCodec, kind: str) -> None:
    """Wherever it is, and whether blocks are read whole or in part."""
    store, random = MemoryStore(), Random(seed)

    def edit(data: bytes) -> bytes:
        at = random.randrange(len(data))
        damaged = bytearray(data)
        match kind:
            case "flip":
                damaged[at] ^= 1 << random.randrange(8)
            case "cut":
                del damaged[at:]
            case "zero":
                damaged[at : at + 5000] = bytes(len(damaged[at : at + 5000]))
            case "insert":
                damaged[at:at] = b"?"
        return bytes(damaged)

    with chunks(store, codec) as opened:
        refs = write(opened, CONTENTS)
        packs = sorted({ref.pack for ref in refs})
        if kind == "swap":
            bodies = [store.read_bytes(opened.pack_reference(PackKind.DATA, pack)) for pack in packs]
            for pack, body in zip(packs, bodies[1:] + bodies[:1], strict=True):
                change(store, opened, pack, lambda _, body=body: body)  # type: ignore[misc]
        else:
            change(store, opened, random.choice(packs), edit)
    with chunks(store, codec) as opened:
        for ref, content in zip(refs, CONTENTS, strict=True):
            start = random.randrange(len(content))
            assert outcome(opened, ref, start, 1000) in (None, content[start : start + 1000])
            assert outcome(opened, ref) in (None, content)
            if kind == "swap":
                assert outcome(opened, ref) is None


@BOTH
@pytest.mark.parametrize("number", range(len(CONTENTS)))
def test_damage_in_one_block_costs_that_block_only(codec: BlockCodec, number: int) -> None:
    """Its neighbours are read as ever; the error names it, and where it lies."""
    store = MemoryStore()
    with chunks(store, codec) as opened:
        refs = write(opened, CONTENTS)
        bad = refs[number]
        middle = bad.offset + bad.stored // 2
        change(store, opened, bad.pack, lambda data: data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    with chunks(store, codec) as opened:
        found = [outcome(opened, ref) for ref in refs]
        assert found == [None if ref == bad else content for ref, content in zip(refs, CONTENTS, strict=True)]
        with pytest.raises(CorruptBlock, match=f"block {bad.name.hex()} of pack {bad.pack.hex()}") as caught:
            opened.reader.read(bad)
        assert bad.name == caught.value.block
        assert opened.reader.stats.damaged >= 1


@BOTH
def test_a_missing_pack_is_named(codec: BlockCodec) -> None:
    """It is loss, not absence: callers who take NotFound for an empty answer must not get one."""
    store = MemoryStore()
    with chunks(store, codec) as opened:
        (ref,) = write(opened, [noise(2_000_000)])
        store.delete(opened.pack_reference(PackKind.DATA, ref.pack))
        for read in (
            lambda: opened.reader.read(ref),
            lambda: opened.reader.read(ref, 70_000, 10),
            lambda: opened.pack_table(PackKind.DATA, ref.pack),
        ):
            with pytest.raises(CorruptBlock, match=f"{ref.pack.hex()} is missing") as caught:
                read()
            assert not isinstance(caught.value, FileNotFoundError)


def test_a_damaged_table_does_not_hide_a_sound_block() -> None:
    """A range is then cut from the whole block, which proves itself by its name."""
    store = MemoryStore()
    with chunks(store) as opened:
        (ref,) = write(opened, [noise(2_000_000)])
        change(store, opened, ref.pack, lambda data: data[:-60] + bytes(60))
        assert noise(2_000_000)[500_000:500_100] == opened.reader.read(ref, 500_000, 100)
        with pytest.raises(CorruptBlock):
            opened.pack_table(PackKind.DATA, ref.pack)


def test_a_range_is_proved_by_its_own_stretches() -> None:
    """Damage in one stretch is seen by the ranges that touch it and no others."""
    store = MemoryStore()
    content = noise(BLOCK_BYTES)
    with chunks(store) as opened:
        (ref,) = write(opened, [content])
        change(store, opened, ref.pack, lambda data: data[:1_000_000] + b"damaged!" + data[1_000_008:])
    with chunks(store) as opened:
        assert content[3_000_000:3_000_100] == outcome(opened, ref, 3_000_000, 100)
        assert outcome(opened, ref, 1_000_100, 100) is None


@BOTH
@pytest.mark.parametrize("size", [3000, 3_000_000])
def test_damage_on_the_way_is_asked_for_again(codec: BlockCodec, size: int) -> None:
    """A second answer that is sound is taken."""
    store = _Garbling(MemoryStore())
    with chunks(store, codec) as opened:
        (ref,) = write(opened, [noise(size)])
        store.times = 1
        assert noise(size) == opened.reader.read(ref)
        assert 0 == opened.reader.stats.damaged


class _Garbling(FaultyStore):
    """A store whose next answers are garbled."""

    times = 0

    def read_raw(self, *arguments: object, **more: object):  # type: ignore[no-untyped-def]
        stream = super().read_raw(*arguments, **more)  # type: ignore[arg-type]
        if self.times:
            self.times -= 1
            stream._data = bytes(stream.size)
        return stream


def test_a_truncated_answer_is_a_temporary_failure() -> None:
    """It is not taken for a truncated pack."""
    store = FaultyStore(MemoryStore(), [Rule(Truncate(after=10), operations={Operation.READ})])
    with chunks(store) as opened:
        (ref,) = write(opened, [noise(3000)])
        with pytest.raises(ConnectionError):
            opened.reader.read(ref)


@BOTH
@pytest.mark.parametrize(
    "edit",
    [
        lambda data: b"",
        lambda data: bytes(len(data)),
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data[: len(data) // 2],
        lambda data: b"?" + data,
    ],
    ids=["emptied", "zeroed", "flipped", "cut", "shifted"],
)
def test_a_damaged_cache_is_fetched_again(codec: BlockCodec, tmp_path: Path, edit: Callable[[bytes], bytes]) -> None:
    """And counted; the entries are sound afterwards."""
    store = MemoryStore()
    first = DiskCache(tmp_path, min_free_ratio=0)
    with chunks(store, codec, disk=first) as opened:
        refs = write(opened, CONTENTS)
        for ref in refs:
            opened.reader.read(ref)
    first.close()
    entries = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "lock"]
    for path in entries:
        path.write_bytes(edit(path.read_bytes()))
    second = DiskCache(tmp_path, min_free_ratio=0)
    with chunks(store, codec, disk=second, memory=MemoryCache(0)) as opened:
        assert CONTENTS == [opened.reader.read(ref) for ref in refs]
        assert second.stats.bad_entries + second.stats.entries >= len(entries)
        assert 0 == opened.reader.stats.damaged
        again = opened.reader.stats.requests
        assert CONTENTS == [opened.reader.read(ref) for ref in refs]
        assert opened.reader.stats.requests <= again + 1
    second.close()


@settings(max_examples=200)
@given(
    st.builds(
        BlockRef,
        st.binary(min_size=16, max_size=16) | st.just(b""),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2 * BLOCK_BYTES),
        st.integers(0, BLOCK_BYTES),
        st.integers(0, 255),
        st.binary(min_size=32, max_size=32),
    ),
    st.integers(0, 5_000_000),
)
def test_a_hostile_reference_is_an_error(ref: BlockRef, start: int) -> None:
    """Whatever it says, about a pack that is there or one that is not."""
    store = MemoryStore()
    with chunks(store) as opened:
        (real,) = write(opened, [b"real"])
        if not ref.pack:
            ref = ref._replace(pack=real.pack)
        for begin, length in ((0, None), (start, 100)):
            if begin < ref.length:
                with pytest.raises(CorruptBlock):
                    opened.reader.read(ref, begin, length)
            else:
                assert b"" == opened.reader.read(ref, begin, length)
        if ref.length:
            opened.reader.prefetch([ref])
