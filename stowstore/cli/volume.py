"""``stowstore volume``: the group, its verbs, and what the errors of volumes become."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import click

from stowstore.cli.lazy import LazyGroup

__all__ = ["volume"]


class _VolumeGroup(LazyGroup):
    extra = "volumes"
    targets: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "create": "stowstore.cli.volume_content:create",
            "import": "stowstore.cli.volume_content:import_",
            "export": "stowstore.cli.volume_content:export",
            "cp": "stowstore.cli.volume_content:cp",
            "list": "stowstore.cli.volume_browsing:list_",
            "ls": "stowstore.cli.volume_browsing:ls",
            "tree": "stowstore.cli.volume_browsing:tree",
            "cat": "stowstore.cli.volume_browsing:cat",
            "log": "stowstore.cli.volume_history:log",
            "show": "stowstore.cli.volume_history:show",
            "diff": "stowstore.cli.volume_history:diff",
            "fork": "stowstore.cli.volume_history:fork",
            "merge": "stowstore.cli.volume_history:merge",
            "tag": "stowstore.cli.volume_history:tag",
            "restore": "stowstore.cli.volume_history:restore",
            "usage": "stowstore.cli.volume_usage:usage",
            "prune": "stowstore.cli.volume_upkeep:prune",
            "gc": "stowstore.cli.volume_upkeep:gc",
            "check": "stowstore.cli.volume_upkeep:check",
            "repair": "stowstore.cli.volume_upkeep:repair",
            "recover": "stowstore.cli.volume_upkeep:recover",
            "migrate": "stowstore.cli.volume_upkeep:migrate",
        }
    )


@click.group(cls=_VolumeGroup)
def volume() -> None:
    """Versioned, forkable file systems in a store.

    A VOLUME is ROOT#NAME, ROOT#NAME@VERSION or ROOT#NAME@TAG, or a locator, ROOT#NAME@VERSION:DIGEST. A ROOT is the
    URL of a prefix in a store, without secrets: those come from the environment, or with --option NAME=VALUE. A path
    in a volume follows a colon: ROOT#NAME@v1:/data/train.csv. Looking at a version reads its index, not its files.

    \b
    Examples:
      stowstore volume create file:///data/root#training
      stowstore volume import ./dataset file:///data/root#training -m "first data"
      stowstore volume fork file:///data/root#training experiment
      stowstore volume diff file:///data/root#training experiment
      stowstore volume cat "s3://bucket/root?endpoint=http://127.0.0.1:9000#training@v1:/labels.csv"
    """
