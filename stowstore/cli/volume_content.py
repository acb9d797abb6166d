"""Commands that bring files into volumes and out of them: create, import, export, cp."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import click

from datastore.errors import ConfigError
from stowstore.chunks.encryption import Encryption
from stowstore.cli.dask import cluster_at, dask_option
from stowstore.cli.output import echo_json, json_option, size_text
from stowstore.cli.transfers import status_line
from stowstore.cli.volume_access import Access, VolumePath, printable, volume_command
from stowstore.cli.volume_browsing import file_pieces
from stowstore.named.archiving import TAR_SUFFIXES, tar_file
from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import ROOT
from stowstore.transfer import (
    TransferReport,
    export_directory,
    export_spread,
    export_tar,
    import_directory,
    import_spread,
    import_tar,
)
from stowstore.transfer.import_notes import ImportNotes
from stowstore.transfer.paths import attributes_or_none, find, make_directories, parts_of
from stowstore.transfer.xattrs import SourceXattrs, give_xattrs, update_xattrs, xattrs_of
from stowstore.versions.errors import RootInUse
from stowstore.versions.options import CommitOptions
from stowstore.versions.root import RootFormat
from stowstore.versions.session import Session
from stowstore.whole_files import whole_file

__all__ = ["cp", "create", "export", "import_"]

_PIECE = 4 << 20
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}

_message = click.option("-m", "--message", help="What the new version says of itself.")
_parallel = click.option(
    "-j", "--parallel", type=click.IntRange(1, 256), default=8, show_default=True, help="Files at the same time."
)


class _Size(click.ParamType[int]):
    """Bytes: a number, or one with a unit of 1024, such as 500M, 20GiB."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip().lower().removesuffix("b").removesuffix("i")
        unit = text[-1:] if text[-1:] in _UNITS else ""
        number = text.removesuffix(unit)
        try:
            size = int(float(number) * _UNITS[unit])
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no size; write 500M or 20GiB", param, ctx)
        if size < 0:
            self.fail("a size is not negative", param, ctx)
        return size


@click.command()
@click.argument("volume")
@click.option("--encrypt", is_flag=True, help="Make an encrypted root, with the key --key names.")
@click.option("--limit-bytes", type=_Size(), metavar="SIZE", help="Bytes the volume may hold, such as 20GiB.")
@click.option("--limit-inodes", type=click.IntRange(min=1), metavar="N", help="Files and directories it may hold.")
@_message
@json_option
@volume_command
def create(
    access: Access,
    volume: str,
    encrypt: bool,
    limit_bytes: int | None,
    limit_inodes: int | None,
    message: str | None,
    as_json: bool,
) -> None:
    """Make an empty volume, and its root where there is none. Containers (buckets) are not made.

    \b
    Examples:
      stowstore volume create file:///data/root#training --limit-bytes 20GiB
      stowstore volume create "s3://bucket/safe?region=eu-west-1#training" --encrypt --key file:/run/secrets/volume
    """
    address = access.address(volume)
    if address.version is not None:
        raise click.UsageError("a new volume has no version yet: leave the @ out")
    if encrypt and access.key is None:
        raise click.UsageError("--encrypt needs --key env:NAME or --key file:PATH")
    form = RootFormat(encryption=Encryption.create(access.key)[0].to_data() if encrypt and access.key else None)
    root = access.root(address.root, create=form)
    if encrypt and root.format.encryption is None:
        raise ConfigError(f"{address.root} is a root already, and not encrypted", hint="choose another prefix")
    if root.has_volume(address.volume):
        raise RootInUse(f"there is a volume {address.volume!r} already", hint="choose another name")
    with access.write(root, address.volume) as session:
        session.files.set_limits(limit_bytes=limit_bytes, limit_inodes=limit_inodes)
        made = session.commit(CommitOptions(message=message))
    if as_json:
        echo_json({"volume": f"{address}", "version": made.id, "locator": f"{address}@{made.id}:{made.name.digest}"})
    else:
        click.echo(f"{address}@{made.id}")


