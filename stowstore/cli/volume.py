"""``stowstore volume``: the group, its verbs, and what the errors of volumes become."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar, Final

import click
from attrs import frozen

from stowstore.cli.lazy import LazyGroup, Verb

__all__ = ["volume"]


class _VolumeGroup(LazyGroup):
    extra = "volumes"
    aliases = MappingProxyType({"commit": "snapshot", "delete": "remove", "rm": "remove", "save": "backup"})
    sections: ClassVar[Mapping[str, Mapping[str, Verb]]] = MappingProxyType(
        {
            "Volumes of this host, by NAME": {
                "create": Verb("named_volumes:create", "Create a volume of a size that is enforced, or ROOT#NAME."),
                "list": Verb("named_volumes:list_", "List the volumes of this host, or those in a ROOT."),
                "inspect": Verb("named_volumes:inspect", "Show everything about volumes: limits, backing, jobs."),
                "df": Verb("named_volumes:df", "Show how full volumes are; nothing is walked."),
                "usage": Verb("named_volumes:usage", "Show what a volume holds, and its largest directories."),
                "resize": Verb("named_volumes:resize", "Change the size of a volume while jobs use it."),
                "label": Verb("named_volumes:label", "Set labels of a volume, or take them away."),
                "jobs": Verb("named_volumes:jobs", "Show which jobs use volumes."),
                "metrics": Verb("named_volumes:metrics", "Print what volumes hold, in Prometheus' format."),
                "remove": Verb("named_volumes:remove", "Remove volumes and everything they hold."),
            },
            "Files, in and out": {
                "ls": Verb("volume_browsing:ls", "List a directory of a version."),
                "tree": Verb("volume_browsing:tree", "Draw a directory of a version as a tree."),
                "cat": Verb("volume_browsing:cat", "Write files of a version to standard output."),
                "cp": Verb("named_history:cp", "Copy files between a volume and the local disk."),
                "import": Verb("named_history:import_", "Bring in a directory, a tar file or a tar stream."),
                "export": Verb("volume_content:export", "Write a version into a directory or a tar stream."),
            },
            "Versions": {
                "snapshot": Verb("named_history:snapshot", "Publish the present state as a version."),
                "log": Verb("volume_history:log", "Show the versions a volume came from."),
                "show": Verb("volume_history:show", "Show all that is known of a version."),
                "diff": Verb("volume_history:diff", "List the paths in which two versions differ."),
                "tag": Verb("volume_history:tag", "Name a version."),
                "restore": Verb("named_history:restore", "Take a volume back to a version, or make one of a backup."),
                "fork": Verb("volume_history:fork", "Make another volume of a version: one small write."),
                "merge": Verb("volume_history:merge", "Take in what another volume has changed since a fork."),
                "clone": Verb("named_history:clone", "Make another volume of this host of what one holds."),
            },
            "Other hosts and backups": {
                "push": Verb("named_history:push", "Copy a volume with its versions to a root in any store."),
                "pull": Verb("named_history:pull", "Make a volume of one in a root, or move it on."),
                "backup": Verb("named_history:backup", "Write a volume into a tar file, or to any store."),
            },
            "Upkeep": {
                "prune": Verb("named_volumes:prune", "Forget old versions, or remove volumes nobody needs."),
                "gc": Verb("volume_space:gc", "Delete the packs of a root that no version needs."),
                "check": Verb("volume_upkeep:check", "Look for damage in a version, a volume or a root."),
                "repair": Verb("volume_upkeep:repair", "Make a whole version of what is left of a damaged one."),
                "recover": Verb("volume_upkeep:recover", "Save what a stranded journal holds."),
                "migrate": Verb("volume_upkeep:migrate", "Move a volume to another kind of metadata store."),
            },
        }
    )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        verb = self.aliases.get(args[0], args[0])
        other = _OTHERS.get(verb)
        if other is not None and other.is_meant(args[1:]):
            return verb, self.load(ctx, other.target, self.extra), args[1:]
        return super().resolve_command(ctx, args)


@frozen
class _Other:
    """The command of the same verb for what is not meant by its first target, and when that is so."""

    target: str
    is_meant: Callable[[list[str]], bool]


def _names_an_address(args: list[str]) -> bool:
    """Whether a volume in a store is written out, ROOT#NAME, anywhere."""
    return any("#" in text and "://" in text for text in args)


