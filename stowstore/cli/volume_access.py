"""What the volume commands share: addresses with paths, opened roots and sessions, and names fit to be shown."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import click
from attrs import frozen

from datastore.errors import ConfigError
from stowstore.chunks.store import ChunkStore
from stowstore.cli.opening import Opener, kind_options, option_pairs
from stowstore.cli.volume_staging import staging_directory
from stowstore.config import ContainerPolicy, Measuring
from stowstore.versions.address import VolumeAddress, normal_root, open_root
from stowstore.versions.errors import NoSuchVolume
from stowstore.versions.manifest import VersionName
from stowstore.versions.options import SessionOptions, chunk_store
from stowstore.versions.places import RootPlace
from stowstore.versions.root import Root, RootFormat
from stowstore.versions.session import Session
from stowstore.wording import printable

__all__ = ["Access", "VolumePath", "is_plain", "printable", "volume_command"]

_Command = Callable[..., Any]


@frozen
class VolumePath:
    """A VOLUME and a path in it: ``ROOT#NAME@VERSION:/path``; without a path its top directory is meant."""

    address: VolumeAddress
    path: str = "/"

    @classmethod
    def parse(cls, text: str) -> VolumePath:
        """Reads an address with or without a path.

        Raises:
            ConfigError: it names no volume.
        """
        root, hash_, rest = text.partition("#")
        if not hash_ and "://" not in text:
            # A volume of this host, by its name.
            root, rest = "", text
        name, colon, path = rest.partition(":/")
        address = _address(f"{root}{hash_}{name}")
        return cls(address, f"/{path}" if colon else "/")

    @staticmethod
    def is_one(text: str) -> bool:
        """Whether a text can only mean a volume, not a file beside one."""
        root, hash_, _ = text.partition("#")
        return bool(hash_) and "://" in root


class Access:
    """Opens the roots of this invocation, each once; used by one thread."""

    def __init__(self, options: dict[str, str], key: str | None) -> None:
        self._options = options
        self._key = key
        self._roots: dict[str, Root] = {}
        self._stack = ExitStack()

    def address(self, text: str) -> VolumeAddress:
        """A VOLUME without a path."""
        found = VolumePath.parse(text)
        if found.path != "/":
            raise click.UsageError(f"a whole volume is meant here: leave out :{found.path}")
        return found.address

    def beside(self, text: str, other: VolumeAddress) -> VolumeAddress:
        """A VOLUME of the root another one lies in: in full, as ``NAME@VERSION``, or as ``@VERSION`` of the same."""
        if "#" not in text:
            text = f"{other.root}#{other.volume if text.startswith('@') else ''}{text}"
        found = self.address(text)
        if found.root != other.root:
            raise ConfigError(f"{found} and {other} lie in different roots", hint="export one and import it there")
        return found

    def other(self, text: str, first: str, address: VolumeAddress) -> VolumeAddress:
        """The second of two VOLUMEs: of the same root as the first, or both are volumes of this host by their names."""
        both_plain = is_plain(first) and is_plain(text) and not text.startswith("@")
        if both_plain and text.partition("@")[0] not in self.root_of(address).volumes():
            return self.address(text)
        return self.beside(text, address)

    @contextmanager
    def changing(self, text: str, doing: str, *, even_damaged: bool = False) -> Iterator[None]:
        """Keeps everybody else from a VOLUME of this host while a version of it is published, and notes that one.

        One that is addressed in its root is left to the lease there.
        """
        if not is_plain(text):
            yield
            return
        from stowstore.named import NamedVolumes

        _registered(text)
        with NamedVolumes().republished(text.partition("@")[0], doing, even_damaged=even_damaged):
            yield

    def root(self, url: str, *, create: RootFormat | None = None) -> Root:
        """The root at a URL, or of a volume of this host; made where there is nothing, if ``create`` says of what."""
        if "://" not in url:
            url = _registered(url).root
        url = normal_root(url)
        found = self._roots.get(url)
        if found is None:
            makes_directory = create is not None and url.startswith("file:")
            found = self._roots[url] = open_root(
                url,
                options=self._options,
                containers=ContainerPolicy.IF_MISSING if makes_directory else ContainerPolicy.NEVER,
                create=create,
                measuring=Measuring.IF_HEARD,
            )
            self._stack.callback(found.store.close)
        return found

    def place(self, url: str) -> RootPlace:
        """The root at a URL, or of a volume of this host, as workers open it."""
        return RootPlace.of(url if "://" in url else _registered(url).root, self._options, self._key)

    def root_of(self, address: VolumeAddress) -> Root:
        """The root a volume lies in."""
        return self.root(address.root)

    def version(self, address: VolumeAddress) -> VersionName:
        """The version an address means: its newest without any."""
        if address.digest is not None:
            return address.version_name
        return self.root_of(address).resolve(address.volume, address.version)

    @contextmanager
    def reading(self, address: VolumeAddress) -> Iterator[Session]:
        """A version, opened to be looked at."""
        root = self.root_of(address)
        with Session.read(root, self.version(address), self._session_options(None)) as session:
            yield session

    @contextmanager
    def writing(self, address: VolumeAddress) -> Iterator[Session]:
        """A volume, opened for one commit: what is staged lies in a directory that goes when this ends.

        Raises:
            NoSuchVolume: it was not created.
            LeaseHeld: somebody writes it.
        """
        if address.version is not None:
            raise ConfigError(
                f"{address} is a version, and versions never change",
                hint=f"write {address.root}#{address.volume}, or fork the version",
            )
        root = self.root_of(address)
        if not root.has_volume(address.volume):
            raise NoSuchVolume(
                f"there is no volume {address.volume!r} in {root.address}", hint="make it: stowstore volume create"
            )
        with self.write(root, address.volume) as session:
            yield session

    @contextmanager
    def write(self, root: Root, volume: str) -> Iterator[Session]:
        """A volume that may not exist yet, opened for one commit."""
        with (
            _ended_in_order(),
            staging_directory() as directory,
            Session.write(root, volume, self._session_options(directory)) as session,
        ):
            yield session

    @contextmanager
    def chunks(self, root: Root) -> Iterator[ChunkStore]:
        """The packs of a root, opened with the key of this invocation."""
        with chunk_store(root, self._session_options(None)) as chunks:
            yield chunks

    @property
    def options(self) -> dict[str, str]:
        """The options of the root's kind that were given."""
        return dict(self._options)

    @property
    def key(self) -> str | None:
        """Where the key of an encrypted root comes from."""
        return self._key

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _session_options(self, cache_dir: Path | None) -> SessionOptions:
        return SessionOptions(cache_dir=cache_dir, key=self._key)


