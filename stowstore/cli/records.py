"""``stowstore record``: the group and its verbs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import click

from stowstore.cli.lazy import LazyGroup, Verb

__all__ = ["record"]


class _RecordGroup(LazyGroup):
    extra = "volumes"
    sections: ClassVar[Mapping[str, Mapping[str, Verb]]] = MappingProxyType(
        {
            "To and from a root": {
                "push": Verb("records_moving:push", "Bring records into a root; only what changed is sent."),
                "pull": Verb("records_moving:pull", "Put records below a directory, every byte verified."),
                "export": Verb("records_moving:export", "Write a record into a tar archive."),
            },
            "What is there": {
                "ls": Verb("records_finding:ls", "List records, the newest first."),
                "show": Verb("records_finding:show", "Show what a record is."),
                "search": Verb("records_finding:search", "Find records by values of their configuration."),
                "graph": Verb("records_finding:graph", "Show everything a record is related to."),
                "label": Verb("records_finding:label", "Call a record by a name, or say what it is called."),
                "touch": Verb("records_finding:touch", "Say that local records have changed."),
            },
            "Upkeep": {
                "rm": Verb("records_upkeep:rm", "Remove records: to the trash."),
                "restore": Verb("records_upkeep:restore", "Take records out of the trash."),
                "gc": Verb("records_upkeep:gc", "Empty the trash, and remove what no record needs."),
                "evict": Verb("records_upkeep:evict", "Remove local copies of which the root has every byte."),
                "verify": Verb("records_upkeep:verify", "Compare what the root has with its manifests."),
                "reindex": Verb("records_upkeep:reindex", "Bring the local index up to date."),
            },
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
