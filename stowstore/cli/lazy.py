"""Groups of commands whose modules are imported when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import ClassVar

import click
from attrs import frozen
from click.shell_completion import CompletionItem

__all__ = ["LazyGroup", "Verb"]


@frozen
class Verb:
    """A command of a group: where it is, ``module:name`` below `stowstore.cli`, and what it does, in a line.

    ``extra`` brings what it imports, where that is not what the whole group needs.
    """

    target: str
    summary: str
    extra: str | None = None


class LazyGroup(click.Group):
    """A group that imports a command when it is run.

    So ``--help`` and completion answer at once, also where what some commands need is not installed.
    """

    #: Its commands, by the heading ``--help`` lists them under.
    sections: ClassVar[Mapping[str, Mapping[str, Verb]]] = {}
    #: The extra of this distribution that brings what the commands import; None when they need nothing more.
    extra: ClassVar[str | None] = None
    #: Other names people type, and what they mean.
    aliases: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def verbs(cls) -> dict[str, Verb]:
        """Every command by its name."""
        return {name: verb for section in cls.sections.values() for name, verb in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = self.verbs().get(self.aliases.get(cmd_name, cmd_name))
        return None if verb is None else self.load(ctx, verb.target, verb.extra or self.extra)

    def load(self, ctx: click.Context, target: str, extra: str | None) -> click.Command:
        """Imports the command at a `Verb.target`, which needs what ``extra`` brings.

        Raises:
            click.ClickException: some of that is not installed.
        """
        module, _, name = target.partition(":")
        try:
            command = getattr(importlib.import_module(f"stowstore.cli.{module}"), name)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if extra is None or package == "stowstore":
                raise
            raise click.ClickException(
                f"{ctx.command_path} {name.rstrip('_')} needs the package {package}: pip install 'stowstore[{extra}]'"
            ) from error
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.verbs()), default=0)
        for heading, section in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), verb.summary) for name, verb in section.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [
            CompletionItem(name, help=verb.summary)
            for name, verb in self.verbs().items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)
