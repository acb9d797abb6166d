"""Does all that can be done to the bytes of one file, at random, and compares every byte with what should be there.

`python -m tests.mounts.exerciser PATH SEED COUNT` ends with 1 and says what it did last when a byte is another.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
from collections import deque
from collections.abc import Callable
from random import Random

_libc = ctypes.CDLL(None, use_errno=True)
_KEEP_SIZE, _PUNCH_HOLE, _ZERO_RANGE = 1, 2, 16
_LONGEST = 600_000


class _File:
    """The file, by two descriptors, and what it should hold."""

    def __init__(self, path: str, chance: Random) -> None:
        self.path = path
        self.chance = chance
        self.model = bytearray()
        self.first = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.second = os.open(path, os.O_RDWR)

    @property
    def descriptor(self) -> int:
        return self.chance.choice((self.first, self.second))

    def place(self, end: int) -> int:
        """Somewhere up to an end, more often where pages and blocks meet."""
        place = self.chance.randint(0, end)
        if self.chance.random() < 0.5:
            place = min(end, max(0, place // 4096 * 4096 + self.chance.randint(-1, 1)))
        return place

    def length(self) -> int:
        return self.chance.choice((1, 2, 511, 4095, 4096, 4097, 20_000, 65_536, self.chance.randint(1, 130_000)))

    def data(self) -> bytes:
        return self.chance.randbytes(97) * (self.length() // 97 + 1)

    def put(self, offset: int, data: bytes) -> None:
        if len(self.model) < offset:
            self.model.extend(bytes(offset - len(self.model)))
        self.model[offset : offset + len(data)] = data

    # -- what can be done --------------------------------------------------------------------------------------------

    def write(self) -> str:
        offset, data = self.place(min(_LONGEST, len(self.model) + 50_000)), self.data()
        assert os.pwrite(self.descriptor, data, offset) == len(data)
        self.put(offset, data)
        return f"write {len(data)} at {offset}"

    def write_small(self) -> str:
        offset, data = self.place(len(self.model)), self.chance.randbytes(self.chance.randint(1, 300))
        os.pwrite(self.descriptor, data, offset)
        self.put(offset, data)
        return f"write {len(data)} at {offset}"

    def append(self) -> str:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        data = self.chance.randbytes(self.chance.randint(1, 5000))
        if len(self.model) < _LONGEST:
            os.write(descriptor, data)
            self.put(len(self.model), data)
        os.close(descriptor)
        return f"append {len(data)}"

    def read(self) -> str:
        offset, length = self.place(len(self.model)), self.length()
        found = os.pread(self.descriptor, length, offset)
        self.same(found, offset, length, "read")
        return f"read {length} at {offset}"

    def read_mapped(self) -> str:
        if not self.model:
            return "nothing to map"
        with mmap.mmap(self.descriptor, len(self.model), prot=mmap.PROT_READ) as memory:
            offset, length = self.place(len(self.model) - 1), self.length()
            self.same(memory[offset : offset + length], offset, length, "mapping")
        return f"read {length} at {offset} in a mapping"

    def write_mapped(self) -> str:
        if not self.model:
            return "nothing to map"
        with mmap.mmap(self.descriptor, len(self.model)) as memory:
            offset = self.place(len(self.model) - 1)
            data = self.data()[: len(self.model) - offset]
            memory[offset : offset + len(data)] = data
            if self.chance.random() < 0.3:
                memory.flush()
        self.put(offset, data)
        return f"write {len(data)} at {offset} in a mapping"

    def truncate(self) -> str:
        size = self.place(self.chance.choice((len(self.model), _LONGEST)))
        if self.chance.random() < 0.5:
            os.ftruncate(self.descriptor, size)
        else:
            os.truncate(self.path, size)
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))
        return f"truncate to {size}"

    def allocate(self) -> str:
        mode = self.chance.choice((0, _KEEP_SIZE, _PUNCH_HOLE | _KEEP_SIZE, _ZERO_RANGE, _ZERO_RANGE | _KEEP_SIZE))
        offset, length = self.place(_LONGEST // 2), self.length()
        if _libc.fallocate(self.descriptor, mode, ctypes.c_long(offset), ctypes.c_long(length)):
            raise OSError(ctypes.get_errno(), errno.errorcode[ctypes.get_errno()])
        end = offset + length
        if not mode & _KEEP_SIZE and len(self.model) < end:
            self.model.extend(bytes(end - len(self.model)))
        if mode & (_PUNCH_HOLE | _ZERO_RANGE) and offset < len(self.model):
            end = min(end, len(self.model))
            self.model[offset:end] = bytes(end - offset)
        return f"fallocate {mode}, {length} at {offset}"

    def copy(self) -> str:
        source, target, length = self.place(len(self.model)), self.place(_LONGEST // 2), self.length()
        length = min(length, abs(source - target))
        done = os.copy_file_range(self.first, self.second, length, source, target) if length else 0
        wanted = bytes(self.model[source : source + length])
        assert done == len(wanted), f"{done} bytes instead of {len(wanted)}"
        if done:
            self.put(target, wanted)
        return f"copy {done} from {source} to {target}"

    def sync(self) -> str:
        self.chance.choice((os.fsync, os.fdatasync))(self.descriptor)
        return "sync"

    def forget(self) -> str:
        os.fsync(self.first)
        os.posix_fadvise(self.first, 0, 0, os.POSIX_FADV_DONTNEED)
        return "forget what was cached"

    def open_again(self) -> str:
        os.close(self.first)
        self.first = os.open(self.path, os.O_RDWR)
        return "open again"

    def rename(self) -> str:
        os.rename(self.path, f"{self.path}.other")
        os.rename(f"{self.path}.other", self.path)
        return "rename"

    def look(self) -> str:
        assert os.stat(self.path).st_size == os.fstat(self.second).st_size == len(self.model)
        return "look"

    def same(self, found: bytes, offset: int, length: int, where: str) -> None:
        wanted = bytes(self.model[offset : offset + length])
        if found != wanted:
            at = next((at for at, both in enumerate(zip(found, wanted, strict=False)) if both[0] != both[1]), None)
            what = f"{len(found)} bytes instead of {len(wanted)}" if at is None else f"byte {offset + at} is another"
            raise AssertionError(f"{where} of {length} at {offset}: {what}")


def main(path: str, seed: str, count: str) -> None:
    """Acts so many times."""
    chance = Random(int(seed))
    file = _File(path, chance)
    acts: list[Callable[[], str]] = [
        *(file.write, file.write, file.write_small, file.write_small, file.append),
        *(file.read, file.read, file.read_mapped, file.write_mapped, file.write_mapped),
        *(file.truncate, file.allocate, file.copy, file.sync, file.forget, file.open_again, file.rename, file.look),
    ]
    done: deque[str] = deque(maxlen=30)
    try:
        for _ in range(int(count)):
            act = chance.choice(acts)
            done.append(f"({act.__name__} failed)")
            done[-1] = act()
        with open(path, "rb") as whole:
            file.same(whole.read(), 0, _LONGEST * 2, "the whole")
    except (AssertionError, OSError) as error:
        sys.exit("\n".join([*done, f"{type(error).__name__}: {error}"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
