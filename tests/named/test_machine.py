"""The registry against a model: whatever is done in whatever order, both say the same."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from stowstore.named import Holder, NamedVolumes
from stowstore.named.attachments import Attachment
from stowstore.named.errors import BelowUsed, VolumeExists, VolumeInUse, VolumeNotFound
from stowstore.named.registry import Registry

_names = st.sampled_from(["a", "b", "c"])
_sizes = st.integers(1, 64).map(lambda number: number * 4096)


@define
class _Known:
    size: int
    used: int
    labels: dict[str, str]
    jobs: list[Attachment]


class RegistryMachine(RuleBasedStateMachine):
    """Volumes of plain directories, which any user of any host can have."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="named-machine-"))
        self.volumes = NamedVolumes(self.directory / "v")
        self.known: dict[str, _Known] = {}

    @rule(name=_names, size=_sizes)
    def create(self, name: str, size: int) -> None:
        """A name is given once."""
        try:
            self.volumes.create(name, size=size, backing="directory")
            assert name not in self.known
            self.known[name] = _Known(size, 0, {}, [])
        except VolumeExists:
            assert name in self.known

    @rule(name=_names, force=st.booleans())
    def remove(self, name: str, force: bool) -> None:
        """Only what nobody uses is removed, or what is forced."""
        try:
            self.volumes.remove(name, force=force)
            known = self.known.pop(name)
            assert force or not known.jobs
            for job in known.jobs:
                job.release()
        except VolumeNotFound:
            assert name not in self.known
        except VolumeInUse as error:
            named = error.jobs
            assert not force
            assert len(named) == len(self.known[name].jobs)

    @rule(name=_names, pages=st.integers(0, 8))
    def write(self, name: str, pages: int) -> None:
        """What a volume holds is what was written."""
        if name in self.known:
            with self.volumes.attach(name, holder=Holder(job="writer")) as attached:
                (attached.path / "f").write_bytes(b"x" * pages * 4096)
            self.known[name].used = pages * 4096

    @rule(name=_names, size=_sizes)
    def resize(self, name: str, size: int) -> None:
        """Never below what it holds."""
        try:
            self.volumes.resize(name, size)
            assert self.known[name].used <= size
            self.known[name].size = size
        except VolumeNotFound:
            assert name not in self.known
        except BelowUsed:
            assert self.known[name].used > size

    @rule(name=_names, key=st.sampled_from("xy"), value=st.sampled_from(["1", "2", None]))
    def label(self, name: str, key: str, value: str | None) -> None:
        """Labels are set and taken away one by one."""
        try:
            self.volumes.label(name, {key: value})
        except VolumeNotFound:
            assert name not in self.known
            return
        self.known[name].labels.pop(key, None)
        if value is not None:
            self.known[name].labels[key] = value

    @rule(name=_names)
    def attach(self, name: str) -> None:
        """A job takes a lease."""
        try:
            attached = self.volumes.attach(name, holder=Holder(job=f"job-{len(self.known)}"))
            self.known[name].jobs.append(attached)
        except VolumeNotFound:
            assert name not in self.known

    @rule(name=_names)
    def release(self, name: str) -> None:
        """And gives it back."""
        if name in self.known and self.known[name].jobs:
            self.known[name].jobs.pop().release()

    @rule(name=_names, new=_names)
    def clone(self, name: str, new: str) -> None:
        """A clone has what its source has, and no job."""
        try:
            self.volumes.clone(name, new)
        except VolumeExists:
            assert new in self.known
        except VolumeNotFound:
            assert name not in self.known
        else:
            source = self.known[name]
            self.known[new] = _Known(source.size, source.used, dict(source.labels), [])

    @rule()
    def restart(self) -> None:
        """Another process finds everything as it was."""
        self.volumes = NamedVolumes(self.volumes.base)
        self.volumes.recover()

    @invariant()
    def agree(self) -> None:
        """Names, sizes, labels and jobs are those of the model, and nothing else lies about."""
        shown = {info.name: info for info in self.volumes.list()}
        assert shown.keys() == self.known.keys()
        for name, known in self.known.items():
            info = shown[name]
            assert info.record is not None
            assert (info.record.size_bytes, dict(info.record.labels)) == (known.size, known.labels)
            assert len(info.jobs) == len(known.jobs)
            assert self.volumes.usage(name).used_bytes == known.used
        registry = Registry(self.volumes.base)
        areas = {path.name for path in (self.volumes.base / ".areas").glob("*")}
        assert {registry.load(name).id for name in self.known} <= areas

    def teardown(self) -> None:
        for known in self.known.values():
            for job in known.jobs:
                job.release()
        shutil.rmtree(self.directory, ignore_errors=True)


TestRegistryMachine = RegistryMachine.TestCase
TestRegistryMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
