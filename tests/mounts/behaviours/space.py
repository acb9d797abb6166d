"""Sizes, holes and room: sparse files, fallocate, copies, and numbers without end."""

from __future__ import annotations

import os
import resource
import signal
from typing import Any

from tests.mounts.behaviours.calling import behaviour, content, fallocate, in_child, make, opened, said

__all__: list[str] = []

_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16


@behaviour
def holes_cost_nothing_and_are_found() -> Any:
    descriptor = os.open("sparse", os.O_CREAT | os.O_RDWR)
    os.pwrite(descriptor, b"data", 1 << 20)
    os.ftruncate(descriptor, 4 << 20)
    found = [os.fstat(descriptor).st_size, os.fstat(descriptor).st_blocks < 100]
    found += [os.pread(descriptor, 8, (1 << 20) - 4), os.pread(descriptor, 4, 3 << 20)]
    os.ftruncate(descriptor, (1 << 20) + 2)
    os.ftruncate(descriptor, 2 << 20)
    found += [os.pread(descriptor, 4, 1 << 20)]
    found += [fallocate(descriptor, 0, 0, 3 << 20), os.fstat(descriptor).st_size]
    found += [fallocate(descriptor, _KEEP_SIZE, 0, 5 << 20), os.fstat(descriptor).st_size]
    found += [fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, 1 << 20, 4096), os.pread(descriptor, 4, 1 << 20)]
    found += [
        fallocate(descriptor, _PUNCH_HOLE, 0, 4096),
        fallocate(descriptor, 0, 0, 0),
        fallocate(descriptor, 0, -1, 1),
    ]
    os.pwrite(descriptor, b"zeroed", 0)
    found += [fallocate(descriptor, _ZERO_RANGE, 0, 4), os.pread(descriptor, 8, 0)]
    return [*found, said(os.lseek, descriptor, 1 << 30, os.SEEK_DATA), said(os.ftruncate, descriptor, -1)]


@behaviour
def ranges_are_copied() -> Any:
    make("a", bytes(range(256)) * 64)
    source, target = os.open("a", os.O_RDONLY), os.open("b", os.O_CREAT | os.O_RDWR)
    found = [os.copy_file_range(source, target, 10_000, 100, 50)]
    found += [os.copy_file_range(source, target, 10_000, 16_000, 0)]
    copied = content("b")
    same = os.open("a", os.O_RDWR)
    found += [said(os.copy_file_range, same, same, 5000, 0, 6000), said(os.copy_file_range, same, same, 5000, 0, 1000)]
    return [*found, len(copied), copied[:60], copied[50:56], os.stat("a").st_size]


@behaviour
def huge_files_are_only_numbers() -> Any:
    make("f")
    # What the local disk can have, not what we can: 10^15 bytes are tried where nothing is compared.
    os.truncate("f", 10**12)
    with open("f", "r+b") as file:
        file.seek(10**12 - 1)
        found = [file.read(), file.tell()]
    os.unlink("f")
    return found


@behaviour
def holes_are_punched_anywhere() -> Any:
    """Punching and zeroing at every edge: what is read, and sizes."""
    found = []
    for mode in (_PUNCH_HOLE | _KEEP_SIZE, _ZERO_RANGE, _ZERO_RANGE | _KEEP_SIZE, 0, _KEEP_SIZE):
        for offset, length in (
            (0, 1),
            (0, 4096),
            (1, 4095),
            (4095, 2),
            (100, 50_000),
            (0, 70_000),
            (60_000, 70_000),
            (90_000, 1),
        ):
            make("f", bytes(range(1, 251)) * 280)
            with opened("f", os.O_RDWR) as descriptor:
                done = fallocate(descriptor, mode, offset, length)
                data = os.pread(descriptor, 200_000, 0)
                wanted = bytearray(bytes(range(1, 251)) * 280)
                if mode & (_PUNCH_HOLE | _ZERO_RANGE):
                    end = min(offset + length, len(wanted))
                    wanted[offset:end] = bytes(max(0, end - offset))
                found.append((mode, offset, length, done, len(data), data[: len(wanted)] == bytes(wanted)))
    return found


@behaviour
def allocation_says_what_is_wrong() -> Any:
    make("f", b"x" * 100)
    os.mkdir("d")
    os.mkfifo("p")
    found: dict[str, Any] = {}
    with opened("f", os.O_RDWR) as both, opened("f") as reading, opened("d") as directory:
        for name, descriptor in {"both": both, "reading": reading, "directory": directory}.items():
            found[name] = [
                said(os.posix_fallocate, descriptor, 0, 10),
                said(os.posix_fallocate, descriptor, 0, 0),
                said(os.posix_fallocate, descriptor, -1, 10),
                said(os.posix_fallocate, descriptor, 0, -10),
                fallocate(descriptor, 0, (1 << 62), (1 << 62)),
                fallocate(descriptor, _PUNCH_HOLE, 0, 10),
                fallocate(descriptor, _PUNCH_HOLE | _ZERO_RANGE | _KEEP_SIZE, 0, 10),
                fallocate(descriptor, 0x8000, 0, 10),
            ]
        found["size"] = os.fstat(both).st_size
    with opened("p", os.O_RDWR) as fifo:
        found["fifo"] = [said(os.posix_fallocate, fifo, 0, 10), said(os.ftruncate, fifo, 1), said(os.lseek, fifo, 0, 0)]
    return found


