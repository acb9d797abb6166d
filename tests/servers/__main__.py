"""The servers on a command line: `python -m tests.servers install|list|run|check`."""

import contextlib
import json
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from tests.servers import KINDS, PROGRAMS, Installed, ServerError
from tests.servers.requiring import are_required

_ALL: Mapping[str, Installed] = {**KINDS, **PROGRAMS}
_NAMES = click.Choice(sorted(KINDS))
_INSTALLED = click.Choice(sorted(_ALL))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Real servers for tests, benchmarks and demonstrations, on 127.0.0.1."""


@main.command()
@click.argument("names", nargs=-1, type=_INSTALLED)
def install(names: Sequence[str]) -> None:
    """Installs the servers and programs named, or all, side by side.

    What cannot be provided is said with its reason, and is an error where servers are required: with CI or
    STOWSTORE_REQUIRE_SERVERS set, or when it was asked for by name.
    """
    kinds = [_ALL[name] for name in names or _ALL]
    with ThreadPoolExecutor(len(kinds)) as pool:
        failures = [reason for reason in pool.map(_install, kinds) if reason]
    for reason in failures:
        _progress(reason)
    if failures and (names or are_required()):
        sys.exit(1)


@main.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def list_(as_json: bool) -> None:
    """Lists the servers and programs, where they are installed, and why one cannot be provided."""
    rows = [
        {
            "name": kind.name,
            "summary": kind.summary,
            "installed": str(kind.folder) if kind.is_installed() else None,
            "unavailable": kind.available(),
        }
        for kind in _ALL.values()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        state = row["installed"] or row["unavailable"] or "not installed yet"
        click.echo(f"{row['name']:<12}{row['summary']}\n{'':<12}{state}")


@main.command()
@click.argument("name", type=_NAMES)
@click.option("--root", type=click.Path(path_type=Path), help="Keep data and logs in this directory.")
@click.option("--port", type=click.IntRange(1024, 65000), help="Listen on this port instead of a free one.")
def run(name: str, root: Path | None, port: int | None) -> None:
    """Runs one server until Ctrl-C.

    The URL to use it by and the environment that its clients need go to standard output, in the shell's language;
    everything else to standard error.
    """
    kind = KINDS[name]
    with _stopping_on_signals(), _errors_in_words():
        kind.install(_progress)
        with kind.start(root=root, port=port) as server:
            kind.probe(server.address)
            for variable, value in server.environment.items():
                click.echo(f"export {variable}={shlex.quote(value)}")
            click.echo(f"# {server.url}")
            _progress(f"{name}: at {server.endpoint}, data and logs in {server.root}; Ctrl-C stops it")
            signal.pause()


@main.command()
@click.argument("names", nargs=-1, type=_NAMES)
def check(names: Sequence[str]) -> None:
    """Starts the servers named, or all, one after another, and does something real with each."""
    failures = 0
    for kind in [KINDS[name] for name in names or KINDS]:
        try:
            kind.install(_progress)
            began = time.monotonic()
            with kind.start() as server:
                ready = time.monotonic() - began
                done = kind.probe(server.address)
        except ServerError as error:
            failures += 1
            click.echo(f"{kind.name:<12}FAILED: {error}")
        else:
            click.echo(f"{kind.name:<12}ready after {ready:.1f} s, {done}")
    if failures:
        sys.exit(1)


def _install(kind: Installed) -> str | None:
    try:
        kind.install(_progress)
    except ServerError as error:
        return str(error)
    return None


def _progress(message: str) -> None:
    click.echo(message, err=True)


@contextlib.contextmanager
def _errors_in_words() -> Iterator[None]:
    try:
        yield
    except ServerError as error:
        raise click.ClickException(str(error)) from None


@contextlib.contextmanager
def _stopping_on_signals() -> Iterator[None]:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        _progress("stopped")


if __name__ == "__main__":
    main(prog_name="python -m tests.servers")
