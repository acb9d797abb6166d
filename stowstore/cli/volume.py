"""``stowstore volume``: the group, its verbs, and what the errors of volumes become."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import ClassVar, Final

import click
from attrs import frozen

from stowstore.cli.lazy import LazyGroup

__all__ = ["volume"]


class _VolumeGroup(LazyGroup):
    extra = "volumes"
    targets: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "create": "stowstore.cli.named_volumes:create",
            "list": "stowstore.cli.named_volumes:list_",
            "inspect": "stowstore.cli.named_volumes:inspect",
            "df": "stowstore.cli.named_volumes:df",
            "usage": "stowstore.cli.named_volumes:usage",
            "resize": "stowstore.cli.named_volumes:resize",
            "remove": "stowstore.cli.named_volumes:remove",
            "prune": "stowstore.cli.named_volumes:prune",
            "label": "stowstore.cli.named_volumes:label",
            "jobs": "stowstore.cli.named_volumes:jobs",
            "metrics": "stowstore.cli.named_volumes:metrics",
            "snapshot": "stowstore.cli.named_history:snapshot",
            "restore": "stowstore.cli.named_history:restore",
            "clone": "stowstore.cli.named_history:clone",
            "backup": "stowstore.cli.named_history:backup",
            "push": "stowstore.cli.named_history:push",
            "pull": "stowstore.cli.named_history:pull",
            "cp": "stowstore.cli.named_history:cp",
            "import": "stowstore.cli.named_history:import_",
            "export": "stowstore.cli.volume_content:export",
            "ls": "stowstore.cli.volume_browsing:ls",
            "tree": "stowstore.cli.volume_browsing:tree",
            "cat": "stowstore.cli.volume_browsing:cat",
            "log": "stowstore.cli.volume_history:log",
            "show": "stowstore.cli.volume_history:show",
            "diff": "stowstore.cli.volume_history:diff",
            "fork": "stowstore.cli.volume_history:fork",
            "merge": "stowstore.cli.volume_history:merge",
            "tag": "stowstore.cli.volume_history:tag",
            "gc": "stowstore.cli.volume_upkeep:gc",
            "check": "stowstore.cli.volume_upkeep:check",
            "repair": "stowstore.cli.volume_upkeep:repair",
            "recover": "stowstore.cli.volume_upkeep:recover",
            "migrate": "stowstore.cli.volume_upkeep:migrate",
        }
    )

    aliases: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"commit": "snapshot", "delete": "remove", "rm": "remove", "save": "backup"}
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
        "create": _Other("stowstore.cli.volume_content:create", _names_an_address),
        "import": _Other("stowstore.cli.volume_content:import_", _names_an_address),
        "cp": _Other("stowstore.cli.volume_content:cp", _names_an_address),
        "list": _Other("stowstore.cli.volume_browsing:list_", _names_a_root),
        "ls": _Other("stowstore.cli.named_volumes:list_", _has_no_volume),
        "usage": _Other("stowstore.cli.volume_usage:usage", _names_an_address),
        "restore": _Other("stowstore.cli.volume_history:restore", _begins_with_an_address),
        "prune": _Other("stowstore.cli.volume_upkeep:prune", _has_rules),
        "fork": _Other("stowstore.cli.named_history:clone", _is_plain),
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
