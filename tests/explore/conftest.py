"""Roots to look around in, and tests that are coroutines."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("textual", reason="textual is not installed: pip install 'stowstore[explore]'")

from stowstore.config import ContainerPolicy
from stowstore.namespace.permissions import ROOT
from stowstore.transfer.importing import import_directory
from stowstore.versions.address import open_root
from stowstore.versions.options import CommitOptions
from stowstore.versions.root import Root, RootFormat
from stowstore.versions.session import Session

#: Seconds a coroutine may take: something hangs.
_PATIENCE = 100

#: What would colour, link, or drive a terminal if it were ever read as markup or sent as it is.
HOSTILE = "[red]odd\x1b[31m\nname[@click=app.quit]"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs the tests that are coroutines."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = pyfuncitem._fixtureinfo.argnames

    async def limited() -> None:
        async with asyncio.timeout(_PATIENCE):
            await pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted})

    asyncio.run(limited())
    return True


def png(width: int, height: int) -> bytes:
    """The head of an image, as far as it says how large it is."""
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", width, height, 8, 2, 0, 0, 0) + bytes(100)


def fill(root: Root, directory: Path) -> None:
    """Puts the volume ``data`` into a root: two versions and a fork, with a little of everything."""
    tree = directory / "tree"
    (tree / "images").mkdir(parents=True)
    (tree / "images" / "one.png").write_bytes(png(640, 480))
    (tree / "images" / "two.PNG").write_bytes(png(1, 2))
    (tree / "readme.txt").write_text("hello [b]you[/b]\n", encoding="utf-8")
    (tree / "train.py").write_text("def train():\n    return 1\n", encoding="utf-8")
    (tree / "noise.bin").write_bytes(os.urandom(8 << 20))
    (tree / "link").symlink_to("readme.txt")
    with Session.write(root, "data") as session:
        import_directory(session.files, tree)
        ino = session.files.mknod(1, HOSTILE.encode(), 0o100640, ROOT).ino
        session.files.setxattr(ino, b"user.[b]note", b"[i]value\x1b", ROOT)
        first = session.commit(CommitOptions(message="first [red]data\x1b[2J", produced_by={"run": "[b]7"}))
        root.set_tag("data", "v1", first.name)
        handle = session.files.open(session.files.lookup(1, b"readme.txt", ROOT).ino, os.O_WRONLY | os.O_TRUNC, ROOT)
        session.files.write(handle, 0, b"changed\n", ROOT)
        session.files.release(handle)
        (tree / "images" / "three.png").write_bytes(png(3, 3))
        import_directory(session.files, tree / "images", "/images")
        session.files.unlink(1, b"train.py", ROOT)
        session.commit(CommitOptions(message="second"))
        session.branch("other")


@pytest.fixture
def open_file_root(tmp_path: Path) -> Iterator[Callable[[str], Root]]:
    """Opens roots in the test's directory by name, made where missing."""
    opened: list[Root] = []

    def open_one(name: str) -> Root:
        root = open_root(f"file://{tmp_path}/{name}", containers=ContainerPolicy.IF_MISSING, create=RootFormat())
        opened.append(root)
        return root

    yield open_one
    for root in opened:
        root.store.close()


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """The root that the tests look at and never change."""
    directory = tmp_path_factory.mktemp("explored")
    root = open_root(f"file://{directory}/root", containers=ContainerPolicy.IF_MISSING, create=RootFormat())
    fill(root, directory)
    yield root
    root.store.close()


@pytest.fixture(scope="session")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A root whose volume has a directory of 100,000 names, and an index of some megabytes."""
    directory = tmp_path_factory.mktemp("crowded")
    root = open_root(f"file://{directory}/root", containers=ContainerPolicy.IF_MISSING, create=RootFormat())
    with Session.write(root, "data") as session:
        many = session.files.mkdir(1, b"many", 0o755, ROOT).ino
        for number in range(100_000):
            noise = hashlib.blake2b(b"%d" % number, digest_size=30).hexdigest().encode()
            session.files.mknod(many, b"%06d-%b" % (number, noise), 0o100644, ROOT)
        session.commit()
    yield root
    root.store.close()
