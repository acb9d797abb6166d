"""``python -m stowstore.daemon``: started by `stowstore.mounts.starting`, never by hand."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys

from stowstore.daemon.process import main
from stowstore.mounts.options import MountRequest

if __name__ == "__main__":
    # structlog would load it for the colours of tracebacks, which takes longer than to mount; a log has none.
    sys.modules["rich"] = None  # type: ignore[assignment]
    parser = argparse.ArgumentParser(description="Serves one mount; started by `stowstore mount`.")
    parser.add_argument("--log")
    parser.add_argument("--lifeline", type=int)
    parser.add_argument("--nursery", action="store_true", help="fork a daemon for each request on standard input")
    arguments = parser.parse_args()
    if arguments.nursery:
        from stowstore.daemon.nursery import serve

        serve(socket.socket(fileno=0))
    request = MountRequest.from_data(json.loads(sys.stdin.buffer.read()))
    # The answer goes to whoever started us, once; everything else goes to the log.
    answer = os.dup(1)
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.exit(main(request, answer=answer, log=arguments.log, lifeline=arguments.lifeline))
