"""``stowstore doctor``: what this machine and a store can do, what is missing, and how to get it."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from uuid import uuid4

import click
from attrs import asdict, frozen

from datastore.errors import StoreError
from datastore.model import Feature
from stowstore.cli.opening import Opener
from stowstore.cli.output import echo_json, echo_table, json_option, size_text
from stowstore.locations.registry import known_schemes, load_kind
from stowstore.store import StowStore, open_store

__all__ = ["doctor"]

_PACKAGES = ("obstore", "minio", "apache-libcloud", "prometheus-client", "structlog", "attrs")
#: Extras for whoever works on this project, and those that only name others.
_NOT_FOR_USERS = frozenset({"all", "bench", "docs", "test"})
_REQUIREMENT = re.compile(r"""([A-Za-z0-9._-]+).*;.*\bextra == ["']([A-Za-z0-9._-]+)["']""")
_CREDENTIALS = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS",),
    "abfs": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_CLIENT_ID"),
    "sw": ("OS_AUTH_URL", "OS_USERNAME"),
}
_SKEW_SECONDS = 30
_CAP_SYS_ADMIN = 21
_PASSTHROUGH_SINCE = (6, 9)


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    FAIL = "fail"


@frozen
class Finding:
    """One thing that was looked at: ``advice`` says how to get what is missing."""

    check: str
    verdict: Verdict
    detail: str
    advice: str = ""


@click.command()
@click.option("--store", "store_url", metavar="URL", help="Also try this store: open, write, read, list, remove.")
@json_option
@click.pass_obj
def doctor(opener: Opener, store_url: str | None, as_json: bool) -> None:
    """Tell what works here and what does not: Python, client libraries, credentials, and the configured store.

    Exit status 1 when something the store needs is broken; what is only optional is a note.
    """
    findings = [*_machine(), *_mounting(), *_isolation(), *_kinds(), *_credentials()]
    if store_url is not None or opener.configured:
        with opener.limits():
            findings += _store_findings(lambda: open_store(store_url) if store_url else opener.store(None))
    else:
        findings.append(Finding("store", Verdict.NOTE, "none configured", "give --store URL, or set STOWSTORE_URL"))
    if as_json:
        echo_json([asdict(finding) for finding in findings])
    else:
        echo_table(
            ("", "check", "what was found", "what to do"),
            [(finding.verdict.value, finding.check, finding.detail, finding.advice) for finding in findings],
        )
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        raise SystemExit(1)


def _machine() -> Iterator[Finding]:
    yield Finding("python", Verdict.OK, ".".join(map(str, sys.version_info[:3])))
    for name in _PACKAGES:
        try:
            yield Finding(name, Verdict.OK, version(name))
        except PackageNotFoundError:
            yield Finding(name, Verdict.FAIL, "not installed", f"pip install {name}")
    for extra, packages in _extras().items():
        if missing := [package for package in packages if not _is_installed(package)]:
            advice = f'pip install "stowstore[{extra}]"'
            yield Finding(f"extra {extra}", Verdict.NOTE, f"without {', '.join(missing)}", advice)
        else:
            yield Finding(f"extra {extra}", Verdict.OK, "installed")
    usage = shutil.disk_usage(tempfile.gettempdir())
    enough = usage.free > 1 << 30
    yield Finding(
        "temporary space",
        Verdict.OK if enough else Verdict.NOTE,
        f"{size_text(usage.free)} free in {tempfile.gettempdir()}",
        "" if enough else "large uploads from streams may not fit: free some, or point TMPDIR elsewhere",
    )


def _extras() -> dict[str, list[str]]:
    """The packages each extra of this distribution brings."""
    found: dict[str, list[str]] = {}
    for requirement in requires("stowstore") or ():
        parts = _REQUIREMENT.match(requirement)
        if parts is not None and parts[2] not in _NOT_FOR_USERS:
            found.setdefault(parts[2], []).append(parts[1])
    return found


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _mounting() -> Iterator[Finding]:
    """What it takes to mount volumes, looked at without mounting."""
    device = Path("/dev/fuse")
    if not device.exists():
        yield Finding(
            "mount: /dev/fuse",
            Verdict.NOTE,
            "missing",
            "`modprobe fuse`; in a container: --device /dev/fuse --cap-add SYS_ADMIN (docs/mounting.md)",
        )
    elif not os.access(device, os.R_OK | os.W_OK):
        yield Finding("mount: /dev/fuse", Verdict.NOTE, "not open to this user", "as root: chmod 666 /dev/fuse")
    else:
        yield Finding("mount: /dev/fuse", Verdict.OK, "usable")
    if os.geteuid() == 0:
        capable = _has_capability(_CAP_SYS_ADMIN)
        yield Finding(
            "mount: right to mount",
            Verdict.OK if capable else Verdict.NOTE,
            "root" if capable else "root without the capability SYS_ADMIN",
            "" if capable else "start the container with --cap-add SYS_ADMIN (docs/mounting.md)",
        )
    elif shutil.which("fusermount3"):
        yield Finding("mount: right to mount", Verdict.OK, f"by {shutil.which('fusermount3')}")
    else:
        yield Finding("mount: right to mount", Verdict.NOTE, "no fusermount3", "as root: apt-get install fuse3")
    release = os.uname().release
    if tuple(int(part) for part in re.findall(r"\d+", release)[:2]) < _PASSTHROUGH_SINCE:
        yield Finding("mount: passthrough", Verdict.NOTE, f"not in Linux {release}", "Linux 6.9 and later have it")
    elif not _has_capability(_CAP_SYS_ADMIN):
        yield Finding(
            "mount: passthrough", Verdict.NOTE, "only with the capability SYS_ADMIN", "files are served all the same"
        )
    else:
        yield Finding("mount: passthrough", Verdict.OK, "possible for versions that are mounted with --cache-dir")


