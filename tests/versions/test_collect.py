"""Collection: what it deletes, and above all what it does not."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import evolve
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from datastore import DataReference, MemoryStore
from datastore.errors import TransientError
from datastore.metric_names import Operation
from datastore.wrappers.faulty import FaultyStore, Raise, Rule, Truncate
from stowstore.chunks import packs as pack_module
from stowstore.chunks.block import PackKind
from stowstore.versions.collect import DAY, CollectionAborted, CollectionRefused, CollectionReport, collect
from stowstore.versions.errors import LeaseLost
from stowstore.versions.lease import Lease, LeaseRecord
from stowstore.versions.manifest import VersionName
from stowstore.versions.marking import Marker, mark_snapshot
from stowstore.versions.prune import RetentionPolicy, prune, prune_versions
from stowstore.versions.rewriting import rewrite_packs, rewrite_sparse, sparse_packs
from stowstore.versions.ulid import new_ulid
from tests.versions.volumes import Clock, Volumes

FIRST = {"a": b"one" * 500, "dir/b": b"two" * 2000, "dir/deep/c": b"three" * 10}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pack_module, "time", clock)
    return clock


@pytest.fixture
def volumes(clock: Clock) -> Iterator[Volumes]:
    with Volumes(clock=clock) as volumes:
        yield volumes


def run(volumes: Volumes, **more: Any) -> CollectionReport:
    """A collection that deletes, whatever the share, by the test's clock."""
    options = {"dry_run": False, "force": True, "now": volumes.clock.time, "sleep": volumes.clock.sleep, **more}
    return collect(volumes.root, volumes.chunks, **options)


def test_only_what_pruned_versions_needed_goes(volumes: Volumes) -> None:
    """Deleted files cost room until the versions that have them are pruned, and then a grace period."""
    volumes.commit("data", {"a": FIRST["a"]})
    kept = volumes.packs()[PackKind.DATA]
    old = volumes.commit("data", {**FIRST})
    new = volumes.commit("data", {"a": FIRST["a"]})
    volumes.clock.ahead += 2 * DAY
    assert 0 == run(volumes).deleted
    prune_versions(volumes.root, "data", [old.id], dry_run=False)

    assert 1 == run(volumes).deleted
    assert kept == volumes.packs()[PackKind.DATA]
    assert {"a": FIRST["a"]} == volumes.files(new)
    assert 0 == run(volumes).deleted


def test_dry_run_writes_a_list_and_deletes_nothing(volumes: Volumes) -> None:
    """A dry run, the default, leaves a list for people to read and every pack."""
    orphan(volumes)
    volumes.commit("data", FIRST)
    volumes.clock.ahead += 2 * DAY
    before = volumes.packs()

    report = collect(volumes.root, volumes.chunks, now=volumes.clock.time)

    assert before == volumes.packs()
    listed = json.loads(volumes.store.read_bytes(report.candidates))
    assert [str(volumes.chunks.pack_reference(use.kind, use.pack)) for use in report.garbage] == [
        pack["object"] for pack in listed["packs"]
    ]
    assert report.dry_run
    assert report.garbage_bytes == listed["bytes"] > 0


def test_old_lists_and_notes_of_imports_go(volumes: Volumes) -> None:
    """What earlier collections have listed, and imports have noted, goes a month later, with some garbage."""
    above = volumes.root.base.join("imports", "data", "token")
    volumes.store.write_bytes(above.join(new_ulid()), b"note")
    first = collect(volumes.root, volumes.chunks, now=volumes.clock.time).candidates
    for days, left in ((29, True), (2, False)):
        orphan(volumes)
        volumes.clock.ahead += days * DAY
        assert 0 < run(volumes).deleted
        notes = [entry.reference for entry in volumes.store.walk(above, directory=True)]
        assert (left, left) == (volumes.store.head(first).exists, bool(notes))


def test_young_packs_stay(volumes: Volumes) -> None:
    """What nothing needs is left alone until it is as old as the grace period."""
    orphan(volumes)
    report = run(volumes, grace=DAY)
    assert (0, 2) == (report.deleted, len(report.young))

    volumes.clock.ahead += DAY + 60
    assert 2 == run(volumes, grace=DAY).deleted


