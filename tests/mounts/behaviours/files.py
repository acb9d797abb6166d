"""Open files: offsets, appending, vectors, what has no name any more or has none yet."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import Any

from tests.mounts.behaviours.calling import behaviour, content, in_child, libc, make, number, opened, said

__all__: list[str] = []


@behaviour
def files_without_names_live_on() -> Any:
    make("f", b"still here")
    descriptor = os.open("f", os.O_RDWR)
    os.unlink("f")
    os.pwrite(descriptor, b"S", 0)
    found = [os.pread(descriptor, 100, 0), os.fstat(descriptor).st_nlink, said(os.stat, "f")]
    make("f", b"another")
    found += [os.pread(descriptor, 100, 0), content("f")]
    os.ftruncate(descriptor, 3)
    os.fchmod(descriptor, 0o600)
    found.append(os.fstat(descriptor).st_size)
    os.close(descriptor)
    os.mkdir("d")
    here = os.open(".", os.O_RDONLY)
    os.chdir("d")
    os.rmdir("../d")
    found += [said(os.listdir, "."), said(make, "x"), said(os.stat, "..") == "ENOENT", os.stat(".").st_nlink]
    os.fchdir(here)
    return found


@behaviour
def unnamed_files_get_names() -> Any:
    descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(descriptor, b"made in secret")
    found = [os.fstat(descriptor).st_nlink, os.listdir(".")]
    done = libc.linkat(-100, f"/proc/self/fd/{descriptor}".encode(), -100, b"named", 0x400)
    found += [done, content("named") if not done else None, os.fstat(descriptor).st_nlink]
    exclusive = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    done = libc.linkat(-100, f"/proc/self/fd/{exclusive}".encode(), -100, b"never", 0x400)
    return [*found, done, errno.errorcode[ctypes.get_errno()], said(os.open, ".", os.O_TMPFILE | os.O_RDONLY)]


@behaviour
def offsets_appending_and_vectors() -> Any:
    descriptor = os.open("f", os.O_CREAT | os.O_RDWR)
    os.pwrite(descriptor, b"0123456789", 5)
    first = os.open("f", os.O_WRONLY | os.O_APPEND)
    second = os.open("f", os.O_WRONLY | os.O_APPEND)
    os.write(first, b"A")
    os.write(second, b"B")
    os.write(first, b"C")
    os.pwritev(descriptor, [b"x", b"yz"], 1)
    buffers = [bytearray(3), bytearray(4)]
    count = os.preadv(descriptor, buffers, 4)
    return [
        content("f"),
        count,
        buffers,
        said(os.read, first, 1),
        said(os.pread, descriptor, 10, 1000),
        said(os.lseek, descriptor, -1, os.SEEK_SET),
        os.lseek(descriptor, -3, os.SEEK_END),
        said(os.write, os.open("f", os.O_RDONLY), b"x"),
    ]


@behaviour
def direct_access_bypasses_the_page_cache() -> Any:
    buffer = mmap.mmap(-1, 8192)
    buffer[:] = b"d" * 8192
    descriptor = os.open("direct", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    found = [os.pwrite(descriptor, buffer, 0)]
    os.preadv(descriptor, [buffer], 0)
    return [*found, buffer[:4], content("direct")[-4:]]


@behaviour
def writes_at_every_edge() -> Any:
    """Writes and reads around pages, blocks and requests, over and behind the end."""
    found = []
    with opened("f", os.O_CREAT | os.O_RDWR) as descriptor:
        model = bytearray()
        for step, offset in enumerate(
            (0, 1, 4095, 4096, 4097, 8191, 65_535, 65_536, 131_071, 1 << 20, (1 << 20) - 1, 1_500_000)
        ):
            for length in (1, 2, 4095, 4096, 4097, 70_000):
                data = bytes([(step * 16 + length) % 251]) * length
                os.pwrite(descriptor, data, offset)
                if len(model) < offset + length:
                    model.extend(bytes(offset + length - len(model)))
                model[offset : offset + length] = data
        found.append(content("f") == bytes(model))
        for offset in (0, 4095, 100_000, 1 << 20, len(model) - 1, len(model), len(model) + 1):
            wanted = {length: bytes(model[offset : offset + length]) for length in (0, 1, 4096, 5000, 2 << 20)}
            found += [os.pread(descriptor, length, offset) == data for length, data in wanted.items()]
        os.ftruncate(descriptor, 4097)
        os.ftruncate(descriptor, 9000)
        found.append(os.pread(descriptor, 10_000, 0) == bytes(model[:4097]) + bytes(9000 - 4097))
    return found


@behaviour
def cuts_leave_zeros_behind() -> Any:
    """What was cut off never comes back, however a file grows again."""
    found = []
    for cut in (0, 1, 100, 4095, 4096, 4097, 65_536, 99_999):
        for grow in ("truncate", "write", "allocate", "map"):
            with opened("f", os.O_CREAT | os.O_RDWR | os.O_TRUNC) as descriptor:
                os.write(descriptor, b"s" * 100_000)
                os.fsync(descriptor)
                os.ftruncate(descriptor, cut)
                if grow == "write":
                    os.pwrite(descriptor, b"e", 119_999)
                elif grow == "allocate":
                    os.posix_fallocate(descriptor, 0, 120_000)
                else:
                    os.ftruncate(descriptor, 120_000)
                if grow == "map":
                    with mmap.mmap(descriptor, 120_000) as memory:
                        found.append(memory[:] == b"s" * cut + bytes(120_000 - cut))
                data = content("f")
                found.append((cut, grow, len(data), data.count(b"s"), data.count(b"\0")))
    return found


@behaviour
def offsets_are_shared_by_duplicates() -> Any:
    make("f", b"0123456789")
    with opened("f", os.O_RDWR) as descriptor, opened("f") as other:
        twin = os.dup(descriptor)
        found: list[Any] = [os.read(descriptor, 2), os.read(twin, 2), os.read(other, 2)]
        found.append(in_child(lambda: os.read(descriptor, 2)))
        found.append(os.read(twin, 2))
        os.write(twin, b"X")
        found += [content("f"), os.lseek(descriptor, 0, os.SEEK_CUR), os.lseek(other, 0, os.SEEK_CUR)]
        os.close(twin)
    return found


@behaviour
def several_append_without_loss() -> Any:
    """Records of several processes, each whole and none lost."""
    children = []
    for writer in range(4):
        child = os.fork()
        if not child:
            with opened("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND) as descriptor:
                for record in range(200):
                    os.write(descriptor, f"{writer}-{record:03d}\n".encode())
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    lines = content("log").decode().splitlines()
    # Whoever came first is no matter when the trees are compared.
    os.unlink("log")
    mine = [[line for line in lines if line.startswith(f"{writer}-")] for writer in range(4)]
    return [len(lines), len(set(lines)), [each == sorted(each) for each in mine]]


@behaviour
def appending_ignores_offsets() -> Any:
    make("f", b"0123456789")
    with opened("f", os.O_RDWR | os.O_APPEND) as descriptor:
        found: list[Any] = [
            os.lseek(descriptor, 2, os.SEEK_SET),
            os.write(descriptor, b"A"),
            os.lseek(descriptor, 0, os.SEEK_CUR),
        ]
        # As Linux has it, against POSIX.
        found += [os.pwrite(descriptor, b"B", 0), content("f"), os.pread(descriptor, 2, 0)]
        os.ftruncate(descriptor, 3)
        found += [os.write(descriptor, b"C"), content("f")]
        os.truncate("f", 20)
        found += [os.writev(descriptor, [b"D", b"E"]), content("f")]
    return found


@behaviour
def what_is_cached_goes_to_its_place() -> Any:
    """Whatever the descriptor is for that the file was made or opened with, bytes in the cache are written in place."""
    found = {}
    for flags in (os.O_RDWR | os.O_APPEND, os.O_WRONLY | os.O_APPEND, os.O_WRONLY, os.O_RDWR):
        for making in (os.O_CREAT, os.O_TMPFILE, 0):
            for way in ("write", "write in a mapping", "fill up a page"):
                name = f"{flags}-{making}-{way}"
                if not making:
                    make(name)
                path = "." if making == os.O_TMPFILE else name
                with opened(path, flags | making, 0o644) as descriptor:
                    os.ftruncate(descriptor, 20_000)
                    other = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR)
                    os.write(descriptor, b"first")
                    if way == "write in a mapping":
                        mapped = descriptor if flags & os.O_ACCMODE == os.O_RDWR else other
                        with mmap.mmap(mapped, 20_000) as memory:
                            memory[5000:5006] = b"mapped"
                    elif way == "fill up a page":
                        os.posix_fadvise(other, 0, 0, os.POSIX_FADV_DONTNEED)
                        os.lseek(descriptor, 9_000, os.SEEK_SET)
                        os.write(descriptor, b"second")
                    os.fsync(descriptor)
                    # What is read now comes from the file.
                    os.posix_fadvise(other, 0, 0, os.POSIX_FADV_DONTNEED)
                    data = os.pread(other, 100_000, 0)
                    os.close(other)
                found[name] = len(data), [data.find(word) for word in (b"first", b"mapped", b"second")]
    return found


@behaviour
def without_a_name_everything_works_on() -> Any:
    make("f", b"0123456789")
    with opened("f", os.O_RDWR) as descriptor, opened("f") as second:
        os.unlink("f")
        os.fchmod(descriptor, 0o4711)
        os.fchown(descriptor, 5, 6)
        os.utime(descriptor, ns=(1, 2))
        os.setxattr(descriptor, "user.x", b"x")
        status = os.fstat(second)
        found: list[Any] = [
            oct(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            status.st_nlink,
            status.st_size,
        ]
        found += [os.listxattr(second), os.write(descriptor, b"ab"), os.pread(second, 20, 0)]
        os.ftruncate(descriptor, 100_000)
        found += [os.fstat(second).st_size, said(os.posix_fallocate, descriptor, 0, 200_000)]
        with opened(f"/proc/self/fd/{descriptor}") as third:
            found += [os.pread(third, 2, 0), os.fstat(third).st_size]
        os.fsync(descriptor)
    return [*found, os.listdir(".")]


@behaviour
def unnamed_files_are_files() -> Any:
    """O_TMPFILE by everybody, in directories of every kind, with and without a name given afterwards."""
    os.mkdir("g")
    os.chown("g", -1, 2001)
    os.chmod("g", 0o2777)
    found: dict[str, Any] = {}
    for flags in (os.O_RDWR, os.O_WRONLY):
        with opened("g", os.O_TMPFILE | flags, 0o6640) as descriptor:
            os.write(descriptor, b"x" * 10_000)
            os.setxattr(descriptor, "user.x", b"y")
            status = os.fstat(descriptor)
            found[f"status {flags}"] = oct(status.st_mode), status.st_nlink, status.st_gid, status.st_size
            path = f"g/named-{flags}"
            linked = number(libc.linkat(-100, f"/proc/self/fd/{descriptor}".encode(), -100, path.encode(), 0x400))
            found[f"named {flags}"] = linked, len(content(path)), os.listxattr(path), os.fstat(descriptor).st_nlink
            twice = number(libc.linkat(-100, f"/proc/self/fd/{descriptor}".encode(), -100, path.encode(), 0x400))
            found[f"twice {flags}"] = twice
            os.unlink(path)
            again = number(libc.linkat(-100, f"/proc/self/fd/{descriptor}".encode(), -100, path.encode(), 0x400))
            found[f"again {flags}"] = again
    for place in ("none", "g/named", "."):
        found[place] = said(_closed, place, os.O_TMPFILE | os.O_RDWR)
    return found


def _closed(path: str, flags: int) -> None:
    with opened(path, flags):
        pass