def _begins_with_an_address(args: list[str]) -> bool:
    first = next(iter(_positionals(args)), "")
    return "://" in first


def _names_a_root(args: list[str]) -> bool:
    return any("://" in text for text in _positionals(args))


def _has_rules(args: list[str]) -> bool:
    return _names_an_address(args) or any(text.startswith(("--keep-", "--version", "--forget-tagged")) for text in args)


def _has_no_volume(args: list[str]) -> bool:
    return not list(_positionals(args))


def _is_plain(args: list[str]) -> bool:
    return bool(args) and not any("://" in text for text in args) and "--help" not in args


def _positionals(args: list[str]) -> Iterator[str]:
    """What is no option and not the value of one."""
    follows = False
    for text in args:
        if follows:
            follows = False
        elif text.startswith("-") and text != "-":
            follows = text in _WITH_VALUES
        else:
            yield text


#: The options of the verbs below that are followed by a value.
_WITH_VALUES: Final = frozenset(
    {
        *(
            "--conflicts",
            "--dask",
            "--filter",
            "--format",
            "--from",
            "--key",
            "--limit",
            "--message",
            "--option",
            "--root",
        ),
        *("--size", "--tag", "--type", "-m", "-n", "-o"),
    }
)

#: A plain NAME is a volume of this host; ROOT#NAME is one in a store, which some verbs do something else with.
_OTHERS: Final[Mapping[str, _Other]] = MappingProxyType(
    {
        "create": _Other("volume_content:create", _names_an_address),
        "import": _Other("volume_content:import_", _names_an_address),
        "cp": _Other("volume_content:cp", _names_an_address),
        "list": _Other("volume_browsing:list_", _names_a_root),
        "ls": _Other("named_volumes:list_", _has_no_volume),
        "usage": _Other("volume_usage:usage", _names_an_address),
        "restore": _Other("volume_history:restore", _begins_with_an_address),
        "prune": _Other("volume_space:prune", _has_rules),
        "fork": _Other("named_history:clone", _is_plain),
    }
)


@click.group(cls=_VolumeGroup)
@click.option("--root", metavar="DIRECTORY", help="The registry of this host's volumes; else $STOWSTORE_ROOT.")
def volume(root: str | None) -> None:
    """Size-limited volumes of this host, by NAME, and versioned file systems in any store.

    A NAME is a volume of this host: create it, give it to jobs (stowstore run --volume=NAME), snapshot, clone and back
    it up. Its versions are looked at as those of every other VOLUME: log, diff, ls, cat, export and their kin.

    Any other VOLUME is ROOT#NAME, ROOT#NAME@VERSION or ROOT#NAME@TAG, or a locator, ROOT#NAME@VERSION:DIGEST. A ROOT is
    the URL of a prefix in a store, without secrets: those come from the environment, or with --option NAME=VALUE. A
    path in a volume follows a colon: ROOT#NAME@v1:/data/train.csv. Looking at a version reads its index, not its files.

    \b
    Examples:
      stowstore volume create training --size=50GB
      stowstore volume create file:///data/root#training
      stowstore volume import ./dataset file:///data/root#training -m "first data"
      stowstore volume fork file:///data/root#training experiment
      stowstore volume diff file:///data/root#training experiment
      stowstore volume cat "s3://bucket/root?endpoint=http://127.0.0.1:9000#training@v1:/labels.csv"
    """
    if root is not None:
        os.environ["STOWSTORE_ROOT"] = os.path.abspath(os.path.expanduser(root))