def test_packs_younger_than_a_live_lease_stay(volumes: Volumes) -> None:
    """What a writer may have uploaded stays as long as its lease is renewed, however long that is."""
    volumes.commit("data", FIRST)
    volumes.lease("data", volumes.root.head("data"))
    orphan(volumes)
    for _ in range(3):
        volumes.clock.ahead += 2 * DAY
        volumes.renew("data")
        assert 0 == run(volumes, settle=1).deleted
    volumes.clock.ahead += DAY

    assert 2 == run(volumes).deleted


def test_version_a_live_lease_stands_on_is_kept_whole(volumes: Volumes) -> None:
    """A collection never runs past a writer whose base is gone."""
    old = volumes.commit("data", FIRST)
    volumes.commit("data", {"z": b"z"})
    volumes.lease("fork", old)
    volumes.root.delete_version("data", old.id)
    volumes.clock.ahead += 10

    with pytest.raises(CollectionAborted, match=r"stands on version .* which is not there"):
        run(volumes, grace=0)
    assert volumes.packs()[PackKind.DATA]


def test_writer_with_a_lapsed_lease_is_fenced_before_the_sweep(volumes: Volumes) -> None:
    """A writer that slept past its lease cannot come back and publish what was collected meanwhile."""
    lease = Lease(volumes.store, volumes.root.lease_reference("data"))
    orphan(volumes)
    volumes.clock.ahead += 2 * DAY

    assert 2 == run(volumes).deleted
    with pytest.raises(LeaseLost):
        lease.require()
    lease.release()


def test_too_much_is_refused(volumes: Volumes) -> None:
    """More than a fifth of the bytes goes only by force."""
    volumes.commit("data", {"small": b"x"})
    orphan(volumes)
    volumes.clock.ahead += 2 * DAY

    with pytest.raises(CollectionRefused, match="more than 20%; nothing was deleted"):
        run(volumes, force=False)
    assert 2 == run(volumes).deleted


def test_fork_needs_what_its_origin_has_pruned(volumes: Volumes) -> None:
    """Forks keep what they share, whatever happens to the volume they came from."""
    origin = volumes.commit("data", FIRST)
    volumes.root.set_head("bare", origin, None)
    written = volumes.commit("fork", {**FIRST, "mine": b"m" * 100}, parent=origin)
    volumes.commit("data", {"other": b"o"})
    prune(volumes.root, "data", RetentionPolicy(keep_last=1), dry_run=False)
    volumes.root.delete_refs("data")
    volumes.clock.ahead += 2 * DAY

    report = run(volumes)

    assert 1 == len(report.abandoned)
    assert {**FIRST, "mine": b"m" * 100} == volumes.files(written)
    assert FIRST == volumes.files(volumes.root.head("bare"))


def test_deleted_volume_goes_with_its_versions(volumes: Volumes) -> None:
    """The versions of a volume without references are deleted after the grace period, its packs with them."""
    volumes.commit("gone", FIRST)
    kept = volumes.commit("kept", {"k": b"k" * 100})
    volumes.root.delete_refs("gone")
    assert 0 == run(volumes).deleted

    volumes.clock.ahead += 2 * DAY
    assert 2 == run(volumes).deleted
    assert [] == list(volumes.root.version_ids("gone"))
    assert {"k": b"k" * 100} == volumes.files(kept)


def test_first_commit_under_way_is_no_deleted_volume(volumes: Volumes) -> None:
    """A manifest whose head is not set yet is kept while its writer holds a lease."""
    name = volumes.commit("data", FIRST)
    volumes.root.delete_refs("data")
    volumes.lease("data", None)
    volumes.clock.ahead += 2 * DAY
    volumes.renew("data")

    assert 0 == run(volumes, settle=1).deleted
    assert FIRST == volumes.files(name)


