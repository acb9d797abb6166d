"""The life of a daemon: open, mount, say so, serve, unmount, close."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from attrs import evolve

from datastore.context import deadline
from datastore.events import get_logger
from stowstore.chunks.encryption import KeySource, Passphrase
from stowstore.config import Measuring
from stowstore.daemon.commands import Commands
from stowstore.daemon.hosting import Hosted, open_session
from stowstore.daemon.listening import ControlServer
from stowstore.daemon.mounted import Mounted
from stowstore.fuse.device import MountFailed, mount
from stowstore.fuse.options import FuseOptions, KernelCache
from stowstore.fuse.server import FuseServer
from stowstore.mounts import control, table
from stowstore.mounts.options import MountRequest
from stowstore.namespace.background import stay_behind
from stowstore.versions.session import Session
from stowstore.volumes import ROVolume, Volume
from stowstore.volumes.registry import registry

if TYPE_CHECKING:
    from metrics import MetricsServer

__all__ = ["main"]

_log = get_logger(part="mount")


def main(request: MountRequest, *, answer: int, log: str, lifeline: int | None) -> int:
    """Serves one mount from beginning to end; the exit status."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s %(message)s"
    )
    try:
        mounted = _begin(request)
    except BaseException as error:
        _say(answer, {"failed": control.as_failure(error)})
        logging.getLogger("stowstore").error("the mount failed", exc_info=error)
        registry.close_all()
        return 1
    record, socket = table.names_of(request.path)
    hosted = None if request.hosting is None else Hosted(mounted, request.hosting, request.options.lifetime)
    commands = Commands(mounted, hosted)
    metrics: MetricsServer | None = None
    ending = threading.Lock()

    def end() -> None:
        # The metrics end with the process: their server takes half a second to be closed.
        if hosted is not None:
            hosted.close()
        mounted.close()
        registry.close_all()
        # A daemon that outlived its path leaves alone what another one has put there since.
        if (listed := table.find(request.path)) is None or listed.pid == os.getpid():
            record.unlink(missing_ok=True)

    try:
        if request.options.metrics_port is not None:
            from stowstore.daemon.metrics import serve_metrics

            metrics = serve_metrics(mounted, request.options.metrics_port)
        with ControlServer(socket, commands) as listening:

            def leave() -> None:
                commands.wait()
                with ending:
                    listening.close()
                    end()
                    # The serving thread sleeps in the kernel for good; the end of the process wakes everybody.
                    os._exit(0)

            mounted.leave = leave
            threading.Thread(
                target=_announce,
                args=(mounted, answer, log, str(socket), None if metrics is None else metrics.port),
                daemon=True,
            ).start()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, _unmounts(mounted))
            if hosted is not None:
                hosted.start()
            if lifeline is not None:
                threading.Thread(target=_watch, args=(mounted, lifeline), daemon=True).start()
            mounted.server.run()
            mounted.ended()
            commands.wait()
            ending.acquire()
    finally:
        end()
        os.close(mounted.server.device)
    return 0


def _begin(request: MountRequest) -> Mounted:
    stay_behind()
    if request.options.metrics_port is None:
        registry.measuring = Measuring.IF_HEARD
    volume: Any = Volume.from_dict(request.volume)
    Volume.configure(volume.bucket, options=request.access or None, key=_key(request))
    if request.seen:
        registry.remove(volume._key(), "is not open yet", None)
    with _in_time(request):
        if request.hosting is not None:
            session = open_session(volume, request.opening, request.hosting)
        else:
            volume.blocking.open(**request.opening)
            session = registry.require(volume._key()).session
    options = request.options
    # Where no file of a version can have attributes, the kernel need not ask: `ls -l` does so for every one.
    xattrs = options.xattrs and not (isinstance(volume, ROVolume) and not session.files.has_stored_xattrs)
    found = FuseOptions(
        attr_seconds=options.attr_cache,
        entry_seconds=options.entry_cache,
        directory_seconds=options.dir_entry_cache,
        # What nobody writes needs no cache of writes, beside which no file can be passed through.
        kernel_cache=KernelCache.WRITE_THROUGH if session.read_only else KernelCache(options.kernel_cache),
        xattrs=xattrs,
        spin=options.spin,
    )
    plain_files, no_plain_files = _plain_files(session)
    found = evolve(found, passthrough=plain_files)
    _require_outside(request.path, volume, session)
    device = mount(
        request.path, source=f"stowstore#{volume.name}", read_only=session.read_only, allow_other=options.allow_other
    )
    try:
        on_flush = None if options.writeback or session.read_only else lambda _: session.files.upload()
        server = FuseServer(session.files, device, found, on_flush=on_flush)
        return Mounted(volume, request.path, session, server, no_passthrough=no_plain_files)
    except BaseException:
        os.close(device)
        raise


