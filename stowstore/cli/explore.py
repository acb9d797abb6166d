"""``stowstore explore``: a volume in the terminal."""

from __future__ import annotations

import os
import sys

import click

from datastore.errors import ConfigError
from stowstore.cli.volume_access import Access, VolumePath, volume_command
from stowstore.explore.app import ExplorerApp
from stowstore.explore.volume import ExploredVolume

__all__ = ["explore"]


@click.command()
@click.argument("volume", metavar="VOLUME")
@volume_command
def explore(access: Access, volume: str) -> None:
    """Look around in a VOLUME[:/path]: its files, its versions, and what changed between them.

    A VOLUME is ROOT#NAME, ROOT#NAME@VERSION or ROOT#NAME@TAG, a locator, or the NAME of a volume of this host. Reads
    the index only; the first bytes of a file are fetched when a preview is asked for. The keys are shown at the bottom.

    \b
    Examples:
      stowstore explore file:///data/root#training
      stowstore explore training@v1:/images
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM") == "dumb":
        raise ConfigError(
            "explore needs a terminal",
            hint="`stowstore volume ls`, `log` and `diff` answer in text, or with --json",
        )
    place = VolumePath.parse(volume)
    version = access.version(place.address)
    root = access.root_of(place.address)
    with ExploredVolume(root, place.address.volume, access.key) as explored:
        title = f"{place.address.root}#{place.address.volume}"
        ExplorerApp(explored, version, title, os.fsencode(place.path.strip("/"))).run()
