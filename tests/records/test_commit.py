"""Bringing records into a store, and out of it again."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from datastore import DataReference, MemoryStore
from datastore.errors import AlreadyExists, TransientError
from datastore.metric_names import Operation
from datastore.model import Capabilities, Feature, Metadata, WriteOptions
from datastore.protocol import Reference
from datastore.source import Source, SourceLike
from datastore.wrappers.base import StoreWrapper, as_reference
from datastore.wrappers.faulty import BreakStream, FaultyStore, Raise, Rule, When
from stowstore.records import Placement, RecordDirectory, RecordStore, TransferState, fetch
from stowstore.records.errors import FileChanged, InvalidRecord, NoSuchRecord, RecordCollision, RecordDamaged
from stowstore.records.scanning import DigestCache
from tests.records.places import BASE, cache, fill, make, records, tree

FILES: dict[str, bytes | str] = {
    "result.json": b"{}",
    "empty": b"",
    ".test": b"dot",
    "test/.tada": b"dots",
    "deep/er/and/deeper": b"x" * 70_000,
    "name with spaces and ünïcode \U0001f600": b"odd",
    "back\\slash": b"odd",
    "new\nline": b"odd",
    "%2e%2e": b"odd",
    "question?mark#hash": b"odd",
    "tilde~1": b"odd",
    "n" * 255: b"long",
    "/".join(["d" * 200] * 6): b"longer than keys",
    "link": "->deep/er",
    "deep/up": "->../result.json",
    "dangling": "->nowhere",
}


@pytest.mark.parametrize("placement", Placement)
def test_a_record_comes_back_as_it_was(tmp_path: Path, placement: Placement) -> None:
    """Contents, links, modes, empty files and directories, and odd names survive, wherever the bytes lie."""
    record = make(tmp_path / "a", FILES)
    os.chmod(record.path / "result.json", 0o750)
    (record.path / "nothing" / "in").mkdir(parents=True)
    os.mkdir(os.path.join(os.fsencode(record.path), b"no-utf8-\xff"))
    with open(os.path.join(os.fsencode(record.path), b"no-utf8-\xff", b"\xfe"), "wb") as out:
        out.write(b"odd")
    store = records(placement=placement)

    receipt = store.commit(record)

    assert store.retrieve(record.uuid, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert 0o750 == stat.S_IMODE((tmp_path / "b" / "result.json").stat().st_mode)
    assert (1, True) == (receipt.generation, receipt.changed)
    assert store.verify(record.uuid, deep=True)


def test_a_person_finds_the_files(tmp_path: Path) -> None:
    """Plain placement keeps files under their own paths."""
    record = make(tmp_path / "a", {"out/result.json": b"{}"})
    store = records()
    store.commit(record)

    assert b"{}" == store.store.read_bytes(f"{BASE}/records/{record.uuid}/f/out/result.json")


def test_blobs_are_stored_once(tmp_path: Path) -> None:
    """Two records with the same file share it in blob placement."""
    store = records(placement=Placement.BLOBS)
    store.commit(make(tmp_path / "a", {"data": b"x" * 100_000}))
    second = store.commit(make(tmp_path / "b", {"data": b"x" * 100_000}))

    assert 100_000 > second.moved_bytes


def test_unchanged_files_are_not_sent_again(tmp_path: Path) -> None:
    """A second commit sends what changed, was added or renamed with other content; nothing else."""
    record = make(tmp_path / "a", {f"f{number}": os.urandom(100) for number in range(600)})
    store = records(cache=cache(tmp_path))
    store.commit(record)
    fill(record, {"f7": b"changed", "new": b"added"})
    os.rename(record.path / "f8", record.path / "renamed")
    os.unlink(record.path / "f9")

    second = store.commit(record)
    third = store.commit(record)

    assert (2, 12) == (second.moved_files, second.moved_bytes)
    assert (False, 0, 2) == (third.changed, third.moved_files, third.generation)
    assert store.retrieve(record.uuid, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_cache_of_digests_is_not_needed(tmp_path: Path) -> None:
    """Without one, files are read again, and still not sent again."""
    record = make(tmp_path / "a", {"a": b"1", "b": b"2"})
    store = records(cache=None)
    store.commit(record)

    assert 0 == store.commit(record).moved_files


def test_a_change_within_one_tick_of_the_clock_is_seen(tmp_path: Path) -> None:
    """A file changed right after it was sent, in size and times the same, is sent again."""
    record = make(tmp_path / "a", {"a": b"1"})
    store = records(cache=cache(tmp_path))
    store.commit(record)
    before = os.stat(record.path / "a")
    (record.path / "a").write_bytes(b"2")
    os.utime(record.path / "a", ns=(before.st_atime_ns, before.st_mtime_ns))

    assert 1 == store.commit(record).moved_files


def test_a_changed_mode_needs_no_bytes(tmp_path: Path) -> None:
    """Only the manifest changes with a mode."""
    record = make(tmp_path / "a", {"a": b"1"})
    store = records()
    store.commit(record)
    os.chmod(record.path / "a", 0o600)
    receipt = store.commit(record)

    assert (True, 0) == (receipt.changed, receipt.moved_files)
    assert 0o600 == next(file.mode for file in store.manifest(record.uuid).files if file.path == "a")


def test_progress_is_told(tmp_path: Path) -> None:
    """A transfer in each direction ends with all files and bytes accounted for."""
    states: list[TransferState] = []
    record = make(tmp_path / "a", {"a": b"12345", "b": b"123"})
    store = records(progress=states.append)
    store.commit(record)
    sent = states[-1]
    store.retrieve(record.uuid, tmp_path / "b")

    assert sent.files == sent.total_files == sent.moved_files == 6
    assert sent.bytes == sent.total_bytes == sent.moved_bytes
    assert (6, sent.bytes) == (states[-1].files, states[-1].bytes)


def test_data_come_before_the_manifest(tmp_path: Path) -> None:
    """The manifest is the last thing that is written: whoever sees it can read all it names."""
    written: list[str] = []

    class Watched(StoreWrapper):
        def write_raw(
            self, reference: Reference, size: int | None, options: WriteOptions | None, stream: SourceLike | Source
        ) -> Metadata:
            written.append(as_reference(reference).key.removeprefix(f"{BASE.key}/"))
            return super().write_raw(reference, size, options, stream)

    record = make(tmp_path / "a", {"a": b"1"})
    records(Watched(MemoryStore())).commit(record)

    assert f"records/{record.uuid}/manifest.json" == written[-1]
    assert sorted(key.split("/")[0] for key in written) == sorted(
        ["records.json", *["records"] * 5, "by-identity", "by-time", "records"]
    )


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("first", [True, False], ids=["first", "second"])
def test_a_commit_that_dies_at_any_write(tmp_path: Path, when: When, first: bool) -> None:
    """Whatever write a commit dies at: readers see the state before or after, and the next commit completes it."""
    record = make(tmp_path / "a", {"a": b"1", "b": b"2", "out/c": b"3"})
    before = tree(record.path)
    deaths = 0
    while True:
        inner = MemoryStore()
        if not first:
            records(inner).commit(record)
            fill(record, {"a": b"11", "d": b"4"})
        wanted = tree(record.path)
        rule = Rule(Raise(_Killed, when=when), operations={Operation.WRITE}, nth=deaths + 1)
        faulty = FaultyStore(inner, [rule])
        try:
            records(faulty, parallel=1).commit(record)
        except _Killed:
            deaths += 1
        else:
            break
        seen = records(inner).retrieve(record.uuid, tmp_path / f"seen{deaths}")
        assert not seen or tree(tmp_path / f"seen{deaths}") in (before, wanted)
        assert seen or first
        records(inner).commit(record)
        assert records(inner).retrieve(record.uuid, tmp_path / f"after{deaths}")
        assert tree(tmp_path / f"after{deaths}") == wanted
        if not first:
            fill(record, {"a": b"1"})
            os.unlink(record.path / "d")
    assert deaths >= 3


def test_an_interrupted_upload_goes_on_where_it_was(tmp_path: Path) -> None:
    """What was sent before the store failed is not sent again, by whoever goes on."""
    inner = MemoryStore()
    record = make(tmp_path / "a", {f"f{number:02}": os.urandom(1000) for number in range(40)})
    faulty = FaultyStore(inner, [Rule(Raise(TransientError), operations={Operation.WRITE}, keys="*/f/f3*")])
    with pytest.raises(TransientError):
        records(faulty, parallel=1).commit(record)

    receipt = records(inner).commit(record)

    assert 10 <= receipt.moved_files < 20
    assert records(inner).verify(record.uuid, deep=True)


def test_an_interrupted_retrieval_goes_on_where_it_was(tmp_path: Path) -> None:
    """What was verified before the store failed is not fetched again, and nothing is in place before all is."""
    inner = MemoryStore()
    record = make(tmp_path / "a", {f"f{number:02}": os.urandom(1000) for number in range(40)})
    records(inner).commit(record)
    faulty = FaultyStore(inner, [Rule(BreakStream(after=500), operations={Operation.READ}, keys="*/f/f3*")])
    with pytest.raises(TransientError):
        records(faulty, parallel=1).retrieve(record.uuid, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    states: list[TransferState] = []

    assert records(inner, progress=states.append).retrieve(record.uuid, tmp_path / "b")
    assert 0 < states[-1].moved_files < 20
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert ["a", "b"] == sorted(os.listdir(tmp_path))


@pytest.mark.parametrize("damage", ["changed", "cut", "missing", "longer"])
def test_a_damaged_file_is_never_put_in_place(tmp_path: Path, damage: str) -> None:
    """A copy with one wrong byte is no copy: retrieve says False and leaves nothing."""
    store = records()
    record = make(tmp_path / "a", {"a": b"12345"})
    store.commit(record)
    reference = f"{BASE}/records/{record.uuid}/f/a"
    if damage == "missing":
        store.store.delete(reference)
    else:
        store.store.write_bytes(reference, {"changed": b"12a45", "cut": b"1234", "longer": b"123456"}[damage])

    assert not store.retrieve(record.uuid, tmp_path / "b")
    assert store.pull(record.uuid, tmp_path / "b") is None
    assert ["a"] == os.listdir(tmp_path)
    assert not store.verify(record.uuid, deep=True)
    assert (damage == "changed") == bool(store.verify(record.uuid))
    with pytest.raises(RecordDamaged, match="'a'"):
        store.download(record.uuid, tmp_path / "c")


def test_retrieving_replaces_an_older_copy_only(tmp_path: Path) -> None:
    """A directory with something else in it is refused; an older copy of the record is brought up to date."""
    store = records(cache=cache(tmp_path))
    record = make(tmp_path / "a", {"a": b"1", "gone": b"2"})
    store.commit(record)
    assert store.retrieve(record.uuid, tmp_path / "b")
    os.unlink(record.path / "gone")
    fill(record, {"a": b"new"})
    store.commit(record)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").write_bytes(b"precious")

    assert store.retrieve(record.uuid, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    with pytest.raises(AlreadyExists, match="something else"):
        store.retrieve(record.uuid, tmp_path / "other")
    assert {"mine": b"precious"} == tree(tmp_path / "other")


def test_a_file_removed_at_the_source_is_not_in_the_copy(tmp_path: Path) -> None:
    """The committed record is what the directory is, not what it once was."""
    store = records()
    record = make(tmp_path / "a", {"a": b"1", "b": b"2"})
    store.commit(record)
    os.unlink(record.path / "b")
    store.commit(record)

    assert store.retrieve(record.uuid, tmp_path / "c")
    assert not (tmp_path / "c" / "b").exists()


def test_readers_of_an_older_manifest_are_not_disturbed(tmp_path: Path) -> None:
    """What changes is written beside what an older manifest names, not over it."""
    store = records()
    record = make(tmp_path / "a", {"a": b"old"})
    store.commit(record)
    before = store.manifest(record.uuid)
    fill(record, {"a": b"new"})
    store.commit(record)

    key = next(file.key for file in before.files if file.path == "a")
    assert b"old" == store.store.read_bytes(f"{BASE}/{key}")
    assert key in {retired.key for retired in store.manifest(record.uuid).retired}


def test_unknown_records(tmp_path: Path) -> None:
    """What is not there gives False, None, or an error that names it; nothing appears on the disk."""
    store = records()

    assert not store.contains("nothing")
    assert not store.retrieve("nothing", tmp_path / "a")
    assert store.pull("nothing") is None
    assert not store.delete("nothing")
    with pytest.raises(NoSuchRecord, match="nothing"):
        store.manifest("nothing")
    with pytest.raises(NoSuchRecord, match="nothing"):
        store.download("nothing", tmp_path)
    with pytest.raises(InvalidRecord, match="is no uuid"):
        store.contains("../secret")
    assert [] == os.listdir(tmp_path)


def test_push_and_pull(tmp_path: Path) -> None:
    """Push checks what it is given; pull gives the URI of a verified copy."""
    store = records()
    record = make(tmp_path / "a", {"a": b"1"})

    assert f"{BASE}/records/{record.uuid}" == store.push(record.path, record.uuid) == store.home_uri(record.uuid)
    assert store.home_uri(record.uuid) == store.pull(record.uuid)
    assert (tmp_path / "b").as_uri() == store.pull(record.uuid, tmp_path / "b")
    with pytest.raises(InvalidRecord, match="is the record"):
        store.push(record.path, "another")
    with pytest.raises(InvalidRecord, match=r"no \.machinable"):
        store.push(tmp_path / "missing", "another")


@pytest.mark.parametrize(
    ("name", "target"),
    [("out", "->../../secret"), ("out", "->/etc/passwd"), ("sub/out", "->../../b")],
    ids=["up", "absolute", "nested"],
)
def test_links_that_lead_out_are_refused(tmp_path: Path, name: str, target: str) -> None:
    """A record carries nothing it does not contain: the error names the link."""
    record = make(tmp_path / "a", {name: target})

    with pytest.raises(InvalidRecord, match=f"the link '{name}' leads to"):
        records().commit(record)


def test_what_no_record_can_hold_is_refused() -> None:
    """A socket is named in the error, and nothing is committed."""
    # A socket's path is short, pytest's are not.
    import tempfile

    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as bound:
        record = make(Path(short) / "a")
        bound.bind(str(record.path / "s"))
        store = records()

        with pytest.raises(InvalidRecord, match="neither file, directory nor link"):
            store.commit(record)
        assert not store.contains(record.uuid)


def test_a_file_that_never_keeps_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file rewritten in place whenever it was read is not sent as a mixture: the commit fails and names it."""
    record = make(tmp_path / "a", {"a": b"0" * 1000})
    from stowstore.records import sending_files as sending

    read = sending.read_whole
    calls = 0

    def meddle(path: str) -> Any:
        nonlocal calls
        result = read(path)
        if path.endswith("/a"):
            calls += 1
            Path(path).write_bytes(b"%d" % calls * 500)
        return result

    monkeypatch.setattr(sending, "read_whole", meddle)
    store = records()
    with pytest.raises(FileChanged, match="kept on changing"):
        store.commit(record)
    assert not store.contains(record.uuid)