@behaviour
def sizes_are_cut_and_grown() -> Any:
    make("f", b"0123456789")
    os.symlink("f", "l")
    os.mkdir("d")
    sizes = (10, 5, 0, 1, 4096, 1_000_000, 3, -1, -(1 << 63), 1 << 40)
    found = [(size, said(os.truncate, "f", size), os.stat("f").st_size) for size in sizes]
    with opened("f") as reading, opened("f", os.O_WRONLY) as writing, opened("d") as directory:
        sizes = (7, -1, 1 << 40)
        found += [(size, said(os.ftruncate, reading, size), said(os.ftruncate, writing, size)) for size in sizes]
        found.append(("d", said(os.ftruncate, directory, 0), said(os.truncate, "d", 0)))
    found.append(("l", said(os.truncate, "l", 2), os.lstat("l").st_size, content("f")))
    return found


@behaviour
def limits_of_files_are_kept() -> Any:
    """RLIMIT_FSIZE stops writes and growth, with a signal that can be ignored."""

    def limited() -> Any:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        with opened("f", os.O_CREAT | os.O_RDWR) as descriptor:
            return [
                os.pwrite(descriptor, b"x" * 100, 9950),
                said(os.pwrite, descriptor, b"x", 10_000),
                said(os.ftruncate, descriptor, 10_001),
                said(os.ftruncate, descriptor, 10_000),
                said(os.posix_fallocate, descriptor, 0, 20_000),
                os.fstat(descriptor).st_size,
            ]

    return in_child(limited)


@behaviour
def data_and_holes_alternate() -> Any:
    """Walking a sparse file by SEEK_DATA and SEEK_HOLE finds all that is not zero."""
    with opened("f", os.O_CREAT | os.O_RDWR) as descriptor:
        for place in (0, 3, 7):
            os.pwrite(descriptor, b"d" * 65_536, place << 20)
        os.ftruncate(descriptor, 10 << 20)
        os.fsync(descriptor)
        covered, offset = bytearray(10), 0
        while True:
            start = said(os.lseek, descriptor, offset, os.SEEK_DATA)
            if isinstance(start, str):
                break
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
            covered[start >> 20 : ((end - 1) >> 20) + 1] = b"\1" * (((end - 1) >> 20) + 1 - (start >> 20))
            offset = end
        return [
            [bool(covered[place]) for place in (0, 3, 7)],
            os.lseek(descriptor, (10 << 20) - 1, os.SEEK_HOLE),
            said(os.lseek, descriptor, 10 << 20, os.SEEK_HOLE),
            said(os.lseek, descriptor, 10 << 20, os.SEEK_DATA),
            said(os.lseek, descriptor, -1, os.SEEK_DATA),
        ]


@behaviour
def ranges_are_copied_anywhere() -> Any:
    """Between files and within one, over ends and holes; and what cannot be copied."""
    make("a", bytes(range(251)) * 400)
    os.mkdir("d")
    found: list[Any] = []
    for source_offset in (0, 1, 4096, 50_000, 100_399, 100_400, 200_000):
        for target_offset in (0, 1, 5000, 150_000):
            for length in (0, 1, 4096, 60_000, 1 << 30):
                make("b", b"b" * 10_000)
                with opened("a") as source, opened("b", os.O_RDWR) as target:
                    done = said(os.copy_file_range, source, target, length, source_offset, target_offset)
                    data = content("b")
                    found.append((done, len(data), hash_of(data), os.lseek(target, 0, os.SEEK_CUR)))
    with opened("a", os.O_RDWR) as same, opened("d") as directory, opened("b", os.O_WRONLY | os.O_APPEND) as appending:
        found += [
            said(os.copy_file_range, same, same, 10_000, 0, 5_000),
            said(os.copy_file_range, same, same, 10_000, 0, 10_000),
            hash_of(content("a")),
            said(os.copy_file_range, same, directory, 10),
            said(os.copy_file_range, directory, same, 10),
            said(os.copy_file_range, same, appending, 10),
        ]
    return found


def hash_of(data: bytes) -> str:
    """A digest, so that a difference is told shortly."""
    import hashlib

    return hashlib.blake2b(data, digest_size=8).hexdigest()


@behaviour
def blocks_are_counted() -> Any:
    """A file takes room when it has data, and gives it back."""
    with opened("f", os.O_CREAT | os.O_RDWR) as descriptor:
        found = [os.fstat(descriptor).st_blocks]
        os.ftruncate(descriptor, 1 << 30)
        found.append(os.fstat(descriptor).st_blocks)
        os.pwrite(descriptor, b"x" * (1 << 20), 1 << 20)
    # The kernel asks anew when it has written everything.
    with opened("f", os.O_RDWR) as descriptor:
        os.fsync(descriptor)
    found.append(os.stat("f").st_blocks >= 2048)
    os.truncate("f", 0)
    return [*found, os.stat("f").st_blocks, os.stat("f").st_blksize > 0]
