"""``python -m stowstore.daemon``: started by `stowstore.mounts.starting`, never by hand."""

from __future__ import annotations

import gc
import json
import os
import socket
import sys

if __name__ == "__main__":
    # Nothing that is loaded is garbage, and to look for some takes a tenth of the loading.
    gc.disable()
    if sys.argv[1:] == ["--nursery"]:
        from stowstore.daemon.nursery import serve

        serve(socket.socket(fileno=0))

    import argparse

    from stowstore.daemon.process import main
    from stowstore.mounts.options import MountRequest

    gc.freeze()
    gc.enable()
    parser = argparse.ArgumentParser(description="Serves one mount; started by `stowstore mount`.")
    parser.add_argument("--log")
    parser.add_argument("--lifeline", type=int)
    parser.add_argument(
        "--nursery", action="store_true", help="alone: fork a daemon for each request on standard input"
    )
    arguments = parser.parse_args()
    request = MountRequest.from_data(json.loads(sys.stdin.buffer.read()))
    # The answer goes to whoever started us, once; everything else goes to the log.
    answer = os.dup(1)
    os.dup2(2, 1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.exit(main(request, answer=answer, log=arguments.log, lifeline=arguments.lifeline))