def test_a_large_file_that_changes_between_two_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file read twice is sent with the digest of what was sent, even if it changed in between."""
    from stowstore.records import scanning

    record = make(tmp_path / "a", {"a": b"0" * (5 << 20)})
    digest, meddled = scanning.digest_of, []

    def meddle(path: Any) -> Any:
        result = digest(path)
        if not meddled:
            meddled.append(path)
            with open(path, "r+b") as stream:
                stream.write(b"1")
            # As if the change had come after the check of its times.
            os.utime(path, ns=(result[0].mtime_ns, result[0].mtime_ns))
        return result

    monkeypatch.setattr(scanning, "digest_of", meddle)
    store = records()
    store.commit(record)

    assert meddled
    assert store.verify(record.uuid, deep=True)
    assert store.retrieve(record.uuid, tmp_path / "b")
    assert b"10" == (tmp_path / "b" / "a").read_bytes()[:2]


def test_a_log_that_grows_all_the_time(tmp_path: Path) -> None:
    """A log that a running program appends to is sent up to where it was, and whole the next time."""
    record = make(tmp_path / "a", {"output.log": b""})
    stop = threading.Event()

    def write() -> None:
        with open(record.path / "output.log", "ab", buffering=0) as log:
            while not stop.is_set():
                log.write(b"0123456789")

    writer = threading.Thread(target=write)
    writer.start()
    store = records()
    try:
        store.commit(record)
    finally:
        stop.set()
        writer.join()
    assert store.retrieve(record.uuid, tmp_path / "b")
    early = (tmp_path / "b" / "output.log").read_bytes()
    assert (record.path / "output.log").read_bytes().startswith(early)
    store.commit(record)
    assert store.retrieve(record.uuid, tmp_path / "b")
    assert tree(record.path) == tree(tmp_path / "b")


def test_files_that_vanish_meanwhile_are_not_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary file that goes between the listing and the reading is a change like any other."""
    from stowstore.records import store as module

    record = make(tmp_path / "a", {"a": b"1", "temporary": b"2"})
    scan = module.scan

    def vanish(path: Any, uuid: str) -> Any:
        found = scan(path, uuid)
        os.unlink(record.path / "temporary")
        return found

    monkeypatch.setattr(module, "scan", vanish)
    store = records()
    store.commit(record)

    assert "temporary" not in {file.path for file in store.manifest(record.uuid).files}


