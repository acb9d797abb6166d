"""A command in a terminal of its own."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Sequence

__all__ = ["leave_terminal"]


def leave_terminal(arguments: Sequence[str], *, once: bytes) -> None:
    """Runs ``stowstore`` in a terminal until it has drawn something, and leaves it with Ctrl+Q."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    environment = {**os.environ, "TERM": "xterm-256color"}
    process = subprocess.Popen(
        [sys.executable, "-m", "stowstore", *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    drawn = b""
    try:
        end = time.monotonic() + 30
        is_told = False
        while process.poll() is None and time.monotonic() < end:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    drawn += os.read(ours, 1 << 16)
                except OSError:
                    break
            if once in drawn and not is_told:
                is_told = True
                os.write(ours, b"\x11")
        assert once in drawn, drawn[-2000:]
        assert 0 == process.wait(30)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
