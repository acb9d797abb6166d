"""`run_job`: resolves, leases and attaches every volume of a job, starts it, stays with it, and lets go.

Nothing is started unless everything is there.  The job holds its leases itself, so they do not depend on this process;
what this process adds is that signals and the exit status pass, and that nothing is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import copy_context
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final

from attrs import frozen

from stowstore.jobs import uploads
from stowstore.jobs.errors import JobNotStarted
from stowstore.jobs.gate import gate
from stowstore.jobs.leash import Leash
from stowstore.jobs.memory import Enforcement, MemoryGroup, make_group
from stowstore.jobs.process import JobProcess, Output, SignalsPassedOn
from stowstore.jobs.request import VOLUMES, WORK, Job, VolumeRequest
from stowstore.jobs.sandbox import View, choose
from stowstore.jobs.settings import Settings
from stowstore.jobs.system import Bind, base_environment, system_binds, system_links
from stowstore.mounts.nursery import nursery
from stowstore.named import Access, Attachment, Holder, NamedVolumes, VolumeRecord
from stowstore.named.registry import Registry
from stowstore.versions.ulid import new_ulid

__all__ = ["JobResult", "JobVolume", "run_job"]

#: Where a job finds what the registry knows of its volumes.
_ABOUT: Final = VOLUMES / ".meta"


@frozen(kw_only=True)
class JobVolume:
    """A volume as a job saw it."""

    name: str
    snapshot: str | None
    path: str
    read_only: bool
    backing: str
    enforced: bool


@frozen(kw_only=True)
class JobResult:
    """How a job ended: ``exit_code`` is its own, or 128 and the number of the signal that ended it.

    ``started`` is when its command was, and ``seconds`` how long it ran; ``preparing`` is how long everything before
    that took.  ``memory_enforced`` says what held it to its limit of memory, and ``memory_exceeded`` whether the kernel
    had to end something of it for that.
    """

    job: str
    command: tuple[str, ...]
    exit_code: int
    volumes: tuple[JobVolume, ...]
    sandbox: str
    started: datetime
    preparing: float
    seconds: float
    memory: int | None = None
    memory_enforced: Enforcement | None = None
    memory_exceeded: bool = False


def _quiet(text: str) -> None:
    """Shows no notice."""


def run_job(
    job: Job,
    volumes: NamedVolumes | None = None,
    *,
    settings: Settings | None = None,
    signals: SignalsPassedOn | None = None,
    output: Output = Output.STDOUT,
    notice: Callable[[str], None] = _quiet,
) -> JobResult:
    """Runs a job to its end, in the thread that calls; a job that is not to survive us ends with that thread.

    ``notice`` is told, before the job starts, which limits are not kept as they were asked for.

    Raises:
        VolumeNotFound, NoSuchVersion: a volume is not there.  The command was not started, as with all that follow.
        InvalidJob: the uploads cannot be.
        NoSandbox, JobNotStarted: the job cannot be isolated.
        StoreError, OSError: a volume cannot be mounted.
    """
    began = time.monotonic()
    told = Settings.from_environment() if settings is None else settings
    known = NamedVolumes() if volumes is None else volumes
    name = new_ulid().lower()
    sandbox = choose(told.sandbox)
    scratch = job.scratch or (told.with_volumes if job.volumes else told.without_volumes)
    with contextlib.ExitStack() as stack:
        records = _resolved(job.volumes, known)
        archive = uploads.pack(job.files, job.directories, room=scratch)
        if archive is not None:
            stack.callback(os.close, archive)
        attached = stack.enter_context(_attached(job, name, known))
        group = None if job.memory is None else make_group(name, job.memory)
        if group is not None:
            stack.callback(group.remove)
        for text in _notices(job, records, group):
            notice(text)
        command = gate(
            job.command,
            workdir=job.workdir,
            unpack=None if archive is None else WORK,
            address_space=job.memory if group is None else None,
        )
        launch = sandbox.launch(_view(job, name, attached, records, told, scratch), command, job.when_orphaned)
        leash = stack.enter_context(Leash([held for volume in attached for held in volume.pass_fds]))
        if signals is not None:
            signals.hold_back()
        process = JobProcess.start(
            launch.command if group is None else group.entering(launch.command),
            leash=leash,
            inputs=launch.inputs,
            uploads=archive,
            output=output,
        )
        stack.callback(process.close)
        prepared, started = time.monotonic() - began, datetime.now(UTC)
        status = _watched(process, signals)
        if not process.has_started:
            raise JobNotStarted(
                f"the job could not be started: {sandbox.name} ended with {status}", hint="standard error says why"
            )
        return JobResult(
            job=name,
            command=job.command,
            exit_code=status,
            volumes=tuple(_described(request, records[request.name]) for request in job.volumes),
            sandbox=sandbox.name,
            started=started,
            preparing=prepared,
            seconds=time.monotonic() - began - prepared,
            memory=job.memory,
            memory_enforced=_enforcement(job, group),
            memory_exceeded=group is not None and group.was_exceeded,
        )


def _resolved(requests: Sequence[VolumeRequest], volumes: NamedVolumes) -> dict[str, VolumeRecord]:
    """Looks for every volume before anything is mounted: most often it is a name that is wrong."""
    registry = Registry(volumes.base)
    return {request.name: registry.load(request.name) for request in requests}


@contextlib.contextmanager
def _attached(job: Job, name: str, volumes: NamedVolumes) -> Iterator[list[Attachment]]:
    """The volumes of a job, mounted side by side: that one takes a second must not take three for three."""
    holder = Holder(job=name, command=shlex.join(job.command))
    with contextlib.ExitStack() as stack:
        found: list[Attachment] = []
        if job.volumes:
            from concurrent.futures import ThreadPoolExecutor

            with nursery(), ThreadPoolExecutor(len(job.volumes), "attach") as pool:
                starting = [
                    pool.submit(
                        copy_context().run,
                        volumes.attach,
                        request.name,
                        access=request.access,
                        holder=holder,
                        snapshot=request.snapshot,
                    )
                    for request in job.volumes
                ]
                try:
                    found += [future.result() for future in starting]
                finally:
                    for future in starting:
                        # Whichever failed, or if we were told to stop: the others are let go.
                        if not future.cancel() and future.exception() is None:
                            stack.callback(future.result().release)
        yield found


def _view(
    job: Job,
    name: str,
    attached: Sequence[Attachment],
    records: Mapping[str, VolumeRecord],
    settings: Settings,
    scratch: int,
) -> View:
    binds = system_binds(settings.system)
    documents: dict[PurePosixPath, bytes] = {}
    for request, volume in zip(job.volumes, attached, strict=True):
        binds.append(Bind(source=Path(os.path.realpath(volume.path)), target=request.path, read_only=volume.read_only))
        about = _about(request, records[request.name])
        documents[_ABOUT / f"{request.name}.json"] = about
    return View(
        # A volume may be put into a directory of the job's own, and then comes after it.
        binds=tuple(sorted(binds, key=lambda bind: len(bind.target.parts))),
        links=system_links(),
        directories=(VOLUMES,),
        documents=documents,
        scratch=scratch,
        environment={**base_environment(name, os.environ), **job.environment},
    )


def _about(request: VolumeRequest, record: VolumeRecord) -> bytes:
    """What a job may know of a volume; where its host keeps it is not among that."""
    data = {
        "name": record.name,
        "type": record.type,
        "size": record.size,
        "size_bytes": record.size_bytes,
        "inodes": record.inodes,
        "backing": record.backing,
        "enforced": record.enforced,
        "created_time": record.created_time,
        "labels": dict(record.labels),
        "snapshot": request.snapshot,
        "mount_path": str(request.path),
        "access": request.access,
    }
    return json.dumps(data, indent=1).encode() + b"\n"


def _watched(process: JobProcess, signals: SignalsPassedOn | None) -> int:
    while True:
        status = process.wait(None if signals is None else signals.descriptor)
        if status is not None:
            return status
        for number in signals.received() if signals is not None else ():
            process.send(number)


def _notices(job: Job, records: Mapping[str, VolumeRecord], group: MemoryGroup | None) -> Iterator[str]:
    for record in records.values():
        if not record.enforced:
            yield f"volume {record.name} is a plain {record.backing}: its size of {record.size} is not enforced"
    if job.memory is not None and group is None:
        yield "no control group can be made here: memory is limited for each process by itself, not for the job"


def _described(request: VolumeRequest, record: VolumeRecord) -> JobVolume:
    return JobVolume(
        name=request.name,
        snapshot=request.snapshot,
        path=str(request.path),
        read_only=request.access is Access.RO,
        backing=str(record.backing),
        enforced=record.enforced,
    )


def _enforcement(job: Job, group: MemoryGroup | None) -> Enforcement | None:
    if job.memory is None:
        return None
    return Enforcement.ADDRESS_SPACE if group is None else Enforcement.CGROUP