def _isolation() -> Iterator[Finding]:
    """What isolates jobs, found out by running one; what it has to say goes to standard error."""
    try:
        from stowstore.jobs import Job, run_job

        result = run_job(Job(command=("true",)))
    except (StoreError, OSError) as error:
        advice = getattr(error, "hint", None) or "on Debian or Ubuntu: apt-get install bubblewrap"
        yield Finding("run: isolation of jobs", Verdict.NOTE, str(getattr(error, "message", error)), advice)
    except ModuleNotFoundError as error:
        yield Finding(
            "run: isolation of jobs", Verdict.NOTE, f"no package {error.name}", "pip install 'stowstore[volumes]'"
        )
    else:
        works = Verdict.OK if result.exit_code == 0 else Verdict.NOTE
        yield Finding("run: isolation of jobs", works, f"by {result.sandbox}")


def _has_capability(number: int) -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _kinds() -> Iterator[Finding]:
    schemes = known_schemes()
    for name in sorted(set(schemes.values())):
        served = ", ".join(sorted(scheme for scheme, kind in schemes.items() if kind == name))
        try:
            kind = load_kind(name)
        except (StoreError, ImportError) as error:
            yield Finding(f"kind {name}", Verdict.FAIL, str(error), "reinstall stowstore, or the package of this kind")
        else:
            yield Finding(f"kind {name}", Verdict.OK, f"{kind.summary} ({served}://)")


def _credentials() -> Iterator[Finding]:
    for kind, names in _CREDENTIALS.items():
        present = [name for name in names if os.environ.get(name)]
        # Names only: what they hold is nobody's business.
        if present:
            yield Finding(f"credentials {kind}", Verdict.OK, f"{', '.join(present)} set")
        else:
            yield Finding(
                f"credentials {kind}", Verdict.NOTE, "none in the environment", f"give options, or set {names[0]}"
            )


def _store_findings(opener: Callable[[], StowStore]) -> Iterator[Finding]:
    try:
        store = opener()
    except StoreError as error:
        yield Finding("store", Verdict.FAIL, error.message, error.hint or "")
        return
    yield Finding("store", Verdict.OK, repr(store))
    base = store.base_container_fqn
    if not base.container:
        yield Finding("store probe", Verdict.NOTE, "no base container to try", "name one in the URL or configuration")
        return
    probe = base.join(f".stowstore-doctor-{uuid4().hex[:12]}")
    content = os.urandom(1024)
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("write", lambda: store.write_bytes(probe, content)),
        ("read", lambda: _same(store.read_bytes(probe), content)),
        ("list", lambda: _same(store.list(probe)[0], [probe])),
        ("clock", lambda: _skew(store.head(probe).last_modified)),
        ("delete", lambda: store.delete(probe, missing_ok=False)),
    )
    for name, step in steps:
        try:
            step()
            yield Finding(f"store {name}", Verdict.OK, "works")
        except (StoreError, AssertionError) as error:
            advice = getattr(error, "hint", None) or ""
            yield Finding(f"store {name}", Verdict.FAIL, str(getattr(error, "message", error)), advice)
            if name == "write":
                break
    able = store.capabilities()
    missing = sorted(feature.value for feature in Feature if feature not in able)
    yield Finding(
        "store features",
        Verdict.OK if not missing else Verdict.NOTE,
        f"not available: {', '.join(missing)}" if missing else "all",
    )


def _same(found: object, expected: object) -> None:
    if found != expected:
        raise AssertionError("what came back is not what was written")


def _skew(moment: datetime | None) -> None:
    if moment is not None:
        seconds = abs((datetime.now(UTC) - moment).total_seconds())
        if seconds > _SKEW_SECONDS:
            raise AssertionError(
                f"this clock and the store's differ by {seconds:.0f} s: signed requests may be refused"
            )