@pytest.mark.parametrize("conditional", [True, False], ids=["conditional", "unconditional"])
def test_two_records_do_not_share_a_uuid(tmp_path: Path, conditional: bool) -> None:
    """A record of another identity under the same uuid is refused, and the first one stays."""
    store = records(MemoryStore() if conditional else Unconditional(MemoryStore()))
    first = make(tmp_path / "a", {"a": b"1"}, config={"lr": 1}, uuid="sameuuid1234")
    second = make(tmp_path / "b", {"a": b"2"}, config={"lr": 2}, uuid="sameuuid1234")
    store.commit(first)

    with pytest.raises(RecordCollision, match="another record"):
        store.commit(second)
    assert store.retrieve("sameuuid1234", tmp_path / "c")
    assert tree(tmp_path / "a") == tree(tmp_path / "c")


def test_a_store_without_conditions_takes_one_writer(tmp_path: Path) -> None:
    """Where writes cannot be conditional, records are committed all the same, and the store says what it cannot."""
    store = records(Unconditional(MemoryStore()))
    record = make(tmp_path / "a", {"a": b"1"})
    store.commit(record)
    fill(record, {"a": b"2"})
    store.commit(record)

    assert not store.manifests.atomic
    assert records().manifests.atomic
    assert store.retrieve(record.uuid, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_two_writers_of_one_record(tmp_path: Path) -> None:
    """Whoever comes last wins as a whole: no state is a mixture, edges are united, and nothing is damaged."""
    inner = MemoryStore()
    first = make(tmp_path / "a", {"x": b"a", "y": b"a"}, uuid="sameuuid1234")
    second = make(tmp_path / "b", {"x": b"b", "y": b"b", "z": b"b"}, uuid="sameuuid1234")
    for name in ("id.json", "model.json"):
        (second.path / name).write_bytes((first.path / name).read_bytes())
    other = make(tmp_path / "o")
    first.relate("Interface.Interface.using", other)
    second.relate("Interface.Interface.derivatives", other)

    def write(record: RecordDirectory) -> None:
        for number in range(5):
            fill(record, {"n": b"%d" % number})
            records(inner).commit(record)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (first, second)))
    store = records(inner)

    assert store.verify("sameuuid1234", deep=True)
    assert store.retrieve("sameuuid1234", tmp_path / "c")
    assert {b"a"} == set(_letters(tmp_path / "c")) or {b"b"} == set(_letters(tmp_path / "c"))
    assert {"Interface.Interface.using", "Interface.Interface.derivatives"} == {
        edge.name for edge in store.manifest("sameuuid1234").edges
    }
    assert 2 == len((tmp_path / "c" / "related" / "metadata.jsonl").read_bytes().splitlines())


