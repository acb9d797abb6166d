"""The part of ``stowstore demo --mount``: a volume in the hands of ordinary programs."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import click

import stowstore
from datastore.errors import PermissionDenied, Unsupported
from stowstore.cli.output import size_text, timed
from stowstore.mounts.control import ask

__all__ = ["demonstrate_mount"]


def demonstrate_mount() -> None:
    """Mounts a volume of local disk, works in it, publishes twice, forks, and unmounts; or says why that cannot be."""
    with tempfile.TemporaryDirectory(prefix="stowstore-demo-") as directory:
        root, place = f"file://{directory}/root", Path(directory, "mnt")
        volume = stowstore.Volume.new("mounted", root)
        meta, cache = Path(directory, "meta"), Path(directory, "cache")
        try:
            path, spent = timed(lambda: volume.blocking.mount(place, meta, cache))
        except (Unsupported, PermissionDenied) as error:
            click.echo(f"Mount      not here: {error}")
            return
        try:
            click.echo(f"Mounted    {root}#mounted at {path} in {spent}")
            _work(volume, path)
        finally:
            if volume.mount_path is not None:
                volume.blocking.unmount()


def _work(volume: Any, path: Path) -> None:
    tree = Path(stowstore.__file__).parent
    _, spent = timed(lambda: _shell(f"cp -r {tree} package", path))
    click.echo(f"           cp -r of this package took {spent}; {_shell('find . -type f | wc -l', path)} files")
    click.echo(f"           grep finds {_shell('grep -rl class . | wc -l', path)} files with classes")
    first, spent = timed(lambda: volume.blocking.commit("the package"))
    click.echo(f"Committed  {first.locator.partition(':')[0]}... while mounted, in {spent}")
    _shell("echo changed > notes; rm -r package/cli; mv package moved", path)
    fork, spent = timed(lambda: volume.blocking.fork("mounted-fork"))
    click.echo(f"Forked     {fork.name} of the live mount in {spent}")
    shown = ask(path, "stats")
    requests = sum(shown["requests"].values())
    click.echo(f"Served     {requests} requests, {size_text(shown['written_bytes'])} written")
    last, spent = timed(lambda: volume.blocking.finalize("moved"))
    click.echo(f"Finalized  in {spent}: {len(last.blocking.diff(first))} paths differ from the first version")


def _shell(command: str, path: Path) -> str:
    done = subprocess.run(
        ["sh", "-c", command], cwd=path, capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}
    )
    return done.stdout.strip()
