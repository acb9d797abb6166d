"""An application of several processes over one exposition, for a test to command.

    python -m tests.observability.service DIRECTORY LOCATION WORKERS

It says the URL of its metrics. At each line ``work`` every worker writes and reads `OBJECTS` objects and keeps one
stream open; at ``lose`` one worker ends; at the end of its input all do.
"""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.connection import Connection

from metrics import mark_process_dead, start_http_server
from stowstore import open_store

__all__ = ["OBJECTS"]

#: How many objects a worker writes, and reads, at each command.
OBJECTS = 20


def work(directory: str, location: str, number: int, commands: Connection) -> None:
    """What one worker does."""
    with open_store(f"file://{directory}/main?name={location}") as store:
        base = store.base_container_fqn.join(f"worker-{number}")
        streams = []
        while commands.recv():
            for position in range(OBJECTS):
                store.write_bytes(base.join(str(position)), bytes(1000))
                store.read_bytes(base.join(str(position)))
            if not streams:
                streams.append(store.read_raw(base.join("0")))
            commands.send(True)
        for stream in streams:
            stream.close()


def main(directory: str, location: str, count: int) -> None:
    context = multiprocessing.get_context("spawn")
    workers = []
    for number in range(count):
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(directory, location, number, theirs))
        process.start()
        workers.append((process, ours))
    with start_http_server() as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        for command in map(str.strip, sys.stdin):
            if command == "lose":
                process, pipe = workers.pop()
                process.kill()
                process.join()
                mark_process_dead(process.pid or 0)
                pipe.close()
            else:
                for _, pipe in workers:
                    pipe.send(True)
                for _, pipe in workers:
                    pipe.recv()
            sys.stdout.write(f"{command}\n")
            sys.stdout.flush()
        for process, pipe in workers:
            pipe.send(False)
            process.join()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
