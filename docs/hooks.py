"""What the site has beyond the documents: a page of all commands, made from the commands (hooks of mkdocs)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from stowstore.cli.app import cli

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

__all__ = ["PAGE", "on_files", "on_page_markdown", "page"]

PAGE = "reference/commands.md"

_INTRODUCTION = """\
# The commands

What `--help` says of each command, made from the command line itself. [The command line](../command-line.md) is the
guide to it; [volumes](../volumes.md), [mounting](../mounting.md), [named volumes](../named-volumes.md) and
[records](../records.md) tell what the verbs are for.
"""

_MARKED_FENCE = re.compile(r"^( *```\w+) no-run$", re.MULTILINE)

#: Arguments by which the verbs of a group tell apart what they are about: volumes of this host, and one in a store.
_SUBJECTS: tuple[list[str], ...] = ([], ["name"], ["file:///root#name"])


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the page to those of the site."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, PAGE, content=page()))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Takes the mark of blocks that are not run from their fences: it is the tests', and no fence to the site."""
    return _MARKED_FENCE.sub(r"\1", markdown)


def page() -> str:
    """The page, in Markdown: a section a command, one after another if a verb means two."""
    return "\n".join([_INTRODUCTION, *_sections(cli, click.Context(cli, info_name="stowstore"), level=2)])


def _sections(command: click.Command, context: click.Context, level: int, about: str = "") -> Iterator[str]:
    yield _section(command, context, level, about)
    if isinstance(command, click.Group):
        for verb in command.list_commands(context):
            for meant, about in _meanings(command, context, verb).items():
                yield from _sections(meant, click.Context(meant, info_name=verb, parent=context), 3, about)


def _meanings(group: click.Group, context: click.Context, verb: str) -> dict[click.Command, str]:
    """The commands a verb stands for, which may depend on what it is given, and what tells them apart."""
    here, named, stored = (group.resolve_command(context, [verb, *subject])[1] for subject in _SUBJECTS)
    found = dict.fromkeys(command for command in (here, named, stored) if command is not None)
    if len(found) == 1:
        return dict.fromkeys(found, "")
    return {command: "(in a store)" if command is stored else "(on this host)" for command in found}


def _section(command: click.Command, context: click.Context, level: int, about: str) -> str:
    usage = command.get_usage(context).removeprefix("Usage: ")
    title = _plain(f"{context.command_path} {about}".rstrip())
    parts = [f"{'#' * level} {title}", f"```text\n{usage}\n```", _prose(command.help or "")]
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    records = [(_names(option), option.get_help_record(context)) for option in options]
    rows = [f"| {names} | {_cell(record[1])} |" for names, record in records if record and "--help" not in record[0]]
    if rows:
        parts.append("\n".join(["| option | meaning |", "|---|---|", *rows]))
    return "\n\n".join(part for part in parts if part) + "\n"


def _names(option: click.Option) -> str:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    if option.is_flag or option.count:
        return names
    return f"{names} {_cell(f'`{option.make_metavar(click.Context(cli))}`')}"


def _prose(text: str) -> str:
    """The help of a command: paragraphs, and those marked not to be filled as they stand."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if paragraph.startswith("\b"):
            title, _, lines = paragraph.removeprefix("\b").strip("\n").partition("\n")
            body = "\n".join(line.strip() for line in lines.splitlines())
            paragraphs.append(f"{title.strip()}\n\n```text\n{body}\n```" if body else _plain(title.strip()))
        else:
            paragraphs.append(_plain(" ".join(paragraph.split())))
    return "\n\n".join(paragraphs)


def _plain(text: str) -> str:
    """Text in which Markdown sees no marks."""
    return re.sub(r"([\\`*_<>#|\[\]])", r"\\\1", text)


def _cell(text: str) -> str:
    code = text.startswith("`")
    return text.replace("|", "\\|") if code else _plain(" ".join(text.split()))