@click.command("import")
@click.argument("source", metavar="DIRECTORY|-", type=click.Path(path_type=Path, exists=True, allow_dash=True))
@click.argument("volume")
@_message
@_parallel
@dask_option
@json_option
@volume_command
def import_(
    access: Access, source: Path, volume: str, message: str | None, parallel: int, dask: str | None, as_json: bool
) -> None:
    """Bring a directory, or a tar stream on standard input (-), into VOLUME[:/path] and commit.

    What is in the volume already and has not changed is left as it is; what fails leaves the volume as it was. Files
    that cannot be read are left out, told, and make the status 1.

    With --dask workers read the files: they have to see DIRECTORY under the same path. An import that was interrupted
    is gone on with by the next one within a day.

    \b
    Examples:
      stowstore volume import ./dataset file:///data/root#training -m "first data"
      tar c src | stowstore volume import - file:///data/root#training:/src
    """
    place = VolumePath.parse(volume)
    if dask is not None and str(source) == "-":
        raise click.UsageError("a stream has one reader: --dask imports directories")
    with cluster_at(dask) as cluster, access.writing(place.address) as session:
        notes = None if cluster is None else ImportNotes(session.root, session.volume)
        with status_line("importing") as say:

            def tell(report: TransferReport) -> None:
                say(f"imported {report.files} files, {size_text(report.bytes)}")

            if cluster is not None and notes is not None:
                worked_on = access.place(place.address.root)
                report = import_spread(
                    session.files, source, place.path, cluster=cluster, root=worked_on, notes=notes, on_progress=tell
                )
            elif str(source) == "-":
                report = import_tar(session.files, sys.stdin.buffer, place.path, on_progress=tell)
            else:
                report = import_directory(session.files, source, place.path, parallel=parallel, on_progress=tell)
        version = _commit(session, message)
        if notes is not None:
            notes.end()
    _finish("imported", report, as_json=as_json, version=version)


@click.command()
@click.argument("volume")
@click.argument("destination", metavar="DIRECTORY|FILE.tar[.gz]|-", type=click.Path(path_type=Path, allow_dash=True))
@_parallel
@dask_option
@json_option
@volume_command
def export(access: Access, volume: str, destination: Path, parallel: int, dask: str | None, as_json: bool) -> None:
    """Write a version, or VOLUME:/path of it, into a directory, a tar file, or as a tar stream to standard output (-).

    With --dask workers write the files: they have to see DIRECTORY under the same path. What an earlier export has
    written whole is left as it is.

    \b
    Examples:
      stowstore volume export file:///data/root#training@v1 ./dataset
      stowstore volume export file:///data/root#training training.tar.gz
    """
    place = VolumePath.parse(volume)
    to_stream = str(destination) == "-"
    to_file = destination.name.endswith(TAR_SUFFIXES) and not destination.is_dir()
    if to_stream and as_json:
        raise click.UsageError("standard output is the tar stream: --json has no place there")
    if dask is not None and (to_stream or to_file):
        raise click.UsageError("a stream has one writer: --dask exports into directories")
    with (
        cluster_at(dask) as cluster,
        access.reading(place.address) as session,
        status_line("exporting") as say,
    ):

        def tell(report: TransferReport) -> None:
            say(f"exported {report.files} files, {size_text(report.bytes)}")

        if to_stream:
            report = export_tar(session.files, sys.stdout.buffer, place.path, on_progress=tell)
            sys.stdout.buffer.flush()
        elif to_file:
            with tar_file(destination) as stream:
                report = export_tar(session.files, stream, place.path, on_progress=tell)
        elif cluster is not None:
            assert session.base is not None
            report = export_spread(
                session.files,
                destination,
                place.path,
                cluster=cluster,
                root=access.place(place.address.root),
                version=session.base.name,
                on_progress=tell,
            )
        else:
            report = export_directory(session.files, destination, place.path, parallel=parallel, on_progress=tell)
    _finish("exported", report, as_json=as_json)


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option("-r", "--recursive", is_flag=True, help="Copy a directory.")
@_message
@_parallel
@json_option
@volume_command
def cp(
    access: Access,
    source: str,
    destination: str,
    recursive: bool,
    message: str | None,
    parallel: int,
    as_json: bool,
) -> None:
    """Copy a file, or with -r a directory, between VOLUME:/path and the local disk. Into a volume it commits.

    A destination that is a directory takes the file under its name. With -r what lies in the source directory comes to
    lie in the destination.

    \b
    Examples:
      stowstore volume cp labels.csv file:///data/root#training:/data/ -m "new labels"
      stowstore volume cp -r file:///data/root#training@v1:/data ./data
    """
    sides = (VolumePath.is_one(source), VolumePath.is_one(destination))
    if sides == (True, True):
        raise click.UsageError("one side is a local path; between volumes: export one - | import - into the other")
    if sides == (False, False):
        raise click.UsageError("one side is a volume, ROOT#NAME:/path; for objects use stowstore cp")
    if sides[0]:
        place, target = VolumePath.parse(source), Path(destination)
        with access.reading(place.address) as session:
            if recursive:
                report = export_directory(session.files, target, place.path, parallel=parallel)
            else:
                report = _download(session.files, place.path, target)
        _finish("copied", report, as_json=as_json)
        return
    place, origin = VolumePath.parse(destination), Path(source)
    if not origin.exists():
        raise click.UsageError(f"{source} does not exist")
    if origin.is_dir() and not recursive:
        raise click.UsageError(f"{source} is a directory: use -r")
    with access.writing(place.address) as session:
        if origin.is_dir():
            report = import_directory(session.files, origin, place.path, parallel=parallel)
        else:
            report = _upload(session.files, origin, place.path)
        version = _commit(session, message)
    _finish("copied", report, as_json=as_json, version=version)


