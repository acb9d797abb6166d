"""``python -m stowstore``: the command line."""

from stowstore.cli import main

main()