@pytest.mark.parametrize("seed", range(5))
def test_version_published_between_the_looks_is_kept(volumes: Volumes, seed: int) -> None:
    """What the first look calls garbage and a new version needs stays: the second look sees it."""
    old = volumes.commit("data", FIRST)
    manifest = volumes.root.load(old)
    volumes.root.delete_version("data", old.id)
    volumes.root.delete_refs("data")
    other = volumes.commit("other", {"o": random.Random(seed).randbytes(500)})
    volumes.clock.ahead += 2 * DAY

    def publish(seconds: float) -> None:
        again = evolve(manifest, id=new_ulid())
        volumes.root.set_head("data", volumes.root.write_manifest(again), None)

    report = run(volumes, sleep=publish)

    assert 0 == report.deleted
    assert FIRST == volumes.files(volumes.root.head("data"))
    assert volumes.files(other)


LOOKS = [
    (Operation.LIST, "root/packs"),
    (Operation.LIST, "root/index"),
    (Operation.LIST, "root/leases"),
    (Operation.LIST, "root/versions"),
    (Operation.LIST, "root/refs*"),
    (Operation.READ, "root/leases/*"),
    (Operation.READ, "root/versions/*"),
    (Operation.READ, "root/refs/*/head"),
    (Operation.READ, "root/refs/*/tags/*"),
    (Operation.READ, "root/index/*"),
]


@pytest.mark.parametrize(
    ("operation", "keys", "look"),
    [
        (Operation.WRITE, "root/garbage/*", "first"),
        *((operation, keys, look) for operation, keys in LOOKS for look in ("first", "second")),
    ],
)
def test_fault_while_looking_deletes_nothing(clock: Clock, operation: Operation, keys: str, look: str) -> None:
    """Whatever cannot be listed or read ends the collection before anything is deleted, in either look."""
    inner = MemoryStore()
    with Volumes(inner, clock=clock) as made:
        tagged = made.commit("data", FIRST)
        made.root.set_tag("data", "v1", tagged)
        made.commit("data", {"a": b"x"})
        orphan(made)
        clock.ahead += 2 * DAY
        made.lease("data", tagged, seconds=3600)
        clock.ahead += 1
    store = FaultyStore(inner)
    before = {entry.reference for entry in inner.walk(DataReference("mem://main/root"), directory=True)}
    fault = Rule(Raise(TransientError), operations={operation}, keys=keys)

    def late(seconds: float) -> None:
        store.add(fault)
        with Volumes(inner, clock=clock) as other:
            other.commit("data", {"late": b"late"})

    with Volumes(store, clock=clock) as volumes:
        if look == "first":
            store.add(fault)
        with pytest.raises(CollectionAborted, match=r"nothing was deleted: .*injected") as caught:
            run(volumes, sleep=late)
    assert caught.value.retryable
    assert 1 == sum(store.fired.values())
    assert before <= {entry.reference for entry in inner.walk(DataReference("mem://main/root"), directory=True)}


@pytest.mark.parametrize("what", ["manifest", "head", "tag", "lease", "stray", "index", "cut index"])
def test_damage_ends_the_collection(volumes: Volumes, what: str) -> None:
    """A damaged object of any kind that is looked at ends the collection, with nothing deleted."""
    name = volumes.commit("data", FIRST)
    volumes.root.set_tag("data", "v1", name)
    volumes.lease("data", name)
    orphan(volumes)
    volumes.clock.ahead += 2 * DAY
    base = volumes.root.base
    index = next(iter(volumes.root.load(name).snapshot.deltas)).blocks[0].pack
    where = {
        "manifest": base.join("versions/data", name.id),
        "head": base.join("refs/data/head"),
        "tag": base.join("refs/data/tags/v1"),
        "lease": base.join("leases/data"),
        "stray": base.join("versions/data/notes.txt"),
    }.get(what, volumes.chunks.pack_reference(PackKind.INDEX, index))
    if what == "cut index":
        store = FaultyStore(volumes.store, [Rule(Truncate(after=10), operations={Operation.READ}, keys="root/index/*")])
        with Volumes(store, clock=volumes.clock) as cut, pytest.raises(CollectionAborted, match="nothing was deleted"):
            run(cut)
        return
    volumes.store.write_bytes(where, b"garbage")
    before = volumes.packs()

    with Volumes(volumes.store, clock=volumes.clock) as fresh, pytest.raises(CollectionAborted):
        run(fresh)
    assert before == volumes.packs()