def _letters(directory: Path) -> list[bytes]:
    return [(directory / name).read_bytes() for name in "xyz" if (directory / name).exists()]


def test_run_records_lie_in_their_record(tmp_path: Path) -> None:
    """A run record is a record of its own, and comes back where it was in the directory of its record."""
    record = make(tmp_path / "a", {"a": b"1"})
    run = make(
        tmp_path / "a" / "runner" / "2026-01-01_000000", {"output.log": b"2"}, kind="Execution", parent=record.uuid
    )
    store = records()
    receipt = store.commit(record)

    assert [run.uuid] == [inner.uuid for inner in receipt.nested]
    assert "runner/2026-01-01_000000" == store.manifest(run.uuid).place
    assert store.retrieve(record.uuid, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    fill(run, {"output.log": b"more"})
    assert 1 == store.commit(run).moved_files
    assert store.retrieve(record.uuid, tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_run_with_the_header_of_another_one(tmp_path: Path) -> None:
    """machinable writes the last run's header over the first one's: the copy is kept as files, and harms neither."""
    first, last = make(tmp_path / "a"), make(tmp_path / "b", config={"n": 2})
    run = make(tmp_path / "a" / "runner" / "now", {"log": b"1"}, kind="Execution", parent=first.uuid)
    other = make(tmp_path / "b" / "runner" / "now", {"log": b"2"}, kind="Execution", parent=last.uuid)
    store = records()
    for record in (first, last):
        store.commit(record)
    expected = tree(first.path)
    for name in (".machinable", "id.json", "model.json"):
        (run.path / name).write_bytes((other.path / name).read_bytes())
    for record in (first, last):
        store.commit(record)

    assert store.retrieve(first.uuid, tmp_path / "first")
    assert store.retrieve(last.uuid, tmp_path / "last")
    assert expected == tree(tmp_path / "first")
    assert tree(last.path) == tree(tmp_path / "last")


def test_runs_the_store_does_not_know_survive_a_retrieval(tmp_path: Path) -> None:
    """Bringing an older copy up to date does not take the runs away that were made since."""
    record = make(tmp_path / "a", {"a": b"1"})
    store = records()
    store.commit(record)
    make(tmp_path / "a" / "runner" / "now", {"output.log": b"2"}, kind="Execution", parent=record.uuid)

    assert store.retrieve(record.uuid, tmp_path / "a")
    assert b"2" == (tmp_path / "a" / "runner" / "now" / "output.log").read_bytes()


def test_fetch_asks_the_connected_stores(tmp_path: Path) -> None:
    """The first store, outermost first, whose copy is whole; a damaged one is passed over."""
    record = make(tmp_path / "a", {"a": b"1"})
    first, second = records(), records()
    assert not fetch(record.uuid, tmp_path / "b")
    with first, second:
        assert (first, second) == RecordStore.connected()
        first.commit(record)
        second.commit(record)
        first.store.write_bytes(f"{BASE}/records/{record.uuid}/f/a", b"2")

        assert fetch(record.uuid, tmp_path / "b")
    assert () == RecordStore.connected()
    assert b"1" == (tmp_path / "b" / "a").read_bytes()


def test_a_base_keeps_to_its_placement(tmp_path: Path) -> None:
    """All writers of a base place files alike: the base says how, and who says otherwise is refused."""
    store = MemoryStore()
    records(store, placement=Placement.BLOBS).ensure_materialized()
    record = make(tmp_path / "a", {"a": b"1"})

    records(store).commit(record)

    assert [] == list(store.walk(f"{BASE}/records/{record.uuid}/f", directory=True))
    with pytest.raises(RecordCollision, match="placed as blobs"):
        records(store, placement=Placement.PLAIN).commit(record)


def test_a_manifest_that_names_other_objects_is_not_believed(tmp_path: Path) -> None:
    """A manifest cannot make a reader fetch what is not its record's."""
    store = records()
    record = make(tmp_path / "a", {"a": b"1"})
    store.commit(record)
    store.store.write_bytes(DataReference("mem://main/runs/secret"), b"1")
    reference = f"{BASE}/records/{record.uuid}/manifest.json"
    raw = store.store.read_bytes(reference)
    store.store.write_bytes(reference, raw.replace(b"records/%s/f/a" % record.uuid.encode(), b"secret"))

    assert not store.retrieve(record.uuid, tmp_path / "b")
    assert not (tmp_path / "b").exists()


class Unconditional(StoreWrapper):
    """A store whose writes always replace."""

    def capabilities(self, reference: Reference | None = None) -> Capabilities:
        found = super().capabilities(reference)
        conditions = {Feature.CREATE_IF_ABSENT, Feature.ATOMIC_CREATE, Feature.REPLACE_IF_MATCH}
        return evolve(found, features=found.features - conditions)

    def write_raw(
        self, reference: Reference, size: int | None, options: WriteOptions | None, stream: SourceLike | Source
    ) -> Metadata:
        assert options is None or not (options.if_absent or options.if_match)
        return super().write_raw(reference, size, options, stream)


class _Killed(BaseException):
    """Ends a commit as a kill does: nothing may catch it."""


@pytest.mark.parametrize("damage", ["older", "nonsense", "directory"])
def test_a_useless_digest_cache_costs_time_alone(tmp_path: Path, damage: str) -> None:
    """A cache of another release, a damaged one, and one that cannot be opened keep nobody from committing."""
    path = tmp_path / "cache.sqlite"
    if damage == "older":
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE digests (directory BLOB, path TEXT, digest TEXT)")
    elif damage == "nonsense":
        path.write_bytes(b"no database, but as long as one" * 100)
    else:
        path.mkdir()
    record = make(tmp_path / "a", {"odd\nname ü": b"1"})
    store = records(cache=DigestCache(path))
    assert store.commit(record).changed
    assert not store.commit(record).changed
    assert store.retrieve(record.uuid, tmp_path / "copy")
