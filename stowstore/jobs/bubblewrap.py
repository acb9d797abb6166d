"""Isolation by bubblewrap, as root or, with user namespaces, as anybody (github.com/containers/bubblewrap)."""

from __future__ import annotations

import os
from pathlib import PurePosixPath
from typing import Final

from attrs import frozen

from stowstore.jobs.gate import FIRST_INPUT, LEASH_OF_FIRST
from stowstore.jobs.request import WhenOrphaned
from stowstore.jobs.sandbox import CAPABILITIES, COVERED, Launch, View

__all__ = ["Bubblewrap"]

_SHARED: Final = "1777"


@frozen
class Bubblewrap:
    """Runs jobs by the program at a path."""

    program: str
    name = "bubblewrap"

    def launch(self, view: View, command: tuple[str, ...], when_orphaned: WhenOrphaned) -> Launch:
        """Everything goes by descriptors: what is in the arguments of a process, anybody may read."""
        said = ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--sync-fd", str(LEASH_OF_FIRST), "--clearenv"]
        if when_orphaned is WhenOrphaned.KILL:
            said.append("--die-with-parent")
        if os.geteuid() == 0:
            said += ["--cap-drop", "ALL", *(part for name in CAPABILITIES for part in ("--cap-add", name))]
        said += ["--proc", "/proc", "--dev", "/dev"]
        for name in COVERED:
            # Bubblewrap leaves /proc/sys as it is where its caller may write there.
            said += ["--ro-bind-try", f"/proc/{name}", f"/proc/{name}"]
        for place, mode in (("/dev/shm", _SHARED), ("/tmp", _SHARED), ("/work", "0755")):
            said += ["--perms", mode, "--size", str(view.scratch), "--tmpfs", place]
        for directory in view.directories:
            said += ["--perms", "0755", "--dir", str(directory)]
        for path, leads_to in view.links.items():
            said += [*_parents(path), "--symlink", leads_to, str(path)]
        for bind in view.binds:
            said += [*_parents(bind.target), "--ro-bind" if bind.read_only else "--bind"]
            said += [str(bind.source), str(bind.target)]
        documents = list(view.documents.items())
        for number, (path, _) in enumerate(documents, FIRST_INPUT + 1):
            said += [*_parents(path), "--perms", "0444", "--file", str(number), str(path)]
        said += ["--remount-ro", "/dev", "--remount-ro", "/"]
        for name, value in view.environment.items():
            said += ["--setenv", name, value]
        told = b"".join(os.fsencode(word) + b"\0" for word in said)
        return Launch(
            command=(self.program, "--args", str(FIRST_INPUT), "--", *command),
            inputs=(told, *(content for _, content in documents)),
        )


def _parents(path: PurePosixPath) -> list[str]:
    """Directories on the way, open to every user of the job; by itself bubblewrap makes them 0755, under a umask."""
    above = [parent for parent in reversed(path.parents) if parent != PurePosixPath("/")]
    return [word for parent in above for word in ("--perms", "0755", "--dir", str(parent))]
