"""What a job sees of the host: its programs and their configuration, for reading, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from attrs import frozen

__all__ = ["Bind", "base_environment", "system_binds", "system_links"]

_TREES: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

#: Of /etc what programs look at to run at all; not what hosts keep secret there, such as keys and passwords.
_CONFIGURATION: Final = (
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/java-*-openjdk",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/perl",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/python3*",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/shells",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/timezone",
)
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PASSED_ON: Final = ("LANG", "LANGUAGE", "TERM", "TZ")


@frozen(kw_only=True)
class Bind:
    """A directory or file of the host, and where a job sees it."""

    source: Path
    target: PurePosixPath
    read_only: bool = True


def system_binds(more: Iterable[Path] = ()) -> list[Bind]:
    """What there is of the host's programs and their configuration; sources are free of symbolic links."""
    found = [Path(tree) for tree in _TREES if os.path.isdir(tree) and not os.path.islink(tree)]
    # A link such as that of resolv.conf may lead where the job does not go: what it leads to stands in its place.
    found += [path for name in _CONFIGURATION for path in sorted(Path("/").glob(name[1:])) if path.exists()]
    found += more
    return [Bind(source=Path(os.path.realpath(path)), target=PurePosixPath(path)) for path in found]


def system_links() -> dict[PurePosixPath, str]:
    """Links at the top of the host, such as ``/bin`` to ``usr/bin``, and the job's own."""
    links = {PurePosixPath(tree): os.readlink(tree) for tree in _TREES if os.path.islink(tree)}
    return {**links, PurePosixPath("/var/tmp"): "../tmp"}


def base_environment(job: str, host: Mapping[str, str]) -> dict[str, str]:
    """The environment that every job gets: of the host's only the language, the terminal's kind and the time zone."""
    passed = {name: value for name, value in host.items() if name in _PASSED_ON or name.startswith("LC_")}
    return {**passed, "PATH": _PATH, "HOME": "/work", "TMPDIR": "/tmp", "STOWSTORE_JOB": job}
