"""What the first bytes of files look like."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from stowstore.explore.previews import preview
from tests.explore.conftest import png


def _shown(name: str, head: bytes, size: int | None = None) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True, color_system="truecolor")
    console.print(preview(name.encode(), len(head) if size is None else size, head))
    return out.getvalue()


def _plain(name: str, head: bytes, size: int | None = None) -> str:
    out = io.StringIO()
    Console(file=out, width=100, force_terminal=False).print(
        preview(name.encode(), len(head) if size is None else size, head)
    )
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "head", "told"),
    [
        ("empty", b"", "empty"),
        ("notes", b"one\ttwo\r\nthree", "one two\nthree"),
        ("notes", "größer [b]".encode(), "größer [b]"),
        ("data.bin", bytes(range(16)), "00 01 02 03 04 05 06 07  08 09 0a 0b 0c 0d 0e 0f  ················"),
        ("latin", b"gr\xf6\xdfer", "67 72 f6 df 65 72"),
        ("one.png", png(640, 480), "image, 640 x 480 pixels"),
        ("broken.png", png(1, 1)[:18], "89 50 4e 47"),
        ("movie.svg", b"<svg \xff\0 width='5' height='5'>", "3c 73 76 67"),
        ("escape", b"title \x1b]0;gone\x07 is this text", "title \\x1b]0;gone\\x07 is this text"),
        ("bidi.txt", "a longer text, admin\u202egnp.exe".encode(), "admin\\u202egnp.exe"),
    ],
)
def test_kinds_of_files(name: str, head: bytes, told: str) -> None:
    """Text as text, images by their dimensions, everything else in hexadecimal; nothing drives the terminal."""
    shown = _plain(name, head)
    assert told in shown
    assert "\x1b" not in shown


def test_code_has_colours() -> None:
    """The extension says which language it is; what is none has no colours."""
    assert "\x1b[" in _shown("train.py", b"def train(): return 1")
    assert "\x1b[" not in _shown("train", b"def train(): return 1")


def test_a_beginning_says_how_much_follows() -> None:
    """A letter that is cut in two at the end of what was fetched makes no text binary."""
    head = "größer".encode()[:3]
    shown = _plain("notes.txt", head, size=3 + (1 << 20))
    assert "gr" in shown
    assert "1.0 MiB more" in shown