def _commit(session: Session, message: str | None) -> str:
    with status_line("committing"):
        return session.commit(CommitOptions(message=message)).id


def _finish(verb: str, report: TransferReport, *, as_json: bool, version: str | None = None) -> None:
    """Tells the result; leaves with status 1 if anything was left out."""
    if as_json:
        found = {
            "files": report.files,
            "directories": report.directories,
            "unchanged": report.unchanged,
            "bytes": report.bytes,
            "skipped": [{"path": printable(path), "reason": reason} for path, reason in report.skipped],
        }
        echo_json(found if version is None else {**found, "version": version})
    else:
        for path, reason in report.skipped:
            click.echo(f"stowstore: {printable(path)}: {reason}: left out", err=True)
        same = f", {report.unchanged} unchanged" if report.unchanged else ""
        click.echo(f"{verb} {report.files} files, {size_text(report.bytes)}{same}", err=True)
        if version is not None:
            click.echo(version)
    if report.skipped:
        raise SystemExit(1)


def _download(files: FileSystem, path: str, target: Path) -> TransferReport:
    """One file to the local disk; it appears whole or not at all."""
    if stat.S_ISDIR((found := find(files, path)).mode):
        raise click.UsageError(f"{path} is a directory: use -r")
    if target.is_dir():
        target /= os.fsdecode(parts_of(path)[-1])
    report = TransferReport()
    with whole_file(target) as out:
        for piece in file_pieces(files, path):
            out.write(piece)
            report.bytes += len(piece)
        out.flush()
        give_xattrs(os.fsencode(target), xattrs_of(files, found.ino), report, descriptor=out.fileno())
        os.fchmod(out.fileno(), stat.S_IMODE(found.mode) & 0o777)
        os.utime(out.fileno(), ns=(found.atime_ns, found.mtime_ns))
    report.files = 1
    return report


def _upload(files: FileSystem, origin: Path, path: str) -> TransferReport:
    """One file of the local disk into the volume, with its mode, owner, time and extended attributes."""
    names = parts_of(path)
    below = b"/".join(names)
    known = _known(files, names)
    if path.endswith("/") or (known is not None and stat.S_ISDIR(known)):
        directory, name = below, os.fsencode(origin.name)
    else:
        directory, name = b"/".join(names[:-1]), names[-1]
    parent = make_directories(files, directory)
    report = TransferReport()
    with origin.open("rb") as content:
        status = os.fstat(content.fileno())
        there = attributes_or_none(files, parent, name)
        if there is not None and not stat.S_ISREG(there.mode):
            files.unlink(parent, name, ROOT)
        # Another name of a file that is there stays a name of the same file.
        flags = os.O_WRONLY | os.O_TRUNC
        created, handle = files.create(parent, name, stat.S_IMODE(status.st_mode), flags, ROOT)
        try:
            while piece := content.read(_PIECE):
                files.write(handle, report.bytes, piece, ROOT)
                report.bytes += len(piece)
        finally:
            files.release(handle)
    # A new owner takes the setuid bits, so the mode comes after.
    files.setattr(created.ino, AttributeChanges(uid=status.st_uid, gid=status.st_gid), ROOT)
    mode = stat.S_IMODE(status.st_mode)
    files.setattr(created.ino, AttributeChanges(mode=mode, mtime=status.st_mtime_ns), ROOT)
    update_xattrs(files, created.ino, SourceXattrs(report).read(os.path.realpath(origin), status) or {})
    report.files = 1
    return report


def _known(files: FileSystem, names: list[bytes]) -> int | None:
    """The mode of what lies at a path, None for nothing."""
    try:
        return find(files, b"/".join(names)).mode
    except FileNotFoundError:
        return None