def test_packs_the_store_does_not_delete_are_reported(clock: Clock) -> None:
    """A failure of the sweep itself is told by object, and the next collection tries again."""
    store = FaultyStore(MemoryStore())
    with Volumes(store, clock=clock) as volumes:
        orphan(volumes)
        clock.ahead += 2 * DAY
        store.add(Rule(Raise(TransientError), operations={Operation.DELETE_MANY}, times=1))

        report = run(volumes)

        assert (0, 2) == (report.deleted, len(report.failed))
        assert 2 == run(volumes).deleted


def test_a_thousand_versions_cost_what_differs() -> None:
    """Index blocks that versions share are read once."""
    with Volumes() as volumes:
        files = {f"d{number % 7}/f{number}": b"%d" % number * 10 for number in range(600)}
        names = [volumes.commit("data", files, merge=True)]
        for number in range(40):
            files[f"d0/f{number * 7}"] = b"new %d" % number
            names.append(volumes.commit("data", files, merge=number % 10 == 9))
        marker = Marker(volumes.chunks.index_reader)
        counts = []
        for name in names:
            marker.mark(volumes.root.load(name).snapshot)
            counts.append(marker.nodes)

        alone = [mark_snapshot(volumes.root.load(name).snapshot, volumes.chunks.index_reader) for name in names]

    assert counts[-1] < 4 * counts[0] + 2 * len(names)
    joined = alone[0]
    for marks in alone[1:]:
        joined.add(marks)
    assert {pack: joined.live_bytes(pack) for pack in joined} == {
        pack: marker.marks.live_bytes(pack) for pack in marker.marks
    }


def test_rewriting_frees_sparse_packs_once_older_versions_are_pruned(volumes: Volumes) -> None:
    """Live blocks of a sparse pack move with a new version, equal to the head; then the pack can go."""
    files = {f"f{number}": random.Random(number).randbytes(900) for number in range(40)}
    volumes.commit("data", files, merge=True)
    left = {name: files[name] for name in ("f3", "f4")}
    head = volumes.commit("data", left, merge=True)
    prune(volumes.root, "data", RetentionPolicy(keep_last=1), dry_run=False)
    sparse = sparse_packs(volumes.root, volumes.chunks)
    assert sparse
    lease = Lease(volumes.store, volumes.root.lease_reference("data"), base=head.id)

    made = rewrite_packs(volumes.root, volumes.chunks, "data", lease)

    assert made == volumes.root.head("data") != head
    assert (head,) == volumes.root.load(made).parents
    assert left == volumes.files(made)
    assert made == rewrite_packs(
        volumes.root, volumes.chunks, "data", lease, packs=[(use.kind, use.pack) for use in sparse]
    )
    lease.release()
    prune(volumes.root, "data", RetentionPolicy(keep_last=1), dry_run=False)
    volumes.clock.ahead += 2 * DAY
    assert run(volumes).deleted >= len(sparse)
    assert left == volumes.files(made)
    assert not sparse_packs(volumes.root, volumes.chunks)