def volume_command(command: _Command) -> _Command:
    """Adds what opens volumes, ``--option`` and ``--key``, to a command, which gets them as its `Access`."""

    @kind_options
    @click.option("--key", metavar="env:NAME|file:PATH", help="The key of an encrypted root.")
    @click.pass_obj
    @functools.wraps(command)
    def run(opener: Opener, /, *args: Any, options: tuple[str, ...], key: str | None, **more: Any) -> Any:
        with opener.limits(), Access({**opener.options, **option_pairs(options)}, key) as access:
            return command(access, *args, **more)

    return run


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """A request to terminate ends this as an interrupt does, so that the lease and what is staged go with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def is_plain(text: str) -> bool:
    """Whether a text can only be the name of a volume of this host, with or without a version."""
    return "#" not in text and "://" not in text


def _address(text: str) -> VolumeAddress:
    if is_plain(text):
        return _registered(text)
    return VolumeAddress.parse(text)


def _registered(text: str) -> VolumeAddress:
    """The address of a volume of this host, ``NAME`` or ``NAME@VERSION``."""
    from stowstore.named import NamedVolumes
    from stowstore.named.errors import VolumeNotFound
    from stowstore.named.names import is_name

    name, at, version = text.partition("@")
    if not is_name(name):
        hint = "write ROOT#NAME, for instance file:///data/root#training, or the name of a volume of this host"
        path = Path(text).expanduser()
        if path.is_dir():
            names = NamedVolumes(path).names()
            hint = f"a root is a URL: {path.absolute().as_uri()}"
            if names:
                hint = f"it holds volumes of a host, each with a root of its own: name one, such as {names[0]}"
        raise ConfigError(f"{text!r} names no volume", hint=hint)
    try:
        address = NamedVolumes().address(name)
    except VolumeNotFound as error:
        raise VolumeNotFound(
            error.message, hint="see `stowstore volume list`; a volume in a store is ROOT#NAME"
        ) from error
    return VolumeAddress.parse(address + at + version)
