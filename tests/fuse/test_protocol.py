"""What the server answers to a kernel, well-behaved or not."""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stowstore.chunks.patience import must_not_wait
from stowstore.fuse.wire import (
    BATCH_FORGET,
    CREATE,
    ENTRY,
    FORGET,
    FORGOTTEN,
    INIT_OUT,
    INTERRUPT,
    MKDIR,
    OPEN,
    OPEN_OUT,
    READ_WRITE,
    RELEASE,
    SETATTR,
    WRITE_OUT,
    XATTR_SIZE,
    InitFlag,
    InitFlag2,
    Opcode,
    OpenFlag,
    SetattrValid,
    WriteFlag,
)
from stowstore.namespace.permissions import ROOT
from tests.fuse.kernel import Kernel
from tests.namespace.sessions import Session

_SHOWN = struct.Struct("<6Q10I")
_NO_REPLY = {Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.DESTROY}


@pytest.fixture
def session() -> Iterator[Session]:
    made = Session()
    yield made
    made.files.close()


@pytest.fixture
def kernel(session: Session) -> Iterator[Kernel]:
    made = Kernel(session.files)
    yield made
    made.close()


def _create(kernel: Kernel, name: bytes, flags: int = os.O_RDWR) -> tuple[int, int]:
    """A new file: its inode and a handle."""
    payload = kernel.ask(Opcode.CREATE, 1, CREATE.pack(flags | os.O_CREAT, 0o100644, 0o22, 0) + name + b"\0")
    (ino,) = struct.unpack_from("<Q", payload)
    (handle,) = struct.unpack_from("<Q", payload, ENTRY.size + _SHOWN.size)
    return ino, handle


def _transfer(handle: int, offset: int, size: int, data: bytes = b"", how: int = 0) -> bytes:
    return READ_WRITE.pack(handle, offset, size, how, 0, 0, 0) + data


def test_only_what_the_kernel_offers_is_agreed_on(session: Session) -> None:
    """Of the flags that are wanted, those come back that were offered; a write fits the buffer."""
    kernel = Kernel(session.files)
    try:
        offered = InitFlag.DO_READDIRPLUS | InitFlag.MAX_PAGES
        payload = kernel.ask(Opcode.INIT, 0, struct.pack("<4I", 7, 31, 4096, offered))
        major, minor, _, flags, _, _, max_write, *_ = INIT_OUT.unpack(payload)
        assert (7, 31, offered, 65536) == (major, minor, flags, max_write)
        assert (errno.EOPNOTSUPP, b"") == kernel.answer(Opcode.INIT, 0, struct.pack("<4I", 7, 12, 4096, 0))
    finally:
        kernel.close()


def test_what_is_written_is_read(kernel: Kernel) -> None:
    """A file is made, written, read, and shown as it is after each change."""
    ino, handle = _create(kernel, b"file")
    kernel.ask(Opcode.WRITE, ino, _transfer(handle, 3, 5, b"hello"))
    assert b"\0\0\0hello" == kernel.ask(Opcode.READ, ino, _transfer(handle, 0, 4096))
    shown = _SHOWN.unpack_from(kernel.ask(Opcode.LOOKUP, 1, b"file\0"), ENTRY.size)
    assert (ino, 8) == shown[:2]
    assert shown == _SHOWN.unpack_from(kernel.ask(Opcode.GETATTR, ino, bytes(16)), 16)
    sized = SETATTR.pack(SetattrValid.SIZE | SetattrValid.MODE, 0, 0, 2, *[0] * 7, 0o600, 0, 0, 0, 0)
    shown = _SHOWN.unpack_from(kernel.ask(Opcode.SETATTR, ino, sized), 16)
    assert (2, stat.S_IFREG | 0o600) == (shown[1], shown[9])
    kernel.ask(Opcode.RELEASE, ino, RELEASE.pack(handle, 0, 0, 0))


