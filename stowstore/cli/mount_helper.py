"""``mount.stowstore``, which mount(8) runs for lines of /etc/fstab: what it asks, in the words of ``mount``."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn

import click
from attrs import frozen

__all__ = ["MountLine", "main"]

#: What mount(8) says itself, or only whoever starts a machine reads.
_NOT_OURS: Final = frozenset(
    {"_netdev", "async", "auto", "defaults", "dev", "exec", "group", "noauto", "nofail", "owner", "rw", "suid"}
    | {"nouser", "user", "users"}
)
#: What the kernel does with a mount whatever its file system; such a mount gets them right after it was made.
_KERNELS: Final = frozenset({"noatime", "nodev", "nodiratime", "noexec", "nosuid", "relatime", "strictatime"})
#: What begins an option of the kind of store.
_KIND: Final = "option."

# The exit statuses of mount(8).
_USAGE, _FAILED = 1, 32


@frozen
class MountLine:
    """One call of mount(8): a volume, where it goes, and the options of the fourth field of fstab."""

    volume: str
    path: str
    options: tuple[str, ...] = ()
    #: Only say whether the call is right.
    is_fake: bool = False

    @classmethod
    def parse(cls, args: Sequence[str]) -> MountLine:
        """Reads ``SPEC DIRECTORY [-fnsv] [-o OPTIONS] [-t TYPE] [-N NAMESPACE]``.

        Raises:
            ValueError: it is something else.
        """
        words: list[str] = []
        options: list[str] = []
        is_fake = False
        rest = iter(args)
        for word in rest:
            if word in ("-o", "-t", "-N"):
                value = next(rest, None)
                if value is None:
                    raise ValueError(f"{word} is followed by nothing")
                if word == "-o":
                    options += filter(None, value.split(","))
            elif word.startswith("-") and word != "-":
                unknown = set(word[1:]) - set("fnsv")
                if unknown:
                    raise ValueError(f"no option {word} is known here")
                is_fake = is_fake or "f" in word
            else:
                words.append(word)
        if len(words) != 2:
            raise ValueError("a volume and a directory are wanted: mount.stowstore ROOT#NAME[@VERSION] DIRECTORY")
        return cls(words[0], words[1], tuple(options), is_fake)

    def words(self) -> Iterator[str]:
        """The arguments of ``stowstore`` that do what is asked for."""
        yield "mount"
        for option in self.options:
            name, equals, value = option.partition("=")
            if name in _NOT_OURS or name in _KERNELS or name.startswith(("x-", "X-", "comment")):
                continue
            if name == "ro":
                yield "--read-only"
            elif name.startswith(_KIND):
                yield f"--option={name.removeprefix(_KIND)}{equals}{value}"
            else:
                yield f"--{name.replace('_', '-')}{equals}{value}"
        yield from ("--", self.volume, self.path)

    def flags(self) -> list[str]:
        """The options that the kernel is to be told once there is a mount."""
        return [option for option in self.options if option in _KERNELS]


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Mounts, and leaves with a status of mount(8)."""
    from stowstore.cli.app import main as run

    try:
        line = MountLine.parse(sys.argv[1:] if args is None else args)
    except ValueError as error:
        click.echo(f"mount.stowstore: {error}", err=True)
        sys.exit(_USAGE)
    if line.is_fake:
        sys.exit(0)
    try:
        # mount(8) is silent when all is well.
        with contextlib.redirect_stdout(io.StringIO()):
            run(list(line.words()))
    except SystemExit as ended:
        if ended.code:
            sys.exit(_USAGE if ended.code == 2 else _FAILED)
    if flags := line.flags():
        sys.exit(_tell_kernel(line.path, flags))
    sys.exit(0)


def _tell_kernel(path: str, flags: Sequence[str]) -> int:
    """Sets flags of a mount, which is taken away again where they cannot be: nobody is to work without them."""
    command = ["mount", "-i", "-o", f"remount,bind,{','.join(flags)}", path]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode == 0:
        return 0
    from stowstore.mounts.unmounting import unmount

    unmount(path)
    click.echo(f"mount.stowstore: {path} cannot be {','.join(flags)}: {done.stderr.strip()}", err=True)
    return _FAILED
