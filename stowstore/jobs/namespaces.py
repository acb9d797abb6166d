"""Isolation where bubblewrap is absent: namespaces by unshare(1), and the root made by a program of our own.

Python 3.11 has no `os.unshare`; unshare(1) is on every Linux system.  It starts `stowstore.jobs.inside` as the first
process of the new namespaces, which builds the job's root, moves into it and starts the command.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Final

from attrs import frozen

from stowstore.jobs.gate import FIRST_INPUT
from stowstore.jobs.request import WhenOrphaned
from stowstore.jobs.sandbox import CAPABILITIES, COVERED, Launch, View

__all__ = ["Namespaces"]

_INSIDE: Final = Path(__file__).with_name("inside.py")


@frozen
class Namespaces:
    """Runs jobs by unshare(1), the program at a path, and setpriv(1) beside it."""

    program: str
    name = "namespaces"

    def launch(self, view: View, command: tuple[str, ...], when_orphaned: WhenOrphaned) -> Launch:
        """The interpreter runs isolated from its environment and without site packages: it starts in 20 ms."""
        is_root = os.geteuid() == 0
        started = [self.program, "--mount", "--ipc", "--uts", "--pid", "--fork", "--propagation", "private"]
        if not is_root:
            started += ["--user", "--map-current-user", "--keep-caps"]
        if when_orphaned is WhenOrphaned.KILL:
            # unshare ends with us, and the job with unshare.
            started = ["setpriv", "--pdeathsig", "KILL", *started, "--kill-child=KILL"]
        told = {
            "binds": [[str(bind.source), str(bind.target), bind.read_only] for bind in view.binds],
            "links": {str(path): leads_to for path, leads_to in view.links.items()},
            "directories": [str(directory) for directory in view.directories],
            "documents": {str(path): content.decode() for path, content in view.documents.items()},
            "scratch": view.scratch,
            "environment": dict(view.environment),
            "capabilities": sorted(CAPABILITIES.values()) if is_root else [],
            "covered": COVERED,
            "command": list(command),
        }
        return Launch(
            command=(*started, "--", sys.executable, "-I", "-S", str(_INSIDE), str(FIRST_INPUT)),
            inputs=(json.dumps(told).encode(),),
        )
