"""The ``stowstore`` command: global options, the list of commands, and what errors become."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Mapping
from types import MappingProxyType

import click

from datastore.errors import ErrorCode, StoreError
from stowstore.cli.lazy import LazyGroup, Verb
from stowstore.cli.opening import Opener, kind_options
from stowstore.cli.output import is_full
from stowstore.versions.errors import LeaseLost, MergeConflict, VolumeError
from stowstore.wording import printable

__all__ = ["ExitCode", "main"]


class ExitCode:
    """What the exit status means; every command keeps to it."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    IN_THE_WAY = 4
    NO_ROOM = 5
    DENIED = 6
    INTERRUPTED = 130


_EXITS: Mapping[ErrorCode, int] = MappingProxyType(
    {
        ErrorCode.NOT_FOUND: ExitCode.NOT_FOUND,
        ErrorCode.NO_SUCH_CONTAINER: ExitCode.NOT_FOUND,
        ErrorCode.ALREADY_EXISTS: ExitCode.IN_THE_WAY,
        ErrorCode.CONTAINER_TAKEN: ExitCode.IN_THE_WAY,
        ErrorCode.CONTAINER_NOT_EMPTY: ExitCode.IN_THE_WAY,
        ErrorCode.PRECONDITION_FAILED: ExitCode.IN_THE_WAY,
        ErrorCode.LIMIT_EXCEEDED: ExitCode.NO_ROOM,
        ErrorCode.PERMISSION_DENIED: ExitCode.DENIED,
        ErrorCode.CONTAINER_NOT_ALLOWED: ExitCode.DENIED,
        ErrorCode.INVALID_REFERENCE: ExitCode.USAGE,
        ErrorCode.CONFIG: ExitCode.USAGE,
    }
)

#: What a file system answers, that of a volume or the local one.
_ERRNOS: Mapping[int | None, int] = MappingProxyType(
    {
        errno.ENOENT: ExitCode.NOT_FOUND,
        errno.EEXIST: ExitCode.IN_THE_WAY,
        errno.ENOTEMPTY: ExitCode.IN_THE_WAY,
        errno.ENOSPC: ExitCode.NO_ROOM,
        errno.EDQUOT: ExitCode.NO_ROOM,
        errno.EACCES: ExitCode.DENIED,
        errno.EPERM: ExitCode.DENIED,
        errno.EROFS: ExitCode.DENIED,
    }
)


class _Commands(LazyGroup):
    extra = "volumes"
    sections = MappingProxyType(
        {
            "Objects of any store": {
                "ls": Verb("browse:ls", "List objects and prefixes."),
                "head": Verb("browse:head", "Show an object's size, etag, type and metadata."),
                "cat": Verb("browse:cat", "Write an object, or a range of it, to standard output."),
                "get": Verb("move:get", "Copy objects to files."),
                "put": Verb("move:put", "Copy files to objects."),
                "cp": Verb("move:cp", "Copy objects, inside one store or between two."),
                "rm": Verb("move:rm", "Remove objects."),
                "mb": Verb("browse:mb", "Make a private container (bucket)."),
                "rb": Verb("browse:rb", "Remove an empty container (bucket)."),
                "sign": Verb("browse:sign", "Sign a URL that gives access to one object for a while."),
            },
            "Volumes, jobs and records": {
                "volume": Verb("volume:volume", "Make, version, fork, merge, check and limit volumes."),
                "run": Verb("run:run", "Run a command that sees only its volumes."),
                "record": Verb("records:record", "Keep the directories of runs in a store, and find them."),
                "explore": Verb("explore:explore", "Look around in a volume, in the terminal.", "explore"),
                "report": Verb("report:report", "Make a page of HTML about a root.", "report"),
            },
            "Mounts": {
                "mount": Verb("mounting:mount", "Mount a volume, or a version of one."),
                "umount": Verb("mounting:umount", "Unmount; what is not committed waits in its journal."),
                "mounts": Verb("mounting:mounts", "List what this user has mounted here."),
                "commit": Verb("mounting:commit", "Publish a mounted volume's present state as a version."),
                "finalize": Verb("mounting:finalize", "Unmount a volume and publish what it holds."),
                "stats": Verb("mounting:stats", "Show what a mount holds and does."),
                "warmup": Verb("mounting:warmup", "Read files of a mount into its caches."),
                "refresh": Verb("mounting:refresh", "Move a read-only mount to its newest version."),
            },
            "This machine": {
                "demo": Verb("demo:demo", "Do a bit of everything, and tell what happened."),
                "doctor": Verb("doctor:doctor", "Tell what works here, what is missing, how to get it."),
                "bench": Verb("bench:bench", "Measure a store, or a mounted path, from here."),
                "metrics": Verb("metrics:metrics", "Print what is measured, dashboards and alerts."),
            },
        }
    )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
