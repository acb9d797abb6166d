"""The code blocks of the documents, in order, and what is to be done with each."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from attrs import frozen

__all__ = ["DOCUMENTS", "ROOT", "Block", "Use", "blocks_of", "indented_code"]

ROOT = Path(__file__).parents[2]

#: Everything with code in it that somebody reads.
DOCUMENTS = sorted(
    path.relative_to(ROOT)
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*.md"),
    ]
)

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<info>.*)$")
_ITEM = re.compile(r"^ *(?:[-*+]|\d+[.)]) ")
_REASON = re.compile(r"# Not run by the tests: \S.*")


class Use(StrEnum):
    """What a block is to a test."""

    RUN = "run"
    PARSED = "parsed"
    OUTPUT = "output"
    SHOWN = "shown"
    LEFT_OUT = "left out"


#: Languages that are run, and those whose texts at least have to be of the language they say.
_RUN = frozenset({"python", "py", "sh"})
_PARSED = frozenset({"json", "toml", "yaml", "ini"})


@frozen(kw_only=True)
class Block:
    """A fenced block: ``line`` is that of its fence; ``follows_code`` says that nothing stands before it but code."""

    document: Path
    line: int
    language: str
    info: str
    text: str
    follows_code: bool

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def use(self) -> Use:
        if "no-run" in self.info.split():
            return Use.LEFT_OUT
        if self.language in _RUN:
            return Use.RUN
        if self.language in _PARSED:
            return Use.PARSED
        return Use.OUTPUT if self.follows_code else Use.SHOWN

    @property
    def reason(self) -> str | None:
        """Why it is left out, as the reader is told; None where nothing is said."""
        first = self.text.partition("\n")[0]
        return first if _REASON.fullmatch(first) else None


def blocks_of(document: Path) -> list[Block]:
    """The blocks of a document, a path below the repository."""
    return list(_scan(document, (ROOT / document).read_text(encoding="utf-8").splitlines()))


def indented_code(document: Path) -> list[str]:
    """Where a document has code that is only indented, so that nothing says what it is."""
    found: list[str] = []
    in_fence = in_list = False
    before = ""
    for number, line in enumerate((ROOT / document).read_text(encoding="utf-8").splitlines(), 1):
        if _FENCE.match(line):
            in_fence = not in_fence
        elif not in_fence and line.strip():
            if not line.startswith(" "):
                in_list = _ITEM.match(line) is not None
            if line.startswith("    ") and not before.strip() and not in_list:
                found.append(f"{document}:{number}")
        before = line
    return found


def _scan(document: Path, lines: list[str]) -> Iterator[Block]:
    numbers = iter(enumerate(lines, 1))
    last = ""
    for number, line in numbers:
        opening = _FENCE.match(line)
        if opening is None:
            last = "" if line.strip() else last
            continue
        body = []
        for _, inner in numbers:
            if inner.strip() == opening["fence"]:
                break
            body.append(inner)
        info = opening["info"].strip()
        language = info.partition(" ")[0]
        yield Block(
            document=document,
            line=number,
            language=language,
            info=info.removeprefix(language).strip(),
            text=textwrap.dedent("\n".join(body) + "\n"),
            follows_code=language == "text" and last == "sh",
        )
        last = language
