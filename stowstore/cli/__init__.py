"""The command line: ``stowstore``, one module a group of commands."""

from __future__ import annotations

import sys

from stowstore.cli.ahead import begin_mounts

__all__ = ["main"]


def main(args: list[str] | None = None) -> None:
    """Runs the command line and leaves with its exit status."""
    begin_mounts(sys.argv[1:] if args is None else args)
    from stowstore.cli import app

    app.main(args)
