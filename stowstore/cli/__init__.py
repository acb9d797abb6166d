"""The command line: ``stowstore``, one module a group of commands."""

from stowstore.cli.app import main

__all__ = ["main"]