def test_every_volume_that_needs_sparse_packs_is_rewritten(volumes: Volumes) -> None:
    """A rehearsal names packs and volumes and changes nothing; a volume that is written is left as it is."""
    files = {f"f{number}": random.Random(number).randbytes(900) for number in range(40)}
    base = volumes.commit("data", files, merge=True)
    for name in ("fork", "written"):
        volumes.root.make_volume(name, base)
        volumes.commit(name, {"f3": files["f3"]}, merge=True)
    volumes.commit("data", {"f4": files["f4"]}, merge=True)
    volumes.commit("other", {"own": b"own" * 300}, merge=True)
    prune(volumes.root, "data", RetentionPolicy(keep_last=1), dry_run=False)
    heads = {name: volumes.root.head(name) for name in volumes.root.volumes()}

    rehearsed = rewrite_sparse(volumes.root, volumes.chunks)

    assert rehearsed.packs
    assert ("data", "fork", "written") == rehearsed.volumes
    assert all(0 < use.live < use.size / 2 for use in rehearsed.packs)
    assert heads == {name: volumes.root.head(name) for name in heads}

    lease = Lease(volumes.store, volumes.root.lease_reference("written"), base=heads["written"].id)
    done = rewrite_sparse(volumes.root, volumes.chunks, dry_run=False)
    lease.release()
    assert ("written",) == done.busy
    assert tuple(volumes.root.head(name) for name in ("data", "fork")) == done.versions
    assert [heads[name] for name in ("other", "written")] == [volumes.root.head(n) for n in ("other", "written")]
    for name, old in heads.items():
        assert volumes.files(old) == volumes.files(volumes.root.head(name))
    # Once nothing older is kept and the last one is rewritten too, the packs go.
    rewrite_sparse(volumes.root, volumes.chunks, dry_run=False)
    for name in heads:
        prune(volumes.root, name, RetentionPolicy(keep_last=1), dry_run=False)
    volumes.clock.ahead += 2 * DAY
    assert run(volumes, force=True).deleted >= len(rehearsed.packs)
    assert not rewrite_sparse(volumes.root, volumes.chunks).packs
    assert {"f3": files["f3"]} == volumes.files(volumes.root.head("written"))


def test_rewriting_without_the_lease_publishes_nothing(volumes: Volumes) -> None:
    """A lease that was lost stops the rewriting before its version becomes visible."""
    head = volumes.commit("data", FIRST)
    lease = Lease(volumes.store, volumes.root.lease_reference("data"), base=head.id)
    volumes.store.delete(volumes.root.lease_reference("data"))
    packs = [(kind, pack) for kind, found in volumes.packs().items() for pack in found]

    with pytest.raises(LeaseLost):
        rewrite_packs(volumes.root, volumes.chunks, "data", lease, packs=packs)
    assert head == volumes.root.head("data")
    lease.release()


def test_writer_beside_collections(volumes: Volumes) -> None:
    """A writer with a lease commits while collections without any grace run: every version stays whole."""
    lease = Lease(volumes.store, volumes.root.lease_reference("data"))
    stop = threading.Event()
    reports: list[CollectionReport] = []
    failures: list[BaseException] = []

    def keep_collecting() -> None:
        try:
            with Volumes(volumes.store) as mine:
                while not stop.is_set():
                    reports.append(run(mine, grace=0, settle=0, now=Clock().time))
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    thread = threading.Thread(target=keep_collecting)
    thread.start()
    names: dict[VersionName, dict[str, bytes]] = {}
    chance = random.Random(5)
    for number in range(25):
        files = {f"f{number % 5}": chance.randbytes(50), "same": b"same"}
        names[volumes.commit("data", files)] = files
        lease.rebase(volumes.root.head("data").id)
    stop.set()
    thread.join(60)
    lease.release()

    assert [] == failures
    assert reports
    assert all(files == volumes.files(name) for name, files in names.items())