def test_a_write_says_what_fitted_and_cached_pages_fail(session: Session, kernel: Kernel) -> None:
    """A program is told how much was written; of cached pages the kernel asks only whether all were."""
    session.files.set_limits(limit_bytes=10_000)
    ino, handle = _create(kernel, b"f")
    data = os.urandom(8_000)
    for how, expected in ((0, (0, WRITE_OUT.pack(2_000, 0))), (WriteFlag.CACHE, (errno.ENOSPC, b""))):
        kernel.ask(Opcode.SETATTR, ino, SETATTR.pack(SetattrValid.SIZE, 0, 0, 0, *[0] * 7, 0, 0, 0, 0, 0))
        kernel.ask(Opcode.WRITE, ino, _transfer(handle, 0, 8_000, data, how))
        assert expected == kernel.answer(Opcode.WRITE, ino, _transfer(handle, 8_000, 8_000, data, how))
        assert data + data[:2_000] == kernel.ask(Opcode.READ, ino, _transfer(handle, 0, 65_536))
        full = kernel.answer(Opcode.WRITE, ino, _transfer(handle, 10_000, 1, b"x", how))
        assert (errno.ENOSPC, b"") == full


def test_file_capabilities_are_asked_for_and_answered(session: Session, kernel: Kernel) -> None:
    """The kernel asks before a first write: there are none, there are some that were set, and they are gone again."""
    ino, _ = _create(kernel, b"f")
    asked = XATTR_SIZE.pack(100, 0) + b"security.capability\0"
    failures = kernel.server.statistics.failures
    assert (errno.ENODATA, b"") == kernel.answer(Opcode.GETXATTR, ino, asked)
    assert failures + 1 == kernel.server.statistics.failures
    session.files.setxattr(ino, b"security.capability", b"some", ROOT)
    assert b"some" == kernel.ask(Opcode.GETXATTR, ino, asked)
    session.files.removexattr(ino, b"security.capability", ROOT)
    assert (errno.ENODATA, b"") == kernel.answer(Opcode.GETXATTR, ino, asked)
    session.files.setxattr(ino, b"user.other", b"1", ROOT)
    assert (errno.ENODATA, b"") == kernel.answer(Opcode.GETXATTR, ino, asked)
    assert (errno.ESTALE, b"") == kernel.answer(Opcode.GETXATTR, 1 << 40, asked)


def test_absent_names_stay_absent_until_they_are_made(kernel: Kernel) -> None:
    """A name that is not there is answered so each time; a directory is its own ``.`` whatever was tried."""
    absent = kernel.ask(Opcode.LOOKUP, 1, b"f\0")
    assert bytes(8) == absent[:8]
    assert absent == kernel.ask(Opcode.LOOKUP, 1, b"f\0")
    ino, _ = _create(kernel, b"f")
    assert struct.pack("<Q", ino) == kernel.ask(Opcode.LOOKUP, 1, b"f\0")[:8]
    for name in (b".", b".."):
        assert (errno.EEXIST, b"") == kernel.answer(Opcode.MKDIR, 1, MKDIR.pack(0o755, 0) + name + b"\0")
        assert struct.pack("<Q", 1) == kernel.ask(Opcode.LOOKUP, 1, name + b"\0")[:8]


def test_times_before_1970_go_there_and_back(kernel: Kernel) -> None:
    """Times are signed, though the protocol's fields are not."""
    ino, _ = _create(kernel, b"old")
    past = (1 << 64) - 10
    fields = [past, past, 0, 5, 6, 0]
    body = SETATTR.pack(SetattrValid.ATIME | SetattrValid.MTIME, 0, 0, 0, 0, *fields, 0, 0, 0, 0, 0)
    shown = _SHOWN.unpack_from(kernel.ask(Opcode.SETATTR, ino, body), 16)
    assert (past, past, 5, 6) == (shown[3], shown[4], shown[6], shown[7])


def test_an_inode_dies_when_the_kernel_has_forgotten_it(kernel: Kernel) -> None:
    """A file without names is known until the last of its lookups is taken back, one by one or in a batch."""
    for forgetting in (Opcode.FORGET, Opcode.BATCH_FORGET):
        ino, handle = _create(kernel, b"gone")
        kernel.ask(Opcode.LOOKUP, 1, b"gone\0")
        kernel.ask(Opcode.RELEASE, ino, RELEASE.pack(handle, 0, 0, 0))
        kernel.ask(Opcode.UNLINK, 1, b"gone\0")
        kernel.send(Opcode.FORGET, ino, FORGET.pack(1))
        assert 0 == _SHOWN.unpack_from(kernel.ask(Opcode.GETATTR, ino, bytes(16)), 16)[10]
        if forgetting is Opcode.FORGET:
            kernel.send(forgetting, ino, FORGET.pack(1))
        else:
            kernel.send(forgetting, 0, BATCH_FORGET.pack(1, 0) + FORGOTTEN.pack(ino, 1))
        assert (errno.ESTALE, b"") == kernel.answer(Opcode.GETATTR, ino, bytes(16))


