"""Names, sizes and records: what may be written, what it means, and what a damaged file may do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from stowstore.mounts.counters import Counters, read_counters, write_counters
from stowstore.named.errors import BelowUsed, InvalidName, InvalidSize, VolumeCorrupt
from stowstore.named.names import check_name, is_name
from stowstore.named.record import RECORD, BackingKind, VolumeRecord, VolumeType, read_record, write_record
from stowstore.named.sizes import MAX_SIZE, exact_size, format_size, parse_size, resized

VECTORS = json.loads(Path(__file__).with_name("sizes.json").read_text())


def _id(vector: dict[str, Any]) -> str:
    return repr(vector.get("input", vector.get("bytes")))[:40]


@pytest.mark.parametrize("vector", VECTORS["parse"], ids=_id)
def test_a_size_means_its_bytes_or_says_what_is_wrong(vector: dict[str, Any]) -> None:
    """Units are powers of 1024 whatever their spelling, exactly; everything else is refused by its own problem."""
    if "bytes" in vector:
        assert vector["bytes"] == parse_size(vector["input"])
        return
    with pytest.raises(InvalidSize) as caught:
        parse_size(vector["input"])
    assert vector["error"] == caught.value.problem


@pytest.mark.parametrize("vector", VECTORS["format"], ids=_id)
def test_bytes_are_shown_to_a_tenth_in_the_largest_unit(vector: dict[str, Any]) -> None:
    """What would be 1024.0 of a unit is 1.0 of the next."""
    assert vector["expect"] == format_size(vector["bytes"])


@pytest.mark.parametrize("vector", VECTORS["resize"], ids=_id)
def test_a_resize_takes_sizes_and_differences(vector: dict[str, Any]) -> None:
    """Below what is held it is refused, with both numbers."""
    about = {"current": vector["current"], "used": vector["used"]}
    if "error" not in vector:
        assert vector["size"] == resized(vector["input"], **about)
    elif vector["error"] == "below_used":
        with pytest.raises(BelowUsed) as caught:
            resized(vector["input"], **about)
        assert (vector["size"], vector["used"]) == (caught.value.requested, caught.value.used)
        assert str(vector["size"]) in str(caught.value)
        assert str(vector["used"]) in str(caught.value)
    else:
        with pytest.raises(InvalidSize) as refused:
            resized(vector["input"], **about)
        assert vector["error"] == refused.value.problem


@given(st.integers(1, MAX_SIZE))
def test_the_exact_text_of_a_size_reads_back(size: int) -> None:
    """`exact_size` loses nothing."""
    assert size == parse_size(exact_size(size))


@given(st.text(max_size=30))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Whatever is typed is a size in range or `InvalidSize`."""
    try:
        assert 1 <= parse_size(text) <= MAX_SIZE
    except InvalidSize:
        pass


@pytest.mark.parametrize("vector", VECTORS["volume_names"], ids=_id)
def test_a_name_is_letters_digits_dashes_and_a_letter_first(vector: dict[str, Any]) -> None:
    """Volumes that begin with a digit can be read, and no new ones be made."""
    if vector["ok"]:
        assert vector["input"] == check_name(vector["input"])
    else:
        with pytest.raises(InvalidName):
            check_name(vector["input"])
    assert (vector["ok"] or vector.get("upstream_ok", False)) == is_name(vector["input"])


@pytest.mark.parametrize("name", ["../x", "/etc", ".", "..", "a/../b", "a\\b", "x" * 100_000, "a\udcff", "~", "$(id)"])
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    """A name becomes part of a path, so nothing of one may be in it."""
    with pytest.raises(InvalidName):
        check_name(name)


def _record(**changes: Any) -> VolumeRecord:
    made = VolumeRecord(
        name="training",
        type=VolumeType.FILESYSTEM,
        size="1GB",
        size_bytes=1 << 30,
        backing=BackingKind.CHUNKED,
        labels={"team": "ml"},
    )
    return evolve(made, **changes)


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """What is written is read, and nothing else is left in the directory."""
    record = _record(inodes=7, head="file:///r#a@x", parent="b", snapshots=3)
    write_record(tmp_path, record)
    assert record == read_record(tmp_path)
    assert [RECORD] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"name": "training"}',
        b"x" * 70_000,
    ],
    ids=["empty", "cut", "array", "null", "binary", "deep", "incomplete", "large"],
)
def test_what_is_no_record_is_corrupt(tmp_path: Path, raw: bytes) -> None:
    """Damage is an error that names the file; never a guess."""
    (tmp_path / RECORD).write_bytes(raw)
    with pytest.raises(VolumeCorrupt, match=RECORD):
        read_record(tmp_path)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(name=st.sampled_from(sorted(json.loads(_record().encode()))), value=_json)
def test_a_record_with_another_field_is_itself_or_corrupt(name: str, value: object) -> None:
    """A hostile field never raises anything else, and never gets through where it has no right type."""
    data = json.loads(_record().encode())
    data[name] = value
    try:
        found = VolumeRecord.decode(json.dumps(data).encode())
    except VolumeCorrupt:
        return
    assert is_name(found.name)
    assert 0 < found.size_bytes <= MAX_SIZE
    assert json.loads(found.encode()) == data | {"format": 1}


def test_counters_are_read_as_they_were_written(tmp_path: Path) -> None:
    """Counters that are torn, missing or of somebody else are none at all."""
    path = tmp_path / "counters"
    assert read_counters(path) is None
    counters = Counters(used_bytes=1 << 62, inodes=3, limit_bytes=5, is_final=True)
    write_counters(path, counters)
    assert counters == read_counters(path)
    raw = path.read_bytes()
    for damaged in (raw[:-1], raw + b"x", b"\0" * len(raw), raw[:9] + b"\xff" + raw[10:]):
        path.write_bytes(damaged)
        assert read_counters(path) is None