# Its number is looked up when it is asked for, which costs more than the rest of a start.
@click.version_option(None, "-V", "--version", package_name="stowstore", prog_name="stowstore")
@click.option(
    "--store",
    "store_url",
    metavar="URL",
    envvar="STOWSTORE_URL",
    help="Store to use, such as file:///data/main or s3://bucket?endpoint=...",
)
@click.option(
    "--config",
    "config_path",
    metavar="FILE",
    envvar="STOWSTORE_CONFIG",
    type=click.Path(dir_okay=False),
    help="YAML file with a 'storage:' section.",
)
@kind_options
@click.option("--timeout", metavar="DURATION", help='Give up after so long, such as "30s" or "5m".')
@click.option("-v", "--verbose", count=True, help="Log what happens to standard error; twice for every operation.")
@click.pass_context
def cli(
    ctx: click.Context,
    store_url: str | None,
    config_path: str | None,
    options: tuple[str, ...],
    timeout: str | None,
    verbose: int,
) -> None:
    """One command over every object store, local disk and memory.

    An object is written as a reference, scheme://container/key (s3://bucket/a/b, gs://..., abfs://..., sw://...,
    redis://host/...). With --store, or STOWSTORE_URL set, a plain key means an object of that store.

    \b
    Examples:
      stowstore --store file:///tmp/data put report.pdf reports/2026.pdf
      stowstore ls -l s3://bucket/reports/
      stowstore cp -r s3://bucket/reports gs://other/reports
      stowstore sign s3://bucket/reports/2026.pdf --expires 1h

    Exit status: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 something is in the way, 5 no room, 6 not allowed.
    """
    if verbose:
        _log_to_stderr(verbose)
    ctx.obj = Opener.of(store_url=store_url, config_path=config_path, options=options, timeout=timeout)
    ctx.call_on_close(ctx.obj.close)


def main(args: list[str] | None = None) -> None:
    """Runs the command line and leaves with its exit status."""
    try:
        status = cli.main(args=args, prog_name="stowstore", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        status = ExitCode.INTERRUPTED
    except StoreError as error:
        _show(error)
        status = _status(error)
    except BrokenPipeError:
        # The reader of a pipe has seen enough.
        sys.stderr.close()
        status = ExitCode.OK
    except (OSError, ValueError, TypeError) as error:
        _show_plain(error)
        status = _ERRNOS.get(error.errno, ExitCode.ERROR) if isinstance(error, OSError) else ExitCode.ERROR
    sys.exit(status if isinstance(status, int) else ExitCode.OK)


def _status(error: StoreError) -> int:
    """The exit status of an error; those of volumes add a few of their own to the codes of stores."""
    found = _EXITS.get(error.code)
    if found is None and isinstance(error, VolumeError):
        if isinstance(error, (MergeConflict, LeaseLost)):
            return ExitCode.IN_THE_WAY
        from stowstore.versions.collect import CollectionRefused
        from stowstore.versions.prune import VersionPinned

        if isinstance(error, (VersionPinned, CollectionRefused)):
            return ExitCode.IN_THE_WAY
    if found is None:
        found = ExitCode.NO_ROOM if is_full(error) else ExitCode.ERROR
    return found


def _wants_json() -> bool:
    """Whether answers are for a program; behind ``--`` stand the words of a job's own command."""
    ours = sys.argv[: sys.argv.index("--")] if "--" in sys.argv else sys.argv
    return "--json" in ours


def _show(error: StoreError) -> None:
    if _wants_json():
        shown: dict[str, object] = {"error": error.message, "code": error.code.value}
        shown |= {"hint": error.hint, "reference": error.reference}
        if reason := getattr(error, "reason", "no_space" if is_full(error) else None):
            shown["reason"] = reason
        if isinstance(error, MergeConflict):
            shown["conflicts"] = [printable(path) for path in error.paths]
        click.echo(json.dumps(shown), err=True)
    else:
        click.echo(f"stowstore: {error}", err=True)


def _show_plain(error: OSError | ValueError | TypeError) -> None:
    """What is none of ours: of the system's errors the words, and the file it was about."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"
    if _wants_json():
        code = ErrorCode.NOT_FOUND if isinstance(error, FileNotFoundError) else ErrorCode.GENERIC
        shown: dict[str, object] = {"error": text, "code": code.value, "hint": None, "reference": None}
        if is_full(error):
            shown["reason"] = "no_space"
        click.echo(json.dumps(shown), err=True)
    else:
        click.echo(f"stowstore: {text}", err=True)


def _log_to_stderr(verbose: int) -> None:
    import logging

    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S"
    )
    logging.getLogger("stowstore").setLevel(logging.DEBUG if verbose > 1 else logging.INFO)