def test_a_batch_that_promises_more_than_it_holds_ends(kernel: Kernel) -> None:
    """A count beyond the message takes what is there."""
    ino, _ = _create(kernel, b"file")
    kernel.send(Opcode.BATCH_FORGET, 0, BATCH_FORGET.pack(0xFFFFFFFF, 0) + FORGOTTEN.pack(ino, 1))
    kernel.ask(Opcode.GETATTR, ino, bytes(16))


@pytest.mark.parametrize(
    ("opcode", "node", "body", "expected"),
    [
        pytest.param(Opcode.GETATTR, 99, bytes(16), errno.ESTALE, id="an inode never given out"),
        pytest.param(Opcode.READ, 1, _transfer(77, 0, 10), errno.EBADF, id="a handle never given out"),
        pytest.param(Opcode.READDIR, 1, _transfer(77, 0, 10), errno.EBADF, id="a directory never opened"),
        pytest.param(Opcode.WRITE, 1, _transfer(1, 0, 10, b"short"), errno.EINVAL, id="a write without its data"),
        pytest.param(Opcode.SETATTR, 1, b"1234", errno.EINVAL, id="a body cut short"),
        pytest.param(Opcode.RENAME, 1, bytes(8) + b"one name\0", errno.EINVAL, id="a rename of one name"),
        pytest.param(Opcode.MKDIR, 1, MKDIR.pack(0o755, 0) + b"n" * 256 + b"\0", errno.ENAMETOOLONG, id="256 bytes"),
        pytest.param(Opcode.MKDIR, 1, MKDIR.pack(0o755, 0) + b"a/b\0", errno.EINVAL, id="a name with a slash"),
        pytest.param(Opcode.OPEN, 1, OPEN.pack(os.O_RDONLY, 0), errno.EISDIR, id="a directory opened as a file"),
        pytest.param(Opcode.IOCTL, 1, bytes(32), errno.ENOTTY, id="an ioctl"),
        pytest.param(Opcode.ACCESS, 1, bytes(8), errno.ENOSYS, id="what the kernel does itself"),
        pytest.param(63, 1, b"", errno.ENOSYS, id="an opcode of the future"),
        pytest.param(4096, 1, b"", errno.ENOSYS, id="an opcode of another device"),
    ],
)
def test_what_cannot_be_done_is_answered(kernel: Kernel, opcode: int, node: int, body: bytes, expected: int) -> None:
    """Each bad request gets its own error, and the next is served."""
    assert (expected, b"") == kernel.answer(opcode, node, body)
    kernel.ask(Opcode.GETATTR, 1, bytes(16))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    opcode=st.sampled_from([code for code in Opcode if code not in _NO_REPLY]),
    node=st.sampled_from([0, 1, 2, 1 << 63]),
    body=st.binary(max_size=120),
)
def test_no_request_goes_without_an_answer(kernel: Kernel, opcode: Opcode, node: int, body: bytes) -> None:
    """Whatever a request holds, it is answered once, and never with more than an error where it failed."""
    error, payload = kernel.answer(opcode, node, body)
    assert not error or not payload
    assert error in {0} | set(errno.errorcode)
    assert errno.EIO != error


