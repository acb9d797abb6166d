"""Random programs of file operations, what they should leave, and what a volume really holds."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from stowstore.index.keys import ROOT_INODE
from stowstore.namespace.attributes import AttributeChanges
from stowstore.namespace.filesystem import FileSystem
from stowstore.namespace.permissions import Caller

__all__ = [
    "ROOT_USER",
    "Step",
    "Tree",
    "number_of",
    "perform",
    "program",
    "read_file",
    "shown",
    "states",
    "tree_of",
    "write_file",
]

ROOT_USER = Caller(uid=0, gid=0)

#: Every path and its content; None for a directory.
Tree = dict[str, bytes | None]

_DIRECTORIES = ("d0", "d1", "d2")
_NAMES = ("a", "b", "c", "e", "f")
_SMALL, _MEDIUM, _LARGE = 3_000, 90_000, 4_300_000


class Step(NamedTuple):
    """One operation, atomic in the file system; ``number`` and ``size`` are what it takes besides paths."""

    act: str
    path: str = ""
    other: str = ""
    number: int = 0
    size: int = 0


class _Model:
    """What a program has made so far; contents by number, since files may have several names."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}
        self.contents: dict[int, bytes | None] = {}

    def tree(self) -> Tree:
        return {path: self.contents[number] for path, number in self.names.items()}

    def apply(self, step: Step) -> None:
        names, contents = self.names, self.contents
        match step.act:
            case "create" | "mkdir":
                number = names[step.path] = len(contents)
                contents[number] = b"" if step.act == "create" else None
            case "write":
                old = contents[names[step.path]] or b""
                data = _data(step)
                contents[names[step.path]] = (
                    old[: step.number].ljust(step.number, b"\0") + data + old[step.number + len(data) :]
                )
            case "truncate":
                old = contents[names[step.path]] or b""
                contents[names[step.path]] = old[: step.size].ljust(step.size, b"\0")
            case "rename":
                moved = [path for path in names if path == step.path or path.startswith(step.path + "/")]
                for path in moved:
                    names[step.other + path.removeprefix(step.path)] = names.pop(path)
            case "link":
                names[step.other] = names[step.path]
            case "unlink" | "rmdir":
                del names[step.path]


def program(seed: int, length: int) -> list[Step]:
    """Steps that all succeed, with fsyncs and commits among them."""
    random, model = Random(seed), _Model()
    steps: list[Step] = []
    while len(steps) < length:
        step = _step(random, model)
        if step is not None:
            model.apply(step)
            steps.append(step)
    return steps


def states(steps: list[Step]) -> list[Tree]:
    """What there is before the first step, and after each."""
    model = _Model()
    found = [model.tree()]
    for step in steps:
        model.apply(step)
        found.append(model.tree())
    return found


def perform(files: FileSystem, step: Step, *, commit: Callable[[], object]) -> None:
    """Carries a step out."""
    parent, name = _place(files, step.path)
    match step.act:
        case "create":
            files.release(files.create(parent, name, 0o644, os.O_RDWR, ROOT_USER)[1])
        case "mkdir":
            files.mkdir(parent, name, 0o755, ROOT_USER)
        case "write":
            handle = files.open(number_of(files, step.path), os.O_RDWR, ROOT_USER)
            files.write(handle, step.number, _data(step), ROOT_USER)
            files.release(handle)
        case "truncate":
            files.setattr(number_of(files, step.path), AttributeChanges(size=step.size), ROOT_USER)
        case "rename":
            files.rename(parent, name, *_place(files, step.other), ROOT_USER)
        case "link":
            files.link(number_of(files, step.path), *_place(files, step.other), ROOT_USER)
        case "unlink":
            files.unlink(parent, name, ROOT_USER)
        case "rmdir":
            files.rmdir(parent, name, ROOT_USER)
        case "fsync":
            files.fsync()
        case "commit":
            commit()


def number_of(files: FileSystem, path: str) -> int:
    """The inode number of a path."""
    ino = ROOT_INODE
    for part in filter(None, path.split("/")):
        ino = files.lookup(ino, part.encode(), ROOT_USER).ino
    return ino


def write_file(files: FileSystem, path: str, data: bytes) -> None:
    """Makes a file, or replaces its content."""
    _, handle = files.create(*_place(files, path), 0o644, os.O_RDWR | os.O_TRUNC, ROOT_USER)
    files.setattr(number_of(files, path), AttributeChanges(size=0), ROOT_USER)
    files.write(handle, 0, data, ROOT_USER)
    files.release(handle)


