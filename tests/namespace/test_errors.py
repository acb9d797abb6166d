"""Every operation refuses what Linux refuses, with Linux's errno."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any

import pytest

from stowstore.index.keys import SUPERBLOCK, entry_key, inode_key
from stowstore.index.records import EntryRecord, InodeRecord, Superblock
from stowstore.index.snapshot import Snapshot, SnapshotRef, commit_changes
from stowstore.namespace.attributes import MAX_SIZE, NOW, AttributeChanges
from stowstore.namespace.core import MAX_LINKS
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import ROOT, Caller, PermissionChecks
from stowstore.namespace.renames import RenameFlags
from tests.index.nodes import MemoryNodes
from tests.namespace.memory_content import MemoryContent
from tests.namespace.sessions import Session

ANNA = Caller(uid=1001, gid=1001, groups=(3000,))
BERT = Caller(uid=1002, gid=1002)


class World:
    """A tree to be refused things in: what the table below names."""

    def __init__(self) -> None:
        self.session = Session()
        files = self.files = self.session.files
        files.setattr(1, AttributeChanges(mode=0o777), ROOT)
        self.directory = files.mkdir(1, b"directory", 0o755, ANNA).ino
        self.inner = files.mkdir(self.directory, b"inner", 0o755, ANNA).ino
        self.full = files.mkdir(1, b"full", 0o755, ANNA).ino
        files.mknod(self.full, b"entry", 0o644, ANNA)
        self.file = files.mknod(1, b"file", 0o644, ANNA).ino
        self.secret = files.mknod(1, b"secret", 0o600, ANNA).ino
        self.link = files.symlink(1, b"link", b"file", ANNA).ino
        self.fifo = files.mknod(1, b"fifo", stat.S_IFIFO | 0o666, ANNA).ino
        self.sticky = files.mkdir(1, b"sticky", 0o755, ROOT).ino
        files.setattr(self.sticky, AttributeChanges(mode=0o1777), ROOT)
        self.theirs = files.mknod(self.sticky, b"theirs", 0o666, ANNA).ino
        self.closed = files.mkdir(1, b"closed", 0o700, ANNA).ino
        self.reading = files.open(self.file, os.O_RDONLY, ROOT)
        self.writing = files.open(self.file, os.O_WRONLY, ROOT)
        self.appending = files.open(self.file, os.O_WRONLY | os.O_APPEND, ROOT)
        files.write(self.writing, 0, b"content", ROOT)
        self.removed = files.mkdir(1, b"removed", 0o755, ANNA).ino
        files.retain(self.removed)
        files.rmdir(1, b"removed", ANNA)


LONG = b"n" * 256
Refusal = tuple[str, int, Callable[[FileSystem, World], Any]]

NAMES: list[Refusal] = [
    ("lookup of an absent name", errno.ENOENT, lambda f, w: f.lookup(1, b"absent", ANNA)),
    ("lookup in a file", errno.ENOTDIR, lambda f, w: f.lookup(w.file, b"x", ANNA)),
    ("lookup in a link", errno.ENOTDIR, lambda f, w: f.lookup(w.link, b"x", ANNA)),
    ("lookup of a long name", errno.ENAMETOOLONG, lambda f, w: f.lookup(1, LONG, ANNA)),
    ("lookup of nothing", errno.ENOENT, lambda f, w: f.lookup(1, b"", ANNA)),
    ("lookup of a slash", errno.EINVAL, lambda f, w: f.lookup(1, b"a/b", ANNA)),
    ("lookup of NUL", errno.EINVAL, lambda f, w: f.lookup(1, b"a\0b", ANNA)),
    ("lookup without search permission", errno.EACCES, lambda f, w: f.lookup(w.closed, b"x", BERT)),
    ("getattr of no inode", errno.ESTALE, lambda f, w: f.getattr(99_999)),
    ("mkdir over a file", errno.EEXIST, lambda f, w: f.mkdir(1, b"file", 0o755, ANNA)),
    ("mkdir of .", errno.EEXIST, lambda f, w: f.mkdir(1, b".", 0o755, ANNA)),
    ("mkdir of a long name", errno.ENAMETOOLONG, lambda f, w: f.mkdir(1, LONG, 0o755, ANNA)),
    ("mkdir where one may not write", errno.EACCES, lambda f, w: f.mkdir(w.directory, b"x", 0o755, BERT)),
    ("mkdir in a removed directory", errno.ENOENT, lambda f, w: f.mkdir(w.removed, b"x", 0o755, ANNA)),
    ("mknod of a device by a user", errno.EPERM, lambda f, w: f.mknod(1, b"x", stat.S_IFCHR | 0o600, ANNA, 1)),
    ("mknod of a directory", errno.EPERM, lambda f, w: f.mknod(1, b"x", stat.S_IFDIR | 0o700, ROOT)),
    ("mknod of a link", errno.EINVAL, lambda f, w: f.mknod(1, b"x", stat.S_IFLNK | 0o700, ROOT)),
    ("symlink to nothing", errno.ENOENT, lambda f, w: f.symlink(1, b"x", b"", ANNA)),
    ("symlink to a long path", errno.ENAMETOOLONG, lambda f, w: f.symlink(1, b"x", b"t" * 4096, ANNA)),
    ("readlink of a file", errno.EINVAL, lambda f, w: f.readlink(w.file)),
    ("link of a directory", errno.EPERM, lambda f, w: f.link(w.directory, 1, b"x", ROOT)),
    ("link over a file", errno.EEXIST, lambda f, w: f.link(w.file, 1, b"link", ROOT)),
    ("unlink of an absent name", errno.ENOENT, lambda f, w: f.unlink(1, b"absent", ANNA)),
    ("unlink of a directory", errno.EISDIR, lambda f, w: f.unlink(1, b"directory", ANNA)),
    ("unlink of .", errno.EISDIR, lambda f, w: f.unlink(1, b".", ANNA)),
    ("unlink in a sticky directory", errno.EPERM, lambda f, w: f.unlink(w.sticky, b"theirs", BERT)),
    ("unlink where one may not write", errno.EACCES, lambda f, w: f.unlink(w.full, b"entry", BERT)),
    ("rmdir of a file", errno.ENOTDIR, lambda f, w: f.rmdir(1, b"file", ANNA)),
    ("rmdir of a full directory", errno.ENOTEMPTY, lambda f, w: f.rmdir(1, b"full", ANNA)),
    ("rmdir of .", errno.EINVAL, lambda f, w: f.rmdir(1, b".", ANNA)),
    ("rmdir of ..", errno.ENOTEMPTY, lambda f, w: f.rmdir(w.inner, b"..", ANNA)),
]

RENAMES: list[Refusal] = [
    ("of an absent name", errno.ENOENT, lambda f, w: f.rename(1, b"absent", 1, b"x", ANNA)),
    ("to a long name", errno.ENAMETOOLONG, lambda f, w: f.rename(1, b"file", 1, LONG, ANNA)),
    ("of .", errno.EBUSY, lambda f, w: f.rename(1, b".", 1, b"x", ANNA)),
    ("to ..", errno.EBUSY, lambda f, w: f.rename(1, b"file", 1, b"..", ANNA)),
    ("of a directory over a file", errno.ENOTDIR, lambda f, w: f.rename(1, b"full", 1, b"file", ANNA)),
    ("of a file over a directory", errno.EISDIR, lambda f, w: f.rename(1, b"file", 1, b"full", ANNA)),
    ("over a full directory", errno.ENOTEMPTY, lambda f, w: f.rename(1, b"closed", 1, b"full", ANNA)),
    ("below itself", errno.EINVAL, lambda f, w: f.rename(1, b"directory", w.inner, b"x", ANNA)),
    ("over what it lies in", errno.ENOTEMPTY, lambda f, w: f.rename(w.directory, b"inner", 1, b"directory", ANNA)),
    ("without replacing", errno.EEXIST, lambda f, w: f.rename(1, b"file", 1, b"link", ANNA, RenameFlags.NOREPLACE)),
    ("in exchange for nothing", errno.ENOENT, lambda f, w: f.rename(1, b"file", 1, b"x", ANNA, RenameFlags.EXCHANGE)),
    (
        "in exchange with what it lies in",
        errno.EINVAL,
        lambda f, w: f.rename(w.directory, b"inner", 1, b"directory", ANNA, RenameFlags.EXCHANGE),
    ),
    ("with two flags", errno.EINVAL, lambda f, w: f.rename(1, b"file", 1, b"x", ANNA, 3)),
    ("with a flag unknown", errno.EINVAL, lambda f, w: f.rename(1, b"file", 1, b"x", ANNA, 4)),
    ("out of a sticky directory", errno.EPERM, lambda f, w: f.rename(w.sticky, b"theirs", 1, b"x", BERT)),
    ("into a removed directory", errno.ENOENT, lambda f, w: f.rename(1, b"file", w.removed, b"x", ANNA)),
    ("into a closed directory", errno.EACCES, lambda f, w: f.rename(1, b"file", w.closed, b"x", BERT)),
]

FILES: list[Refusal] = [
    ("open of a directory", errno.EISDIR, lambda f, w: f.open(w.directory, os.O_RDONLY, ANNA)),
    ("open of a link", errno.ELOOP, lambda f, w: f.open(w.link, os.O_RDONLY, ANNA)),
    ("open of a fifo", errno.ENXIO, lambda f, w: f.open(w.fifo, os.O_RDONLY, ANNA)),
    ("open of a file as a directory", errno.ENOTDIR, lambda f, w: f.open(w.file, os.O_DIRECTORY, ANNA)),
    ("open without permission", errno.EACCES, lambda f, w: f.open(w.secret, os.O_RDONLY, BERT)),
    ("truncation while opening to read", errno.EACCES, lambda f, w: f.open(w.file, os.O_TRUNC, BERT)),
    ("exclusive creation", errno.EEXIST, lambda f, w: f.create(1, b"file", 0o644, os.O_EXCL | os.O_RDWR, ANNA)),
    ("tmpfile to read", errno.EINVAL, lambda f, w: f.tmpfile(1, 0o600, os.O_RDONLY, ANNA)),
    ("tmpfile in a file", errno.ENOTDIR, lambda f, w: f.tmpfile(w.file, 0o600, os.O_RDWR, ANNA)),
    ("read of no handle", errno.EBADF, lambda f, w: f.read(4711, 0, 1)),
    ("read of a handle to write", errno.EBADF, lambda f, w: f.read(w.writing, 0, 1)),
    ("write to a handle to read", errno.EBADF, lambda f, w: f.write(w.reading, 0, b"x", ANNA)),
    ("write before the start", errno.EINVAL, lambda f, w: f.write(w.writing, -1, b"x", ANNA)),
    ("write beyond the largest size", errno.EFBIG, lambda f, w: f.write(w.writing, MAX_SIZE, b"x", ANNA)),
    ("release of no handle", errno.EBADF, lambda f, w: f.release(4711)),
    ("punching and growing", errno.EOPNOTSUPP, lambda f, w: f.fallocate(w.writing, 2, 0, 1, ANNA)),
    ("collapsing", errno.EOPNOTSUPP, lambda f, w: f.fallocate(w.writing, 8, 0, 1, ANNA)),
    ("allocating nothing", errno.EINVAL, lambda f, w: f.fallocate(w.writing, 0, 0, 0, ANNA)),
    ("allocating beyond the end", errno.EFBIG, lambda f, w: f.fallocate(w.writing, 0, MAX_SIZE, 1, ANNA)),
    ("seeking behind the end", errno.ENXIO, lambda f, w: f.lseek(w.reading, 7, os.SEEK_DATA)),
    ("seeking from a position", errno.EINVAL, lambda f, w: f.lseek(w.reading, 0, os.SEEK_CUR)),
    (
        "copying to a handle to append",
        errno.EBADF,
        lambda f, w: f.copy_file_range(w.reading, 0, w.appending, 0, 1, ANNA),
    ),
    ("copying over itself", errno.EINVAL, lambda f, w: f.copy_file_range(w.reading, 0, w.writing, 1, 4, ANNA)),
    ("listing a file", errno.ENOTDIR, lambda f, w: f.opendir(w.file, ANNA)),
    ("listing without permission", errno.EACCES, lambda f, w: f.opendir(w.closed, BERT)),
    ("reading no directory", errno.EBADF, lambda f, w: f.readdir(4711)),
]


def change(**changes: Any) -> AttributeChanges:
    return AttributeChanges(**changes)


ATTRIBUTES: list[Refusal] = [
    ("chmod by another", errno.EPERM, lambda f, w: f.setattr(w.file, change(mode=0o777), BERT)),
    ("chown by the owner", errno.EPERM, lambda f, w: f.setattr(w.file, change(uid=1002), ANNA)),
    ("chgrp to a foreign group", errno.EPERM, lambda f, w: f.setattr(w.file, change(gid=4000), ANNA)),
    ("touch without permission", errno.EACCES, lambda f, w: f.setattr(w.file, change(atime=NOW, mtime=NOW), BERT)),
    ("setting one time by another", errno.EPERM, lambda f, w: f.setattr(w.theirs, change(mtime=NOW), BERT)),
    ("setting times by another", errno.EPERM, lambda f, w: f.setattr(w.theirs, change(atime=1, mtime=1), BERT)),
    ("truncating without permission", errno.EACCES, lambda f, w: f.setattr(w.file, change(size=0), BERT)),
    ("truncating a directory", errno.EISDIR, lambda f, w: f.setattr(w.directory, change(size=0), ANNA)),
    ("truncating a fifo", errno.EINVAL, lambda f, w: f.setattr(w.fifo, change(size=0), ANNA)),
    ("truncating below nothing", errno.EINVAL, lambda f, w: f.setattr(w.file, change(size=-1), ANNA)),
    ("truncating beyond the end", errno.EFBIG, lambda f, w: f.setattr(w.file, change(size=MAX_SIZE + 1), ANNA)),
    ("truncating by a handle to read", errno.EINVAL, lambda f, w: f.setattr(w.file, change(size=0), ANNA, w.reading)),
    ("access that is not granted", errno.EACCES, lambda f, w: f.access(w.secret, os.R_OK, BERT)),
    ("execution of what is no program", errno.EACCES, lambda f, w: f.access(w.file, os.X_OK, ROOT)),
]

XATTRS: list[Refusal] = [
    ("getting an absent one", errno.ENODATA, lambda f, w: f.getxattr(w.file, b"user.x", ANNA)),
    ("getting a capability nobody set", errno.ENODATA, lambda f, w: f.getxattr(w.file, b"security.capability", ANNA)),
    ("getting from a class unknown", errno.EOPNOTSUPP, lambda f, w: f.getxattr(w.file, b"nonsense", ANNA)),
    (
        "getting an access control list",
        errno.EOPNOTSUPP,
        lambda f, w: f.getxattr(w.file, b"system.posix_acl_access", ANNA),
    ),
    ("getting a user's of a link", errno.ENODATA, lambda f, w: f.getxattr(w.link, b"user.x", ANNA)),
    ("getting a trusted one as a user", errno.ENODATA, lambda f, w: f.getxattr(w.file, b"trusted.x", ANNA)),
    ("getting without permission", errno.EACCES, lambda f, w: f.getxattr(w.secret, b"user.x", BERT)),
    ("setting without permission", errno.EACCES, lambda f, w: f.setxattr(w.file, b"user.x", b"", BERT)),
    ("setting a user's on a fifo", errno.EPERM, lambda f, w: f.setxattr(w.fifo, b"user.x", b"", ANNA)),
    ("setting a trusted one as a user", errno.EPERM, lambda f, w: f.setxattr(w.file, b"trusted.x", b"", ANNA)),
    ("setting a security one as a user", errno.EPERM, lambda f, w: f.setxattr(w.file, b"security.x", b"", ANNA)),
    ("setting on another's sticky directory", errno.EPERM, lambda f, w: f.setxattr(w.sticky, b"user.x", b"", ANNA)),
    ("setting a long name", errno.ERANGE, lambda f, w: f.setxattr(w.file, b"user." + LONG, b"", ANNA)),
    ("setting no name", errno.ERANGE, lambda f, w: f.setxattr(w.file, b"", b"", ANNA)),
    ("setting a class alone", errno.EINVAL, lambda f, w: f.setxattr(w.file, b"user.", b"", ANNA)),
    ("setting too much", errno.E2BIG, lambda f, w: f.setxattr(w.file, b"user.x", b"v" * 65537, ANNA)),
    ("replacing an absent one", errno.ENODATA, lambda f, w: f.setxattr(w.file, b"user.x", b"", ANNA, os.XATTR_REPLACE)),
    ("setting with a flag unknown", errno.EINVAL, lambda f, w: f.setxattr(w.file, b"user.x", b"", ANNA, 4)),
    ("removing an absent one", errno.ENODATA, lambda f, w: f.removexattr(w.file, b"user.x", ANNA)),
]

READ_ONLY: list[Refusal] = [
    ("mkdir", errno.EROFS, lambda f, w: f.mkdir(1, b"x", 0o755, ROOT)),
    ("mkdir over a file", errno.EEXIST, lambda f, w: f.mkdir(1, b"file", 0o755, ROOT)),
    ("create", errno.EROFS, lambda f, w: f.create(1, b"x", 0o644, os.O_RDWR, ROOT)),
    ("unlink", errno.EROFS, lambda f, w: f.unlink(1, b"file", ROOT)),
    ("rmdir", errno.EROFS, lambda f, w: f.rmdir(1, b"directory", ROOT)),
    ("rename", errno.EROFS, lambda f, w: f.rename(1, b"file", 1, b"x", ROOT)),
    ("link", errno.EROFS, lambda f, w: f.link(w.file, 1, b"x", ROOT)),
    ("chmod", errno.EROFS, lambda f, w: f.setattr(w.file, change(mode=0o600), ROOT)),
    ("open to write", errno.EROFS, lambda f, w: f.open(w.file, os.O_RDWR, ROOT)),
    ("open to truncate", errno.EROFS, lambda f, w: f.open(w.file, os.O_TRUNC, ROOT)),
    ("access to write", errno.EROFS, lambda f, w: f.access(w.file, os.W_OK, ROOT)),
    ("setxattr", errno.EROFS, lambda f, w: f.setxattr(w.file, b"user.x", b"", ROOT)),
    ("freeze", errno.EROFS, lambda f, w: f.freeze()),
]


def named(table: list[Refusal]) -> Any:
    return pytest.mark.parametrize(("code", "action"), [pytest.param(*row[1:], id=row[0]) for row in table])


def refused(code: int, action: Callable[[], Any]) -> None:
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        action()
    assert errno.errorcode[code] == errno.errorcode[caught.value.errno or 0]


@named(NAMES)
def test_names(code: int, action: Callable[[FileSystem, World], Any]) -> None:
    """Operations on names are refused as on Linux."""
    world = World()
    refused(code, lambda: action(world.files, world))


@named(RENAMES)
def test_renames(code: int, action: Callable[[FileSystem, World], Any]) -> None:
    """A rename is refused as on Linux, and has changed nothing then."""
    world = World()
    world.session.commit()
    refused(code, lambda: action(world.files, world))
    assert 0 == world.files.changed_inodes


@named(FILES)
def test_files(code: int, action: Callable[[FileSystem, World], Any]) -> None:
    """Operations on files and handles are refused as on Linux."""
    world = World()
    refused(code, lambda: action(world.files, world))


@named(ATTRIBUTES)
def test_attributes(code: int, action: Callable[[FileSystem, World], Any]) -> None:
    """Changes of attributes are refused as on Linux."""
    world = World()
    refused(code, lambda: action(world.files, world))


@named(XATTRS)
def test_xattrs(code: int, action: Callable[[FileSystem, World], Any]) -> None:
    """Operations on extended attributes are refused as on Linux."""
    world = World()
    refused(code, lambda: action(world.files, world))


@named(READ_ONLY)
def test_read_only(code: int, action: Callable[[FileSystem, World], Any]) -> None:
    """A read-only session refuses every change with EROFS, after what is wrong with the name itself."""
    world = World()
    world.session.commit()
    refused(code, lambda: action(world.session.reader(), world))


def test_setting_an_existing_xattr_anew_is_refused() -> None:
    """With XATTR_CREATE an attribute that exists is left alone."""
    world = World()
    world.files.setxattr(world.file, b"user.x", b"1", ANNA)
    refused(errno.EEXIST, lambda: world.files.setxattr(world.file, b"user.x", b"2", ANNA, os.XATTR_CREATE))
    assert b"1" == world.files.getxattr(world.file, b"user.x", ANNA)


def test_attribute_names_are_bounded() -> None:
    """An inode keeps no more names than one listing can return."""
    world = World()
    for number in range(268):
        world.files.setxattr(world.file, b"user.%0238d" % number, b"", ANNA)
    refused(errno.ENOSPC, lambda: [world.files.setxattr(world.file, b"user.y%d" % n, b"", ANNA) for n in range(99)])


@pytest.mark.parametrize("kind", [stat.S_IFREG, stat.S_IFDIR])
def test_links_are_bounded(kind: int) -> None:
    """What has as many links as can be counted gets no further one."""
    nodes = MemoryNodes()
    full = InodeRecord(kind | 0o777, 0, 0, MAX_LINKS, 0, 0, 0, 0, 0, parent=1)
    changes = {
        SUPERBLOCK: Superblock(3, 0, 2).encode(),
        inode_key(1): InodeRecord(stat.S_IFDIR | 0o777, 0, 0, 3, 0, 0, 0, 0, 0, parent=1).encode(),
        inode_key(2): full.encode(),
        entry_key(1, b"full"): EntryRecord(2, kind).encode(),
    }
    ref = commit_changes(Snapshot(SnapshotRef(), nodes.cache()), changes, nodes)
    files = FileSystem(Snapshot(ref, nodes.cache()), MemoryContent())
    if kind == stat.S_IFREG:
        refused(errno.EMLINK, lambda: files.link(2, 1, b"x", ROOT))
    else:
        refused(errno.EMLINK, lambda: files.mkdir(2, b"x", 0o755, ROOT))
        files.mkdir(1, b"moving", 0o755, ROOT)
        refused(errno.EMLINK, lambda: files.rename(1, b"moving", 2, b"x", ROOT))


def test_the_kernel_may_check_permissions() -> None:
    """With the kernel checking, mode bits stop nobody here: its requests lack the supplementary groups."""
    session = Session()
    session.files.mknod(1, b"file", 0o600, ROOT)
    session.commit()
    files = session.reopen(permissions=PermissionChecks.KERNEL)
    found = files.lookup(1, b"file", BERT)
    files.release(files.open(found.ino, os.O_RDWR, BERT))
    files.setattr(found.ino, AttributeChanges(mode=0o640), BERT)
    files.unlink(1, b"file", BERT)