class _Far:
    """Makes the content of a session far away: reading waits until it is let through."""

    def __init__(self, content: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.arrives = threading.Event()
        self.impatient: list[bool] = []
        self._fetch = content.fetch
        monkeypatch.setattr(content, "is_near", lambda plan: False)
        monkeypatch.setattr(content, "fetch", self._wait)

    def _wait(self, plan: Any) -> Any:
        self.impatient.append(must_not_wait())
        assert self.arrives.wait(20)
        return self._fetch(plan)


def test_a_read_that_waits_holds_nobody_up(session: Session, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """While reads wait for the store, everything else is answered; then they are."""
    ino, handle = _create(kernel, b"far")
    kernel.ask(Opcode.WRITE, ino, _transfer(handle, 0, 4, b"data"))
    far = _Far(session.content, monkeypatch)
    waiting = {kernel.send(Opcode.READ, ino, _transfer(handle, at, 1)): b"data"[at : at + 1] for at in range(4)}
    for _ in range(20):
        kernel.ask(Opcode.LOOKUP, 1, b"far\0")
    assert 4 == kernel.server.statistics.in_workers
    far.arrives.set()
    found = {unique: payload for unique, _, payload in (kernel.receive() for _ in waiting)}
    assert waiting == found
    assert [False] * 4 == far.impatient
    assert 4 == kernel.server.statistics.handed_over


def test_interrupting_what_is_not_there_does_nothing(kernel: Kernel) -> None:
    """An INTERRUPT comes late as often as not, and takes no reply."""
    kernel.send(Opcode.INTERRUPT, 0, INTERRUPT.pack(12345))
    kernel.ask(Opcode.GETATTR, 1, bytes(16))


def test_a_replaced_file_system_keeps_its_open_files(kernel: Kernel) -> None:
    """What was opened before stays what it was; names are those of the newer one."""
    ino, handle = _create(kernel, b"old")
    kernel.ask(Opcode.WRITE, ino, _transfer(handle, 0, 3, b"old"))
    newer = Session()
    made, opened = newer.files.create(1, b"new", 0o644, os.O_RDWR, ROOT)
    newer.files.write(opened, 0, b"new", ROOT)
    newer.files.release(opened)
    kernel.server.replace(newer.files)
    assert b"old" == kernel.ask(Opcode.READ, ino, _transfer(handle, 0, 10))
    payload = kernel.ask(Opcode.OPEN, made.ino, OPEN.pack(os.O_RDONLY, 0))
    (fresh,) = struct.unpack_from("<Q", payload)
    assert b"new" == kernel.ask(Opcode.READ, made.ino, _transfer(fresh, 0, 10))
    assert bytes(8) == kernel.ask(Opcode.LOOKUP, 1, b"old\0")[:8]
    newer.files.close()


def test_the_interpreter_is_left_as_it_was(session: Session) -> None:
    """The server tunes its process while it runs, and the calling thread may wait again afterwards."""
    before = sys.getswitchinterval()
    Kernel(session.files).close()
    assert before == sys.getswitchinterval()
    assert not must_not_wait()


def test_without_passthrough_files_are_served_as_ever(session: Session, tmp_path: Path) -> None:
    """A kernel that does not offer it, or one that refuses, is never told of a plain file."""
    content = bytes(range(256)) * 1024
    attributes, handle = session.files.create(1, b"f", 0o644, os.O_RDWR, ROOT)
    session.files.write(handle, 0, content, ROOT)
    session.files.release(handle)
    for offered in (0, int(InitFlag2.PASSTHROUGH)):
        kernel = Kernel(session.files, passthrough=tmp_path)
        passing = kernel.server.passthrough
        assert passing is not None
        try:
            agreed = kernel.ask(Opcode.INIT, 0, struct.pack("<5I", 7, 40, 1 << 20, 0xFFFFFFFF, offered))
            assert (offered, 1 if offered else 0) == INIT_OUT.unpack(agreed)[10:12]
            assert not passing.keep(session.files, attributes.ino)
            assert passing.refusal is not None
            for _ in range(3):
                handle, flags, backing = OPEN_OUT.unpack(
                    kernel.ask(Opcode.OPEN, attributes.ino, OPEN.pack(os.O_RDONLY, 0))
                )
                assert (OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH, 0) == (flags, backing)
                for offset in range(0, len(content), 1 << 15):
                    piece = kernel.ask(Opcode.READ, attributes.ino, _transfer(handle, offset, 1 << 15))
                    assert content[offset : offset + (1 << 15)] == piece
                kernel.ask(Opcode.RELEASE, attributes.ino, RELEASE.pack(handle, 0, 0, 0))
            assert (0, 0) == (passing.statistics.files, passing.statistics.opens)
        finally:
            kernel.close()
    assert [] == list(tmp_path.iterdir())
