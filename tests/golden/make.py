"""Makes the golden root of a format version: run once when the version is new, and never again.

    python -m tests.golden.make tests/golden/v1.tar.xz

What it makes is kept for ever, and every later release has to read it: a plain root, a sealed one, and
``expected.json``, every file of the versions as `describe` saw it when they were written.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import stat
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from stowstore import RWVolume, Volume
from stowstore.chunks.encryption import Passphrase
from stowstore.volumes.files import Files

__all__ = ["KEY", "describe"]

#: The passphrase of the sealed root.
KEY = Passphrase("the golden key of version 1")


def describe(files: Files) -> dict[str, Any]:
    """All there is to know of the files of a version, by path."""
    found: dict[str, Any] = {}
    paths = [b"/"]
    for top, directories, names in files.walk(b"/"):
        paths += [os.path.join(top, name) for name in sorted(directories + names)]
    for path in paths:
        status = files.lstat(path)
        about: dict[str, Any] = {
            "mode": oct(status.st_mode),
            "nlink": status.st_nlink,
            "owner": [status.st_uid, status.st_gid],
            "size": status.st_size,
            "blocks": status.st_blocks,
            "mtime_ns": status.st_mtime_ns,
        }
        if stat.S_ISREG(status.st_mode):
            about["sha256"] = _digest(files, path, status.st_size)
        elif stat.S_ISLNK(status.st_mode):
            about["target"] = os.fsencode(files.readlink(path)).hex()
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            about["rdev"] = status.st_rdev
        names = files.listxattr(path, follow_symlinks=False)
        if names:
            about["xattrs"] = {name: files.getxattr(path, name, follow_symlinks=False).hex() for name in names}
        found[path.hex()] = about
    return found


def _digest(files: Files, path: bytes, size: int) -> str:
    if size > 1 << 30:
        # A hole of a petabyte: its data lie at the end.
        return hashlib.sha256(files.read_range(path, size - 4096, 4096)).hexdigest()
    return hashlib.sha256(files.read_bytes(path)).hexdigest()


def _fill(files: Files, random_bytes: random.Random) -> None:
    """One of everything."""
    files.makedirs("/tree/deep/er")
    for number in range(40):
        files.write_bytes(f"/tree/small-{number:02d}", b"small file %d\n" % number * (number + 1))
    files.write_bytes("/tree/empty", b"")
    files.write_bytes("/tree/random", random_bytes.randbytes(40_000))
    files.write_bytes("/tree/text", b"compressible " * 30_000)
    with files.open("/tree/sparse", "wb") as sparse:
        sparse.write(random_bytes.randbytes(5_000))
        sparse.seek(1 << 50)
        sparse.write(b"behind a hole of a petabyte")
    with files.open("/tree/pieces", "wb") as pieces:
        for number in range(400):
            pieces.seek(number * 8192)
            pieces.write(b"piece %d" % number)
    files.copy("/tree/random", "/tree/deep/copy")
    files.write_bytes(b"/tree/\xff not text \n", b"a name of any bytes")
    files.write_bytes("/tree/" + "n" * 255, b"the longest name")
    files.link("/tree/random", "/tree/deep/er/second name")
    files.symlink("../empty", "/tree/deep/link")
    files.symlink(b"\xfe\xff", "/tree/odd link")
    files.chmod("/tree/small-00", 0o4711)
    files.chown("/tree/small-01", 1234, 5678)
    files.utime("/tree/small-02", ns=(-1, -1_500_000_000))
    files.setxattr("/tree/small-03", "user.note", b"\0\1\2")
    files.setxattr("/tree/deep", "user.long", b"x" * 5_000)
    files._source().mknod(1, b"fifo", stat.S_IFIFO | 0o600, files._caller)
    files._source().mknod(1, b"device", stat.S_IFBLK | 0o600, files._caller, os.makedev(8, 300))
    files._source().mknod(1, b"socket", stat.S_IFSOCK | 0o600, files._caller)


def _history(volume: RWVolume) -> dict[str, Any]:
    """Commits, a fork, a merge, a restore and tags; the files of each version by its id."""
    expected: dict[str, Any] = {}
    blocking = volume.blocking

    def keep(version: Volume) -> Volume:
        with version.blocking as files:
            expected[version.blocking._newest().id] = {
                "volume": version.blocking._newest().volume,
                "message": version.message,
                "files": describe(files),
            }
        return version

    with blocking as files:
        _fill(files, random.Random(1))
        first = keep(blocking.commit("everything"))
        files.remove("/tree/small-10")
        files.rename("/tree/small-11", "/tree/deep/moved")
        files.write_text("/tree/small-12", "changed")
        files.truncate("/tree/text", 100)
        keep(blocking.commit("changes"))
        fork = blocking.fork("fork")
        with fork.blocking as forked:
            forked.write_text("/from the fork", "hello")
            forked.rmtree("/tree/deep/er")
            theirs = keep(fork.blocking.commit("on the fork"))
        files.write_text("/on the main line", "hello")
        keep(blocking.commit("on the main line"))
        keep(blocking.merge(theirs, message="merged").version)
        for number in range(12):
            files.write_text("/counter", str(number))
            last = blocking.commit(f"counter {number}")
        keep(last)
        keep(blocking.restore(first, message="back to everything"))
        blocking.tag("everything", first.blocking._newest().id)
        blocking.tag("latest")
    return expected


def main(archive: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(archive, "x:xz") as tar:
        expected = {}
        for name, key in (("plain", None), ("sealed", KEY)):
            directory = Path(scratch, name)
            Volume.configure(f"file://{directory}", key=key)
            expected[name] = _history(Volume.new("golden", f"file://{directory}"))
            tar.add(directory, name)
        listed = Path(scratch, "expected.json")
        listed.write_text(json.dumps(expected, indent=0, sort_keys=True) + "\n")
        tar.add(listed, listed.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
