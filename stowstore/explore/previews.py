"""What the first bytes of a file look like: text with its colours, the dimensions of an image, or hexadecimal."""

from __future__ import annotations

import codecs
import io
import struct
from typing import Final

import imagesize
from rich.console import Group, RenderableType
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text

from stowstore.wording import printable, size_text

__all__ = ["PREVIEW_BYTES", "preview"]

#: How much of a file is fetched to be looked at.
PREVIEW_BYTES: Final = 64 << 10

_HEX_BYTES: Final = 4 << 10
_ROW: Final = 16
#: What keeps a line of a text in one row of the pane, however long it is.
_LINE: Final = 2000


def preview(name: bytes, size: int, head: bytes) -> RenderableType:
    """The beginning of a file, ``head`` of its ``size`` bytes; safe to show whatever it holds."""
    rest = size - len(head)
    more = Text(f"… {size_text(rest)} more", "dim italic") if rest else Text()
    if not head:
        return Text("empty", "dim italic")
    text = _decoded(head, is_whole=not rest)
    if text is not None:
        return Group(_highlighted(name, text), more)
    dimensions = _dimensions(head)
    if dimensions is not None:
        return Group(Text(f"image, {dimensions[0]} x {dimensions[1]} pixels", "bold"), Text(), _hex(head[:256]))
    shown = head[:_HEX_BYTES]
    if len(shown) < size:
        more = Text(f"… {size_text(size - len(shown))} more", "dim italic")
    return Group(_hex(shown), more)


def _decoded(head: bytes, *, is_whole: bool) -> str | None:
    """The text, with everything that would drive a terminal escaped; None if it is none."""
    if b"\0" in head:
        return None
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head, final=is_whole)
    except UnicodeDecodeError:
        return None
    lines = text.replace("\r\n", "\n").split("\n")
    shown = [
        "".join(part if part == "\t" else printable(part) for part in _tabbed(line[:_LINE]))
        + (" …" if len(line) > _LINE else "")
        for line in lines
    ]
    # Bytes that happen to be text are none if a good part of them cannot be shown.
    odd = sum(map(len, shown)) - sum(map(len, lines))
    return None if odd > len(text) // 3 else "\n".join(shown).expandtabs(4)


def _tabbed(line: str) -> list[str]:
    """A line cut so that tabs stand alone."""
    parts: list[str] = []
    for part in line.split("\t"):
        parts += [part, "\t"]
    return parts[:-1]


def _highlighted(name: bytes, text: str) -> Text:
    lexer = Syntax.guess_lexer(printable(name), "")
    if lexer == "default":
        return Text(text)
    found = Text(text)
    for start, end, style in Syntax("", lexer).highlight(text).spans:
        if isinstance(style, Style):
            # The background is that of the pane.
            found.stylize(Style(color=style.color, bold=style.bold, italic=style.italic), start, end)
    return found


def _dimensions(head: bytes) -> tuple[int, int] | None:
    if head.lstrip()[:1] == b"<":
        # No parser of XML is let near this.
        return None
    try:
        width, height = imagesize.get(io.BytesIO(head))
    except (ValueError, struct.error, KeyError, IndexError, TypeError, OverflowError, OSError, ArithmeticError):
        return None
    return (int(width), int(height)) if width > 0 and height > 0 else None


def _hex(data: bytes) -> Text:
    text = Text(no_wrap=True)
    for offset in range(0, len(data), _ROW):
        row = data[offset : offset + _ROW]
        shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "·" for byte in row)
        text.append(f"{offset:08x}  ", "dim")
        text.append(f"{row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}  ")
        text.append(shown + "\n", "green")
    return text
