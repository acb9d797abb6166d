"""``stowstore explore``: a volume in the terminal."""

from __future__ import annotations

import os
import sys

import click

from datastore.errors import ConfigError
from stowstore.cli.volume_access import Access, VolumePath, volume_command
from stowstore.explore.app import Begin, ExplorerApp
from stowstore.explore.root import ExploredRoot
from stowstore.versions.address import normal_root
from stowstore.versions.errors import NoSuchVolume

__all__ = ["explore"]


@click.command()
@click.argument("volume", metavar="VOLUME")
@volume_command
def explore(access: Access, volume: str) -> None:
    """Look around in a VOLUME[:/path]: its files, its versions, and what changed between them.

    A VOLUME is ROOT#NAME, ROOT#NAME@VERSION or ROOT#NAME@TAG, a locator, or the NAME of a volume of this host; a ROOT
    alone shows its volumes. Reads the index only, until a preview of a file is asked for. The keys are shown at the
    bottom.

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
    if "://" in volume and "#" not in volume:
        _explore_root(access, volume)
        return
    place = VolumePath.parse(volume)
    version = access.version(place.address)
    root = access.root_of(place.address)
    with ExploredRoot(root, access.key) as explored:
        path = os.fsencode(place.path.strip("/"))
        ExplorerApp(explored, place.address.volume, version, place.address.root, path=path).run()


def _explore_root(access: Access, url: str) -> None:
    root = access.root(url)
    name = next(iter(root.volumes()), None)
    if name is None:
        raise NoSuchVolume(f"there is no volume in {root.address}", hint="make one: stowstore volume create")
    with ExploredRoot(root, access.key) as explored:
        ExplorerApp(explored, name, root.head(name), normal_root(url), begin=Begin.VOLUMES).run()
