"""Commands about mounts: mount, umount, mounts, commit, finalize, stats, warmup, refresh."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from datastore.context import deadline
from datastore.errors import NoSuchContainer
from stowstore.cli.opening import Opener, kind_options, option_pairs
from stowstore.cli.output import echo_json, echo_table, json_option, size_text, time_text
from stowstore.mounts import table, unmounting
from stowstore.mounts.control import ask
from stowstore.mounts.options import Lifetime, MountOptions
from stowstore.versions.address import VolumeAddress
from stowstore.versions.errors import NoSuchVolume
from stowstore.versions.root import MADE_ON_DEMAND
from stowstore.volumes import ROVolume, RWVolume, Volume
from stowstore.volumes.mounting import await_end

__all__ = ["commit", "finalize", "mount", "mounts", "refresh", "stats", "umount", "warmup"]

#: How long `stats` waits for a daemon when nothing is said, seconds.
_STATS_PATIENCE = 10.0

_PATH = click.Path(path_type=Path)


class _MountPath(click.ParamType[Path]):
    """A path where something may be mounted, taken as it is: `click.Path` looks there, and a mount may hang."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if not os.fspath(value):
            self.fail("a path is empty: name a directory", param, ctx)
        return Path(value)


_MOUNT_PATH = _MountPath()