def _in_time(request: MountRequest) -> contextlib.AbstractContextManager[object]:
    """Has a store that does not answer fail while there is somebody to be told what did not."""
    if request.opened_by is None:
        return contextlib.nullcontext()
    return deadline(max(0.0, round(request.opened_by - time.monotonic(), 1)))


def _require_outside(path: Path, volume: Any, session: Session) -> None:
    """Raises where a mount would hide what the daemon itself needs, which would then wait for itself."""
    needed = {
        "the control sockets": table.runtime_directory(),
        "the journal": session.meta_dir,
        "the cache": session.cache_dir,
        "the root": Path(unquote(urlsplit(volume.bucket).path)) if volume.storage == "file" else None,
        "the program": Path(__file__),
        "Python": Path(sys.prefix),
    }
    for what, place in needed.items():
        if place is not None and place.resolve().is_relative_to(path):
            raise MountFailed(f"{path} holds {what} of the mount, {place}", hint="mount on a directory beside it")


def _plain_files(session: Session) -> tuple[Path | None, str]:
    """Where plain files are kept for the kernel to read by itself, or why nowhere."""
    if not session.read_only:
        return None, "the mount is written"
    if session.chunks.codec.is_sealed:
        return None, "the root is encrypted, and its content does not lie on a disk in the clear"
    if session.cache_dir is None:
        return None, "the mount has no cache directory"
    return session.cache_dir, ""


def _key(request: MountRequest) -> KeySource | None:
    if request.key is None:
        return None
    kind, text = request.key
    return Passphrase(text) if kind == "passphrase" else bytes.fromhex(text)


def _announce(mounted: Mounted, answer: int, log: str, socket: str, metrics_port: int | None) -> None:
    """Tells whoever started us that the path answers, and lists the mount."""
    mounted.server.started.wait()
    with contextlib.suppress(OSError):
        os.stat(mounted.path)
    pid = os.getpid()
    table.remember(
        table.MountRecord(
            path=str(mounted.path),
            volume=f"{mounted.volume.bucket}#{mounted.volume.name}",
            pid=pid,
            started=table.started_at(pid) or 0,
            socket=socket,
            log=log,
            read_only=mounted.session.read_only,
            metrics_port=metrics_port,
            since=time.time(),
        )
    )
    _say(answer, {"done": {"pid": pid}})
    _log.info("mount.ready", path=str(mounted.path), volume=mounted.volume.name)


def _say(answer: int, message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(answer, json.dumps(message).encode() + b"\n")
    os.close(answer)


def _unmounts(mounted: Mounted) -> Any:
    def ask(number: int, frame: FrameType | None) -> None:
        # The kernel needs our answers while it unmounts, so another thread waits for it.
        threading.Thread(target=mounted.unmount, daemon=True).start()

    return ask


def _watch(mounted: Mounted, lifeline: int) -> None:
    """Unmounts when the parent has ended: nobody ever writes into the pipe, so it is readable then."""
    while os.read(lifeline, 1):
        pass
    _log.info("mount.parent_ended", path=str(mounted.path))
    mounted.unmount()
