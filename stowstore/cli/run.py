"""``stowstore run``: a command with named volumes, isolated from the host."""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath

import click
from attrs import asdict

from datastore.errors import StoreError
from stowstore.cli.output import echo_json, is_full, json_option

__all__ = ["run"]

_PATH = click.Path(path_type=Path)

#: The job was not started; 126 and 127 are the shell's own, for a command that cannot be run or is not there.
_NOT_STARTED = 125


class _Run(click.Command):
    """Options end at the first word that is none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(f"unknown flag: {error.option_name}", ctx) from error


@click.command(cls=_Run, context_settings={"allow_interspersed_args": False})
@click.option("-v", "--volume", "volumes", metavar="NAME[@SNAP][:/path][:ro]", multiple=True, help="A volume to see.")
@click.option("-e", "--env", "variables", metavar="NAME[=VALUE]", multiple=True, help="Set a variable, or hand it on.")
@click.option("--upload", "files", type=_PATH, metavar="FILE", multiple=True, help="Copy a file into /work.")
@click.option(
    "--upload-dir",
    "directories",
    type=_PATH,
    metavar="DIR",
    multiple=True,
    help="Copy what a directory holds into /work.",
)
@click.option("--workdir", metavar="PATH", default="/work", show_default=True, help="Where the command starts.")
@click.option("--memory", metavar="SIZE", help="Limit its memory, such as 512MB.")
@click.option("--scratch", metavar="SIZE", help="Limit each of /work, /tmp and /dev/shm.")
@click.option(
    "--when-orphaned",
    type=click.Choice(["kill", "continue"]),
    default="kill",
    show_default=True,
    help="What becomes of it when this process is killed.",
)
@click.option(
    "--root", type=_PATH, metavar="DIR", envvar="STOWSTORE_ROOT", help="The registry that the volumes are in."
)
@json_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context,
    volumes: tuple[str, ...],
    variables: tuple[str, ...],
    files: tuple[Path, ...],
    directories: tuple[Path, ...],
    workdir: str,
    memory: str | None,
    scratch: str | None,
    when_orphaned: str,
    root: Path | None,
    as_json: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND with volumes at /volumes/NAME, in isolation: of the host it sees the system's programs only.

    Every volume is there before it starts, or it does not start.  It has a private /work, which is gone afterwards.
    Signals are passed on to it, and its exit status is this one's: 128 and the signal if one ended it, 125 if it was
    not started, 126 if it cannot be run, 127 if it is not there.  With --json what it prints goes to standard error.

    \b
    Examples:
      stowstore run --volume=data -- ls -l /volumes/data
      stowstore run -v data:/srv:ro -v results --env EPOCHS=3 --upload train.py python3 train.py
    """
    from stowstore.jobs import Job, JobInterrupted, Output, SignalsPassedOn, parse_variable, parse_volume, run_job
    from stowstore.named import NamedVolumes

    job = Job(
        command=command,
        volumes=[parse_volume(text) for text in volumes],
        environment=dict(parse_variable(text, os.environ) for text in variables),
        files=files,
        directories=directories,
        workdir=PurePosixPath(workdir),
        memory=_limit("memory", memory),
        scratch=_limit("scratch", scratch),
        when_orphaned=when_orphaned,
    )
    try:
        with SignalsPassedOn() as signals:
            result = run_job(
                job,
                NamedVolumes(root),
                signals=signals,
                output=Output.STDERR if as_json else Output.STDOUT,
                notice=lambda text: click.echo(f"stowstore run: {text}", err=True),
            )
    except JobInterrupted as interrupted:
        ctx.exit(128 + interrupted.number)
    except (StoreError, OSError) as error:
        _say(error, as_json)
        ctx.exit(_NOT_STARTED)
    if as_json:
        echo_json(asdict(result))
    ctx.exit(result.exit_code)


def _limit(what: str, text: str | None) -> int | None:
    """The bytes of ``--memory`` or ``--scratch``."""
    from stowstore.named.errors import InvalidSize
    from stowstore.named.sizes import parse_size

    try:
        return None if text is None else parse_size(text)
    except InvalidSize as error:
        said = error.message.replace("volume size must be positive", "a limit must be positive")
        raise InvalidSize(f"--{what}: {said}", problem=error.problem, hint=error.hint) from error


def _say(error: StoreError | OSError, as_json: bool) -> None:
    if as_json:
        code = error.code.value if isinstance(error, StoreError) else "GENERIC"
        reason = getattr(error, "reason", "no_space" if is_full(error) else None)
        message, hint = getattr(error, "message", str(error)), getattr(error, "hint", None)
        click.echo(json.dumps({"error": message, "code": code, "reason": reason, "hint": hint}), err=True)
    else:
        click.echo(f"stowstore run: {error}", err=True)