class Collections(RuleBasedStateMachine):
    """Commits, forks, tags, leases, prunes and collections under a clock: what versions have is always there."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(pack_module, "time", self.clock)
        self.volumes = Volumes(clock=self.clock)
        self.model: dict[VersionName, dict[str, bytes]] = {}
        self.leases: set[str] = set()
        self.chance = random.Random(1)

    def teardown(self) -> None:
        self.volumes.close()
        self._patch.undo()

    @initialize()
    def begin(self) -> None:
        self.commit("one", "first", 5, merge=False)

    @rule(
        volume=st.sampled_from(["one", "two", "three"]),
        path=st.sampled_from(["a", "b", "dir/c", "dir/sub/d"]),
        blocks=st.integers(0, 7),
        merge=st.booleans(),
    )
    def commit(self, volume: str, path: str, blocks: int, merge: bool) -> None:
        head = self.volumes.root.head(volume) if self.volumes.root.has_volume(volume) else None
        files = dict(self.model[head]) if head else {}
        files[path] = self.chance.randbytes(blocks * 700)
        self._publish(volume, files, head, merge)

    @rule(volume=st.sampled_from(["one", "two", "three"]), data=st.data(), merge=st.booleans())
    def remove(self, volume: str, data: st.DataObject, merge: bool) -> None:
        if self.volumes.root.has_volume(volume):
            head = self.volumes.root.head(volume)
            files = dict(self.model[head])
            if files:
                del files[data.draw(st.sampled_from(sorted(files)))]
                self._publish(volume, files, head, merge)

    @rule(data=st.data(), name=st.sampled_from(["two", "three", "four"]))
    def fork(self, data: st.DataObject, name: str) -> None:
        if not self.volumes.root.has_volume(name):
            self.volumes.root.set_head(name, data.draw(st.sampled_from(sorted(self.model, key=str))), None)

    @rule(data=st.data(), tag=st.sampled_from(["v1", "v2"]))
    def tag(self, data: st.DataObject, tag: str) -> None:
        volume = data.draw(st.sampled_from(self.volumes.root.volumes()))
        self.volumes.root.set_tag(volume, tag, data.draw(st.sampled_from(sorted(self.model, key=str))))

    @rule(volume=st.sampled_from(["one", "two", "three"]))
    def take_lease(self, volume: str) -> None:
        if volume not in self.leases:
            has = self.volumes.root.has_volume(volume)
            self.volumes.lease(volume, self.volumes.root.head(volume) if has else None)
            self.leases.add(volume)

    @precondition(lambda self: self.leases)
    @rule()
    def release_leases(self) -> None:
        for volume in self.leases:
            self.volumes.store.delete(self.volumes.root.lease_reference(volume))
        self.leases.clear()

    @rule()
    def upload_in_vain(self) -> None:
        orphan(self.volumes, self.chance.randbytes(400))

    @rule(hours=st.sampled_from([1, 13, 30]))
    def wait(self, hours: int) -> None:
        self.clock.ahead += 3600 * hours
        for volume in self.leases:
            self.volumes.renew(volume)

    @rule(last=st.integers(1, 3))
    def prune(self, last: int) -> None:
        for volume in self.volumes.root.volumes():
            report = prune(
                self.volumes.root, volume, RetentionPolicy(keep_last=last), dry_run=False, now=self.clock.time
            )
            for version in report.pruned:
                self._forget(volume, version.id)

    @precondition(lambda self: len(self.volumes.root.volumes()) > 1 and not self.leases)
    @rule(data=st.data())
    def delete_volume(self, data: st.DataObject) -> None:
        self.volumes.root.delete_refs(data.draw(st.sampled_from(self.volumes.root.volumes())))

    @rule()
    def collect(self) -> None:
        report = run(self.volumes, settle=1)
        for name in report.abandoned:
            self._forget(*name.split("/"))
        for name, files in self.model.items():
            assert files == self.volumes.files(name)
        again = run(self.volumes, dry_run=True)
        assert () == again.garbage
        if not self.leases:
            assert all(self.clock.time() - pack_module_time(use.pack) <= DAY + 60 for use in again.young)

    def _publish(self, volume: str, files: dict[str, bytes], head: VersionName | None, merge: bool) -> None:
        name = self.volumes.commit(volume, files, merge=merge)
        self.model[name] = files
        if volume in self.leases:
            started = LeaseRecord.decode(self.volumes.store.read_bytes(self.volumes.root.lease_reference(volume)))
            rebased = evolve(started, base=name.id)
            self.volumes.store.write_bytes(self.volumes.root.lease_reference(volume), rebased.encode())

    def _forget(self, volume: str, version: str) -> None:
        for name in [name for name in self.model if (name.volume, name.id) == (volume, version)]:
            del self.model[name]


def pack_module_time(pack: bytes) -> float:
    """When a pack was made, by its id."""
    return int.from_bytes(pack[:6], "big") / 1000


TestCollections = Collections.TestCase
TestCollections.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


def orphan(volumes: Volumes, content: bytes = b"never published" * 100) -> None:
    """Leaves a data pack and an index pack that no version names."""
    writer = volumes.chunks.writer()
    writer.add(content)
    writer.flush()
    writer.close()
    index = volumes.chunks.index_writer()
    index.add(content)
    index.flush()
    index.close()
