"""Groups of commands whose modules are imported when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import ClassVar

import click

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """A group that imports a command, ``module:name``, when it is asked for, so that ``--help`` answers at once."""

    targets: ClassVar[Mapping[str, str]] = {}
    #: Other names of commands, which help does not list.
    aliases: ClassVar[Mapping[str, str]] = {}
    #: The extra of this distribution that brings what the commands import; None when they need nothing more.
    extra: ClassVar[str | None] = None
    #: The extras of commands that need another one.
    extras: ClassVar[Mapping[str, str]] = {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.targets)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        cmd_name = self.aliases.get(cmd_name, cmd_name)
        target = self.targets.get(cmd_name)
        return None if target is None else self.load(ctx, target, self.extras.get(cmd_name, self.extra))

    def load(self, ctx: click.Context, target: str, extra: str | None) -> click.Command:
        """Imports the command a target, ``module:name``, names; it needs what ``extra`` brings."""
        module, _, name = target.partition(":")
        try:
            command = getattr(importlib.import_module(module), name)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if extra is None or package == "stowstore":
                raise
            raise click.ClickException(
                f"{ctx.info_name} needs the package {package}: pip install 'stowstore[{extra}]'"
            ) from error
        assert isinstance(command, click.Command)
        return command