@click.command()
@click.argument("volume")
@click.argument("path", type=_MOUNT_PATH)
@click.option("--create", is_flag=True, help="Make the volume if there is none of that name.")
@click.option("--read-only", is_flag=True, help="Show the newest version; any number of such mounts at once.")
@click.option("--meta-dir", type=_PATH, metavar="DIR", help="Where the journal is kept.")
@click.option("--cache-dir", type=_PATH, metavar="DIR", help="Where data are kept until uploaded, and what was read.")
@click.option("--writeback/--no-writeback", default=True, help="Upload in the background, or before a close answers.")
@click.option("--upload-delay", metavar="DURATION", help='Leave young data alone for so long, such as "30s".')
@click.option("--max-uploads", type=click.IntRange(1), default=50, show_default=True, help="Parallel uploads.")
@click.option("--attr-cache", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds.")
@click.option("--entry-cache", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds.")
@click.option("--dir-entry-cache", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds.")
@click.option(
    "--kernel-cache",
    type=click.Choice(["writethrough", "writeback"]),
    default="writethrough",
    show_default=True,
    help="Hand every write on at once, or let the kernel gather small ones.",
)
@click.option("--no-xattrs", is_flag=True, help="Without extended attributes: one request less for each new file.")
@click.option("--allow-other/--no-allow-other", default=None, help="Let other users in, as the mode bits say.")
@click.option("--spin", type=click.FloatRange(0), default=0.0, help="Seconds to ask again before sleeping (uses CPU).")
@click.option(
    "--metrics-port", type=click.IntRange(0, 65535), default=0, help="Port of /metrics; a free one by default."
)
@click.option("--log-file", type=_PATH, metavar="FILE", help="Where the daemon logs.")
@click.option("--key", metavar="env:NAME|file:PATH", help="The key of an encrypted root.")
@kind_options
@click.option("--wait", type=click.FloatRange(min=0.1), default=60.0, show_default=True, help="Seconds to be ready in.")
@json_option
@click.pass_obj
def mount(
    opener: Opener,
    volume: str,
    path: Path,
    create: bool,
    read_only: bool,
    meta_dir: Path | None,
    cache_dir: Path | None,
    writeback: bool,
    upload_delay: str | None,
    max_uploads: int,
    attr_cache: float,
    entry_cache: float,
    dir_entry_cache: float,
    kernel_cache: str,
    no_xattrs: bool,
    allow_other: bool | None,
    spin: float,
    metrics_port: int,
    log_file: Path | None,
    key: str | None,
    options: tuple[str, ...],
    wait: float,
    as_json: bool,
) -> None:
    """Mount a VOLUME (ROOT#NAME), or a version of one for reading, at PATH; it stays until it is unmounted.

    \b
    Examples:
      stowstore mount --create file:///data/root#training /mnt/training
      stowstore mount "s3://bucket/root#training@v1" /mnt/training-v1
      stowstore commit /mnt/training -m "epoch 1"
      stowstore umount /mnt/training
    """
    address = VolumeAddress.parse(volume)
    given = {**opener.options, **option_pairs(options)}
    Volume.configure(address.root, options=given, key=key)
    told = MountOptions(
        kernel_cache=kernel_cache,
        xattrs=not no_xattrs,
        allow_other=allow_other,
        spin=spin,
        lifetime=Lifetime.OWN,
        metrics_port=metrics_port,
        log_file=None if log_file is None else str(log_file),
    )
    shared: dict[str, Any] = {
        "cache_dir": cache_dir,
        "attr_cache": attr_cache,
        "entry_cache": entry_cache,
        "dir_entry_cache": dir_entry_cache,
        "options": told,
    }
    began = time.perf_counter()
    with deadline(wait), opener.limits():
        found = _volume(address, create)
        if isinstance(found, ROVolume):
            found.blocking.mount(path, timeout=wait, **shared)
        else:
            found.blocking.mount(
                path,
                meta_dir=meta_dir,
                timeout=wait,
                writeback=writeback,
                upload_delay=upload_delay,
                max_uploads=max_uploads,
                read_only=read_only,
                **shared,
            )
    record = table.find(path)
    if as_json:
        echo_json(_described(record) if record else {"path": str(path)})
    else:
        click.echo(f"mounted {volume} at {path} in {time.perf_counter() - began:.2f} s")


@click.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=_MOUNT_PATH)
@click.option("--lazy", "-l", is_flag=True, help="Also from programs that work there: they get errors from then on.")
@click.option("--force", "-f", is_flag=True, help="Cut the daemon off at once; what was fsynced is in the journal.")
@click.option("--wait", type=click.FloatRange(0), default=30.0, show_default=True, help="Seconds to end by itself.")
def umount(paths: tuple[Path, ...], lazy: bool, force: bool, wait: float) -> None:
    """Unmount; what is not committed stays in the journal of the volume for the next mount.

    Works on whatever a mount has become: a daemon that hangs is cut off, what one that died has left is cleaned up.
    """
    for path in paths:
        unmounting.unmount(path, timeout=wait, force=force, lazily=lazy)


@click.command()
@json_option
def mounts(as_json: bool) -> None:
    """List what is mounted by this user on this host."""
    records = [_described(record) for record in table.known()]
    if as_json:
        echo_json(records)
        return
    echo_table(
        ("path", "volume", "state", "pid", "since", "metrics"),
        [
            (
                one["path"],
                one["volume"],
                one["state"],
                one["pid"],
                time_text(datetime.fromtimestamp(one["since"], UTC)),
                one["metrics"] or "",
            )
            for one in records
        ],
        right=frozenset({3}),
    )


@click.command()
@click.argument("path", type=_MOUNT_PATH)
@click.option("-m", "--message", help="What the version is.")
@json_option
@click.pass_obj
def commit(opener: Opener, path: Path, message: str | None, as_json: bool) -> None:
    """Publish the present state of the volume mounted at PATH as a version; it stays mounted, and writers go on."""
    with opener.limits():
        _tell(ask(path, "commit", message=message), as_json)


@click.command()
@click.argument("path", type=_MOUNT_PATH)
@click.option("-m", "--message", help="What the version is.")
@json_option
@click.pass_obj
def finalize(opener: Opener, path: Path, message: str | None, as_json: bool) -> None:
    """Unmount the volume at PATH and publish what it holds."""
    with opener.limits():
        answer = ask(path, "finalize", message=message)
    await_end(path)
    _tell(answer, as_json)


@click.command()
@click.argument("path", type=_MOUNT_PATH)
@click.option("-w", "--watch", type=click.FloatRange(min=0.1), metavar="SECONDS", help="Show it again and again.")
@json_option
@click.pass_obj
def stats(opener: Opener, path: Path, watch: float | None, as_json: bool) -> None:
    """Show what a mount holds and does: requests of the kernel, bytes, caches, what is not yet committed."""

    def asked() -> dict[str, Any]:
        with opener.limits(_STATS_PATIENCE):
            return ask(path, "stats")

    found = asked()
    if as_json:
        echo_json(found)
    elif watch is None:
        echo_table(("", ""), _rows(found))
    else:
        _watched(asked, found, watch)


@click.command()
@click.argument("path", type=_MOUNT_PATH)
@click.argument("below", metavar="[DIRECTORY]...", nargs=-1)
@json_option
@click.pass_obj
def warmup(opener: Opener, path: Path, below: tuple[str, ...], as_json: bool) -> None:
    """Read the files of the volume mounted at PATH into its daemon's caches; those below directories of it only."""
    with opener.limits():
        answer = ask(path, "warmup", paths=list(below) or None)
    if as_json:
        echo_json(answer)
    else:
        click.echo(f"read {answer['files']} files, {size_text(answer['bytes'])}")


@click.command()
@click.argument("path", type=_MOUNT_PATH)
@json_option
@click.pass_obj
def refresh(opener: Opener, path: Path, as_json: bool) -> None:
    """Move the read-only mount at PATH to the newest version of its volume; open files stay as they are."""
    with opener.limits():
        answer = ask(path, "refresh")
    if as_json:
        echo_json(answer)
    else:
        click.echo(f"{answer['locator']} ({answer['changed']} records differ)")


def _volume(address: VolumeAddress, create: bool) -> RWVolume | ROVolume:
    text = str(address)
    try:
        found = Volume.blocking.at(text)
        assert isinstance(found, (RWVolume, ROVolume))
        return found
    except NoSuchVolume as error:
        on_demand = address.root.partition("://")[0] in MADE_ON_DEMAND
        if address.version is not None or (isinstance(error.__cause__, NoSuchContainer) and not on_demand):
            raise
        if not create:
            raise NoSuchVolume(error.message, hint="make it: stowstore mount --create") from error
    made = Volume.new(address.volume, address.root)
    # It exists from now on, whatever becomes of the mount.
    with made.blocking:
        made.blocking.commit("created")
    return made


def _described(record: table.MountRecord) -> dict[str, Any]:
    state = "dead"
    if record.is_alive:
        state = "reading" if record.read_only else "writing"
    return {
        "path": record.path,
        "volume": record.volume,
        "state": state,
        "pid": record.pid,
        "since": record.since,
        "metrics": f"http://127.0.0.1:{record.metrics_port}/metrics" if record.metrics_port else None,
        "socket": record.socket,
        "log": record.log,
    }


def _tell(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(answer)
    else:
        click.echo(answer["locator"])


def _rows(found: dict[str, Any], before: dict[str, Any] | None = None) -> list[tuple[str, str]]:
    """What is shown of the statistics, with rates where there was an earlier look."""
    seconds = 0.0 if before is None else found["up_seconds"] - before["up_seconds"]

    def rate(now: float, then: float, text: Any) -> str:
        return f"{text(now)}" + (f"   {text((now - then) / seconds)}/s" if seconds > 0 else "")

    rows = [
        ("volume", found["volume"]),
        ("newest version", found["base"] or "none yet"),
        ("mounted at", found["path"] + (" (read only)" if found["read_only"] else "")),
        ("up", f"{found['up_seconds']:.0f} s, process {found['pid']}"),
        ("holds", f"{size_text(found['used_bytes'])} in {found['inodes']} inodes"),
        ("not committed", f"{found['changed_inodes']} inodes; {size_text(found['staged_bytes'])} staged"),
        ("open", f"{found['open_handles']} files and directories"),
        ("read", rate(found["read_bytes"], before["read_bytes"] if before else 0, size_text)),
        ("written", rate(found["written_bytes"], before["written_bytes"] if before else 0, size_text)),
        ("fetched", f"{size_text(found['reader']['fetched_bytes'])} in {found['reader']['requests']} requests"),
        ("waiting", f"{found['in_workers']} requests; {found['handed_over']} had to wait so far"),
    ]
    requests = found["requests"]
    earlier = before["requests"] if before else {}
    for name, count in sorted(requests.items(), key=lambda pair: -pair[1])[:12]:
        rows.append((f"  {name}", rate(count, earlier.get(name, 0), lambda number: f"{number:.0f}")))
    return rows


def _watched(asked: Callable[[], dict[str, Any]], found: dict[str, Any], seconds: float) -> None:
    from rich.live import Live
    from rich.table import Table

    before = None
    with Live(auto_refresh=False, transient=False) as live:
        while True:
            shown = Table(box=None, pad_edge=False, show_header=False)
            shown.add_column(style="bold")
            shown.add_column()
            for row in _rows(found, before):
                shown.add_row(*row)
            live.update(shown, refresh=True)
            time.sleep(seconds)
            before, found = found, asked()
