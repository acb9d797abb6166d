"""``stowstore record``: the group and its verbs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import click

from stowstore.cli.lazy import LazyGroup

__all__ = ["record"]


class _RecordGroup(LazyGroup):
    extra = "volumes"
    targets: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "push": "stowstore.cli.records_moving:push",
            "pull": "stowstore.cli.records_moving:pull",
            "export": "stowstore.cli.records_moving:export",
            "ls": "stowstore.cli.records_finding:ls",
            "show": "stowstore.cli.records_finding:show",
            "search": "stowstore.cli.records_finding:search",
            "graph": "stowstore.cli.records_finding:graph",
            "label": "stowstore.cli.records_finding:label",
            "touch": "stowstore.cli.records_finding:touch",
            "rm": "stowstore.cli.records_upkeep:rm",
            "restore": "stowstore.cli.records_upkeep:restore",
            "gc": "stowstore.cli.records_upkeep:gc",
            "evict": "stowstore.cli.records_upkeep:evict",
            "verify": "stowstore.cli.records_upkeep:verify",
            "reindex": "stowstore.cli.records_upkeep:reindex",
        }
    )
    #: The words of machinable's ``Storage``.
    aliases: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "upload": "push",
            "commit": "push",
            "update": "push",
            "download": "pull",
            "retrieve": "pull",
            "fetch": "pull",
            "delete": "rm",
            "remove": "rm",
            "list": "ls",
            "walk": "ls",
        }
    )


@click.group(cls=_RecordGroup)
def record() -> None:
    """Directories of runs, kept in a store: pushed, found, pulled and let go of.

    The verbs of machinable's Storage work, too: upload, commit and update push; download, retrieve and fetch pull;
    delete is rm, and walk is ls.

    A ROOT is the URL of a prefix in a store, without secrets: those come from the environment, or with --option
    NAME=VALUE. A record is named by its uuid; its directory holds .machinable and id.json, as machinable writes them.

    \b
    Examples:
      stowstore record push "s3://bucket/runs?region=eu-west-1" storage/*/*/* --related all
      stowstore record ls s3://bucket/runs --label best
      stowstore record search s3://bucket/runs "lr>=0.1" module=study
      stowstore record pull s3://bucket/runs kP3xQ9aLm0Zt --to ./runs
      stowstore record rm s3://bucket/runs kP3xQ9aLm0Zt
      stowstore record gc s3://bucket/runs
    """
