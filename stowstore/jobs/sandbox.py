"""What isolates a job: the protocol, what it is asked for, and the choice between the ways there are."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Final, Protocol

from attrs import field, frozen

from stowstore.jobs.errors import InvalidJob, NoSandbox
from stowstore.jobs.request import WhenOrphaned
from stowstore.jobs.system import Bind

__all__ = ["CAPABILITIES", "COVERED", "Launch", "Sandbox", "View", "choose"]

#: What the root of a job may do: be the root of its own files and become somebody else, and nothing to the machine.
CAPABILITIES: Final[Mapping[str, int]] = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_SYS_CHROOT": 18,
    "CAP_SETFCAP": 31,
}

#: Of /proc what would reach the whole machine, and can only be read.
COVERED: Final = ("bus", "fs", "irq", "sys", "sysrq-trigger")


@frozen(kw_only=True)
class View:
    """The whole world of a job.

    Everything is read-only but what is bound to be written and the three memory file systems ``/work``, ``/tmp`` and
    ``/dev/shm``, each of ``scratch`` bytes.  ``documents`` are files that say something, by their paths.
    """

    binds: tuple[Bind, ...]
    links: Mapping[PurePosixPath, str]
    directories: tuple[PurePosixPath, ...] = ()
    documents: Mapping[PurePosixPath, bytes] = field(factory=dict)
    scratch: int
    environment: Mapping[str, str] = field(repr=False)


@frozen(kw_only=True)
class Launch:
    """How a sandbox is started: its command, and what it reads from descriptors counted from `gate.FIRST_INPUT`."""

    command: tuple[str, ...]
    inputs: tuple[bytes, ...] = field(repr=False)


class Sandbox(Protocol):
    """A way of isolation.

    The process that is started has one child, the first process of the job's own process namespace, which keeps the
    descriptor `gate.LEASH_OF_FIRST` and whose end is the end of every other.  The command is the first child of that
    one.  The process that was started ends with the command's status, or 128 and the number of the signal.
    """

    @property
    def name(self) -> str:
        """What it is called in settings."""
        ...

    def launch(self, view: View, command: tuple[str, ...], when_orphaned: WhenOrphaned) -> Launch:
        """How to start a command in a view."""
        ...


def choose(name: str | None = None) -> Sandbox:
    """The sandbox of this name, or bubblewrap where it is installed, or else namespaces made by unshare(1).

    Raises:
        InvalidJob: there is no sandbox of this name.
        NoSandbox: this machine has not what it takes.
    """
    from stowstore.jobs.bubblewrap import Bubblewrap
    from stowstore.jobs.namespaces import Namespaces

    if name not in (None, Bubblewrap.name, Namespaces.name):
        raise InvalidJob(f"there is no sandbox {name!r}", hint=f"{Bubblewrap.name} and {Namespaces.name} are known")
    bwrap, unshare = shutil.which("bwrap"), shutil.which("unshare")
    if bwrap is not None and name in (None, Bubblewrap.name):
        return Bubblewrap(bwrap)
    if unshare is not None and name in (None, Namespaces.name):
        return Namespaces(unshare)
    raise NoSandbox(
        f"jobs cannot be isolated here: {name or 'neither bubblewrap nor unshare'} is not installed",
        hint="on Debian or Ubuntu: apt-get install bubblewrap",
    )
