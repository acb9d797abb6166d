"""Restores the project on an empty machine: ``python restore.py s3://bucket/runs?endpoint=...``"""

import sys

from machinable import Index, Project, get

from stowstore.records.machinable import Stow

with Project("."), Stow({"url": sys.argv[1], "directory": "./storage"}) as storage:
    # Only manifests are read here; the files of a record come when it is asked for them.
    sys.stdout.write(f"{len(Index.get().reindex(storage))} records\n")

    study = get("study", {"rate": 0.4})
    sys.stdout.write(f"{study.label}: {study.load_file('result.json')['x']:.6f}, {study.load_file('notes.txt')}\n")
    sys.stdout.write(f"finished: {study.execution.is_finished()}\n")
    for other in study.used_by:
        other.fetch()
        sys.stdout.write(f"{other.load_file('report.txt')}\n")
