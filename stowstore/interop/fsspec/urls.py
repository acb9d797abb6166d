"""The two forms of URL: a store's or root's own one, with a slash where it has ``://``.

``stow://SCHEME/CONTAINER/KEY?OPTION=VALUE`` and ``stowvol://SCHEME/ROOT#NAME@VERSION/PATH?OPTION=VALUE``.  fsspec's
*paths* are what stands between the protocol and the options.  Keys and paths are raw: nothing in them is an escape.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from attrs import frozen

from datastore.errors import ConfigError
from datastore.reference import DataReference

if TYPE_CHECKING:
    from stowstore.volumes import Volume

__all__ = ["ObjectPath", "VolumePath", "path_of", "query_of", "store_url", "volume_url"]

#: Options at the end; a question mark that is followed by anything else belongs to a name or a pattern.
_QUERY: Final = re.compile(r"\?([A-Za-z_]\w*=[^?#/]*(?:/[^?#]*)?)$")
_ROOT_QUERY: Final = re.compile(r"\?([A-Za-z_]\w*=[^#]*)#")
_ACCOUNT_SCHEMES: Final = frozenset({"abfs", "abfss", "wasb", "wasbs"})


@frozen
class ObjectPath:
    """What a path of ``stow://`` names: a scheme, a container of it, or something below one.

    ``container`` is as it stands in the store's URL, with Azure's ``@account``.
    """

    scheme: str
    container: str = ""
    key: str = ""

    @classmethod
    def parse(cls, path: str) -> ObjectPath:
        """Reads a path; what is missing at its end is empty."""
        scheme, _, rest = path.partition("/")
        container, _, key = rest.partition("/")
        return cls(scheme.lower(), container, key.strip("/"))

    @classmethod
    def of(cls, reference: DataReference) -> ObjectPath:
        """The path of what a reference names."""
        container = reference.container
        return cls(
            reference.scheme, f"{container}@{reference.account}" if reference.account else container, reference.key
        )

    @property
    def reference(self) -> DataReference:
        """What the store calls it.

        Raises:
            ConfigError: the path names no container.
        """
        if not self.scheme or not self.container:
            raise ConfigError(
                f"stow://{self} names nothing in a container",
                hint="write stow://SCHEME/CONTAINER/KEY: stow://s3/bucket/key",
            )
        container, account = self.container, None
        if self.scheme in _ACCOUNT_SCHEMES:
            container, _, host = container.partition("@")
            account = host or None
        return DataReference.build(self.scheme, container, self.key, account)

    def __str__(self) -> str:
        return "/".join(part for part in (self.scheme, self.container, self.key) if part)


@frozen
class VolumePath:
    """What a path of ``stowvol://`` names: a place in a volume, or in one version of it.

    ``root`` is as in the path, ``volume`` is ``NAME`` or ``NAME@VERSION``, ``path`` begins with a slash.
    """

    root: str
    volume: str
    path: str = "/"

    @classmethod
    def parse(cls, path: str) -> VolumePath:
        """Reads a path.

        Raises:
            ConfigError: it names no volume.
        """
        root, hash_, rest = path.partition("#")
        volume, _, below = rest.partition("/")
        if not hash_ or not volume or "/" not in root:
            raise ConfigError(
                f"stowvol://{path} names no volume",
                hint="write stowvol://SCHEME/ROOT#NAME@VERSION/PATH: stowvol://s3/bucket/root#training@v1/data",
            )
        return cls(root, volume, "/" + below.strip("/"))

    @property
    def top(self) -> str:
        """The path of the volume itself."""
        return f"{self.root}#{self.volume}"

    def address(self, query: str = "") -> str:
        """What the volume is called elsewhere: ``ROOT#NAME@VERSION``, with the options of its root."""
        scheme, _, place = self.root.partition("/")
        slashes = ":///" if scheme == "file" else "://"
        return f"{scheme}{slashes}{place}{'?' if query else ''}{query}#{self.volume}"

    def __str__(self) -> str:
        return self.top + self.path.rstrip("/")


def path_of(url: str, protocol: str) -> str:
    """A URL without protocol and options; a path is returned as it is.

    After the protocol a store's or volume's own text may stand as well: ``stowvol://s3://bucket/root#training@v1``.
    """
    if not url.startswith(f"{protocol}://"):
        return url.rstrip("/")
    text = _ROOT_QUERY.sub("#", url.removeprefix(f"{protocol}://"), count=1)
    text = _QUERY.sub("", text)
    return _slashed(text).rstrip("/")


def query_of(url: str) -> str:
    """The options in a URL, "" where it has none."""
    found = _ROOT_QUERY.search(url) or _QUERY.search(url)
    return found[1] if found else ""


def store_url(reference: DataReference | str, query: str = "") -> str:
    """The ``stow://`` URL of what a reference names; ``query`` are options such as ``endpoint=http://...``."""
    named = reference if isinstance(reference, DataReference) else DataReference(reference)
    return f"stow://{ObjectPath.of(named)}{'?' if query else ''}{query}"


def volume_url(volume: Volume | str, path: str = "") -> str:
    """The ``stowvol://`` URL of a path in a volume: of the version a volume stands for, or of an address or locator.

    Raises:
        NotCommitted: the volume has no version yet.
    """
    address = volume if isinstance(volume, str) else volume._require_index()
    root, _, name = address.rpartition("#")
    parts = urlsplit(root)
    place = f"{parts.scheme}/{parts.netloc}{parts.path}" if parts.netloc else f"{parts.scheme}{parts.path}"
    below = path.strip("/")
    return f"stowvol://{place}#{name}{'/' if below else ''}{below}{'?' if parts.query else ''}{parts.query}"


def _slashed(text: str) -> str:
    """The text with a slash for the first ``://`` of a scheme, and for ``:/`` between a volume and a path."""
    scheme, separator, rest = text.partition("://")
    if separator and "/" not in scheme and "#" not in scheme:
        text = f"{scheme}/{rest.lstrip('/') if scheme == 'file' else rest}"
    root, hash_, inner = text.partition("#")
    volume, slash, below = inner.partition("/")
    return f"{root}{hash_}{volume.removesuffix(':')}{slash}{below}"