def read_file(files: FileSystem, path: str) -> bytes:
    return _content(files, number_of(files, path))


def tree_of(files: FileSystem) -> Tree:
    """Every path and content; links, sizes and counters are held against each other on the way."""
    found: Tree = {}
    links: dict[int, int] = {}
    sizes: dict[int, tuple[int, int]] = {}
    waiting = [("", ROOT_INODE)]
    while waiting:
        path, ino = waiting.pop()
        handle = files.opendir(ino, ROOT_USER)
        entries = [entry for entry in files.readdir(handle, 0, 10_000) if entry.name not in (b".", b"..")]
        files.releasedir(handle)
        for entry in entries:
            below = f"{path}/{entry.name.decode()}".lstrip("/")
            attributes = files.getattr(entry.ino)
            if stat.S_ISDIR(attributes.mode):
                found[below] = None
                waiting.append((below, entry.ino))
                links[entry.ino] = attributes.nlink
                continue
            content = found[below] = _content(files, entry.ino)
            assert len(content) == attributes.size
            links[entry.ino] = links.get(entry.ino, 0) + 1
            sizes[entry.ino] = attributes.nlink, attributes.blocks
    for ino, (nlink, _) in sizes.items():
        assert links[ino] == nlink, f"inode {ino} has {links[ino]} names and says {nlink}"
    usage = files._usage
    assert len(links) + 1 == usage.inode_count, "the count of inodes is wrong"
    blocks = sum(blocks for _, blocks in sizes.values())
    assert 512 * blocks - 511 * len(sizes) <= usage.used_bytes <= 512 * blocks, "the count of bytes is wrong"
    return found


def shown(tree: Tree) -> str:
    """A tree in short, for a failed comparison: sizes and the first bytes."""
    files = (
        f"{path}:{len(content)}:{content[:2].hex()}" if content is not None else f"{path}/"
        for path, content in sorted(tree.items())
    )
    return ", ".join(files) or "nothing"


def _content(files: FileSystem, ino: int) -> bytes:
    handle = files.open(ino, os.O_RDONLY, ROOT_USER)
    try:
        return files.read(handle, 0, files.getattr(ino).size)
    finally:
        files.release(handle)


def _place(files: FileSystem, path: str) -> tuple[int, bytes]:
    above, _, name = path.rpartition("/")
    return number_of(files, above), name.encode()


def _data(step: Step) -> bytes:
    return Random(step.number * 31 + step.size).randbytes(step.size)


def _step(random: Random, model: _Model) -> Step | None:
    """A step that can be done now, or None for one that cannot."""
    paths = list(model.names)
    regular = [path for path in paths if model.tree()[path] is not None]
    free = _free(random, model)
    act = random.choices(
        ("create", "write", "truncate", "rename", "link", "unlink", "mkdir", "rmdir", "fsync", "commit"),
        (16, 32, 6, 9, 4, 8, 5, 2, 10, 8),
    )[0]
    match act:
        case "create" if free:
            return Step("create", free)
        case "write" if regular:
            size = random.choices((_SMALL, _MEDIUM, _LARGE), (60, 12, 1))[0]
            return Step("write", random.choice(regular), number=random.randrange(size), size=random.randrange(1, size))
        case "truncate" if regular:
            return Step("truncate", random.choice(regular), size=random.randrange(_MEDIUM))
        case "rename" if paths and free:
            path = random.choice(paths)
            if "/" in free and model.tree()[path] is None:
                return None
            if model.tree()[path] is None:
                taken = [name for name in _DIRECTORIES if name not in model.names]
                return Step("rename", path, random.choice(taken)) if taken else None
            return Step("rename", path, free)
        case "link" if regular and free:
            return Step("link", random.choice(regular), free)
        case "unlink" if regular:
            return Step("unlink", random.choice(regular))
        case "mkdir":
            taken = [name for name in _DIRECTORIES if name not in model.names]
            return Step("mkdir", random.choice(taken)) if taken else None
        case "rmdir":
            empty = [
                name for name in _DIRECTORIES if name in paths and not any(p.startswith(name + "/") for p in paths)
            ]
            return Step("rmdir", random.choice(empty)) if empty else None
        case "fsync" | "commit":
            return Step(act)
    return None


def _free(random: Random, model: _Model) -> str:
    """A path that no file has."""
    above = ["", *(f"{name}/" for name in _DIRECTORIES if name in model.names)]
    path = random.choice(above) + random.choice(_NAMES)
    return "" if path in model.names else path
