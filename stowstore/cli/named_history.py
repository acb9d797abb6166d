"""Commands on the versions of named volumes and their contents: snapshot, restore, clone, backup, push, pull, cp."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import click

from stowstore.cli.named_access import named_command
from stowstore.cli.named_output import echo_created
from stowstore.cli.output import echo_json, json_option
from stowstore.named import Access, Holder, NamedVolumes
from stowstore.named.archiving import TAR_SUFFIXES, import_directory_tar
from stowstore.named.copying import copy_in, copy_out
from stowstore.named.names import is_name

__all__ = ["backup", "clone", "cp", "import_", "pull", "push", "restore", "snapshot"]

_message = click.option("-m", "--message", help="What the version is.")
_size = click.option("--size", metavar="SIZE", help="The size of the new volume.")
_type = click.option("--type", "volume_type", default="filesystem", show_default=True, metavar="filesystem|memory")


@click.command()
@click.argument("name")
@_message
@click.option("--tag", help="A name for the version.")
@json_option
@named_command
def snapshot(volumes: NamedVolumes, name: str, message: str | None, tag: str | None, as_json: bool) -> None:
    """Publish the present state of a volume as a version, while jobs write on.

    \b
    Example:
      stowstore volume snapshot training -m "epoch 3" --tag epoch-3
    """
    _tell(volumes.snapshot(name, message, tag=tag), as_json)


@click.command()
@click.argument("source", metavar="NAME[@VERSION]|NEW")
@click.argument("version", metavar="[VERSION|FILE|ROOT#NAME]", required=False)
@_message
@_size
@_type
@json_option
@named_command
def restore(
    volumes: NamedVolumes,
    source: str,
    version: str | None,
    message: str | None,
    size: str | None,
    volume_type: str,
    as_json: bool,
) -> None:
    """Take a volume back to one of its versions, or make a NEW one of a backup: a tar file, - or ROOT#NAME.

    What is in no version yet is made one first. A volume that jobs use is refused. With ROOT#NAME VERSION: a volume in
    a store.

    \b
    Examples:
      stowstore volume restore training@epoch-3
      stowstore volume restore training-copy backup.tar.gz --size=50GB
      stowstore volume restore training-copy "s3://bucket/backups#training"
    """
    name, at, wanted = source.partition("@")
    if at and version is not None:
        raise click.UsageError("name one version only")
    if version is not None and _is_backup(version):
        origin = sys.stdin.buffer if version == "-" else version
        echo_created(volumes.restore_backup(origin, name, size=size, volume_type=volume_type), as_json)
        return
    wanted = version or wanted
    if not wanted:
        raise click.UsageError(f"which version of {name}? See: stowstore volume log {name}")
    _tell(volumes.restore(name, wanted, message=message), as_json)


@click.command()
@click.argument("source", metavar="NAME[@VERSION]")
@click.argument("new")
@_size
@click.option("--type", "volume_type", metavar="filesystem|memory", help="Another type than the source has.")
@json_option
@named_command
def clone(
    volumes: NamedVolumes, source: str, new: str, size: str | None, volume_type: str | None, as_json: bool
) -> None:
    """Make another volume of the present state of one, or of a version; bytes are shared on the disk.

    \b
    Example:
      stowstore volume clone training@epoch-3 experiment --size=100GB
    """
    name, _, version = source.partition("@")
    echo_created(volumes.clone(name, new, version=version or None, size=size, volume_type=volume_type), as_json)


@click.command()
@click.argument("source", metavar="NAME[@VERSION]")
@click.argument("target", metavar="FILE|-|ROOT[#NAME]")
@json_option
@named_command
def backup(volumes: NamedVolumes, source: str, target: str, as_json: bool) -> None:
    """Write a volume or a version of it into a tar file (.tar, .tar.gz), to standard output (-), or to any store.

    \b
    Examples:
      stowstore volume backup training /backups/training.tar.gz
      stowstore volume backup training@epoch-3 "s3://bucket/backups"
    """
    name, _, version = source.partition("@")
    if target == "-":
        if as_json:
            raise click.UsageError("standard output is the tar stream: --json has no place there")
        volumes.backup(name, sys.stdout.buffer, version=version or None)
        sys.stdout.buffer.flush()
        return
    _tell(volumes.backup(name, target, version=version or None), as_json)


@click.command()
@click.argument("source", metavar="NAME[@VERSION]")
@click.argument("target", metavar="ROOT[#NAME]")
@json_option
@named_command
def push(volumes: NamedVolumes, source: str, target: str, as_json: bool) -> None:
    """Copy a volume with its versions to a root in any store; prints the locator other hosts pull it by.

    \b
    Example:
      stowstore volume push training "s3://bucket/volumes?region=eu-west-1"
    """
    name, _, version = source.partition("@")
    _tell(volumes.push(name, target, version=version or None), as_json)


@click.command()
@click.argument("source", metavar="ROOT#NAME[@VERSION]|LOCATOR")
@click.argument("name")
@_size
@_type
@json_option
@named_command
def pull(volumes: NamedVolumes, source: str, name: str, size: str | None, volume_type: str, as_json: bool) -> None:
    """Make the volume NAME of one in a root, or move it on to what is there.

    \b
    Example:
      stowstore volume pull "s3://bucket/volumes?region=eu-west-1#training" training --size=50GB
    """
    is_new = name not in volumes.names()
    made = volumes.pull(source, name, size=size, volume_type=volume_type)
    if is_new or as_json:
        echo_created(made, as_json)
    else:
        click.echo(f"Volume '{name}' is at {made.record.head if made.record else None}")


@click.command("import")
@click.argument("source", metavar="DIRECTORY|FILE|-")
@click.argument("target", metavar="NAME")
@named_command
def import_(volumes: NamedVolumes, source: str, target: str) -> None:
    """Bring a directory, a tar file or a tar stream (-) into a volume. With ROOT#NAME: into a volume in a store.

    The order of the two does not matter.

    \b
    Examples:
      stowstore volume import ./dataset training
      tar c src | stowstore volume import - training
    """
    known = volumes.names()
    # The volume is the one of the two that there is, or else the one that could be.
    if is_name(source) and target not in known and (source in known or not is_name(target)):
        source, target = target, source
    with volumes.attach(target, access=Access.RW, holder=_holder("import")) as attached:
        if source == "-":
            import_directory_tar(attached.path, sys.stdin.buffer)
        elif os.path.isdir(source):
            copy_in(source, attached.path, "/", recursive=True, into=True)
        else:
            with open(source, "rb") as stream:
                import_directory_tar(attached.path, stream)


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option("-r", "--recursive", is_flag=True, help="Copy a directory.")
@named_command
def cp(volumes: NamedVolumes, source: str, destination: str, recursive: bool) -> None:
    """Copy a file, or with -r a directory, between NAME:/path and the local disk, or between two volumes.

    Symbolic links in a volume are copied as links and never followed. With ROOT#NAME:/path: a volume in a store.

    \b
    Examples:
      stowstore volume cp labels.csv training:/data/
      stowstore volume cp -r training:/checkpoints ./checkpoints
    """
    origin, target = _side(source), _side(destination)
    if origin is None and target is None:
        raise click.UsageError(
            f"one side is a volume, NAME:/path, but not {source!r} nor {destination!r}; for objects use stowstore cp"
        )
    with ExitStack() as attached:

        def attach(name: str, access: Access) -> Path:
            return attached.enter_context(volumes.attach(name, access=access, holder=_holder("cp"))).path

        if target is None:
            assert origin is not None
            copy_out(attach(origin[0], Access.RO), origin[1], destination, recursive=recursive)
        elif origin is None:
            copy_in(source, attach(target[0], Access.RW), target[1], recursive=recursive)
        else:
            reading, writing = attach(origin[0], Access.RO), attach(target[0], Access.RW)
            copy_in(reading, writing, target[1], recursive=recursive, source_path=origin[1])


def _side(text: str) -> tuple[str, str] | None:
    """The volume and the path that ``NAME:/path`` means; None for a path of the local disk."""
    name, colon, path = text.partition(":")
    if not colon or not is_name(name) or not path.startswith("/"):
        return None
    return name, path


def _holder(what: str) -> Holder:
    return Holder(job=f"{what}-{os.getpid()}", command=" ".join(["stowstore", *sys.argv[1:]])[:200])


def _is_backup(text: str) -> bool:
    """Whether this is no version: also a file that is not there, by its name."""
    return text == "-" or "://" in text or os.path.sep in text or text.endswith(TAR_SUFFIXES) or os.path.exists(text)


def _tell(locator: str, as_json: bool) -> None:
    if as_json:
        echo_json({"locator": locator})
    else:
        click.echo(locator)
