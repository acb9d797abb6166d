"""What a kind of location is: its name, its schemes, the options it takes, and how it is dialled.

A kind is one module with a `Kind`; the entry-point group ``stowstore.kinds`` finds it.  Modules import their client
libraries inside ``dial``: importing stowstore stays fast, and a missing library is an error only for whoever needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from attrs import field, frozen

from datastore.driver import Container, DriverEntry, DriverPage, Location, resume_after
from datastore.errors import ConfigError

__all__ = [
    "Container",
    "Dial",
    "DriverEntry",
    "DriverPage",
    "HttpSettings",
    "Kind",
    "Location",
    "Option",
    "Options",
    "nearest",
    "resume_after",
]


@frozen(kw_only=True)
class Option:
    """One setting of a kind; ``secret`` ones may also be given as ``<name>_path``, a file read when dialled."""

    help: str
    default: str | None = None
    required: bool = False
    secret: bool = False
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


@frozen(kw_only=True)
class HttpSettings:
    """How a location talks HTTP; times in seconds, 0 for none; 0 connections for no bound."""

    headers: Mapping[str, tuple[str, ...]] = field(factory=dict, repr=lambda headers: repr(sorted(headers)))
    timeout: float = 0.0
    connect_timeout: float = 5.0
    max_idle_connections: int = 1024
    max_idle_connections_per_host: int = 1024
    max_connections_per_host: int = 0
    idle_timeout: float = 90.0


class Options(Mapping[str, str]):
    """The options a location is dialled with, checked against what its kind declares.

    Reading one yields its text or its default.  A secret given as ``<name>_path`` is read from the file each time, so a
    rotated secret is found by dialling anew; it never becomes part of the options.  ``repr`` shows no secret.

    Raises:
        ConfigError: an unknown option (naming the nearest one), a missing or invalid one.
    """

    def __init__(self, kind: str, declared: Mapping[str, Option], given: Mapping[str, str]) -> None:
        self._kind = kind
        self._declared = declared
        self._given: dict[str, str] = {}
        aliases = {alias: name for name, option in declared.items() for alias in option.aliases}
        for name, value in given.items():
            known = aliases.get(name, name)
            if known not in declared and not self._is_path_of_secret(known):
                raise ConfigError(
                    f"kind {kind!r} has no option {name!r}",
                    hint=nearest(name, [*declared, *(f"{n}_path" for n, o in declared.items() if o.secret)]),
                )
            if not isinstance(value, str):
                raise ConfigError(f"option {name!r} of kind {kind!r} is text, not {type(value).__name__}")
            self._given[known] = value
        for name, option in declared.items():
            if option.required and not self.get(name):
                also = f" or {name}_path" if option.secret else ""
                raise ConfigError(f"missing {name} config: kind {kind!r} needs {name}{also}", hint=option.help)
            value = self._given.get(name, "")
            if option.choices and value and value not in option.choices:
                raise ConfigError(
                    f"invalid {name} {value!r}: kind {kind!r} takes {', '.join(option.choices)}",
                    hint=nearest(value, option.choices),
                )

    def __getitem__(self, name: str) -> str:
        option = self._declared[name]
        path = self._given.get(f"{name}_path") if option.secret else None
        if path:
            try:
                return Path(path).expanduser().read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ConfigError(
                    f"{name}_path of kind {self._kind!r} cannot be read: {path}: {error.strerror}",
                    hint="give a readable file that holds only the secret",
                ) from error
        value = self._given.get(name, option.default)
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._declared if self._has(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def text(self, name: str) -> str:
        """The option's text, "" when it has none."""
        return self.get(name) or ""

    def flag(self, name: str) -> bool:
        """A switch: true or false, in any of the usual spellings."""
        value = self.text(name).lower()
        if value in ("", "false", "0", "no", "off"):
            return False
        if value in ("true", "1", "yes", "on"):
            return True
        raise ConfigError(f"option {name!r} of kind {self._kind!r} is true or false, not {value!r}")

    def integer(self, name: str, default: int = 0) -> int:
        """A whole number."""
        value = self.text(name)
        try:
            return int(value) if value else default
        except ValueError as error:
            raise ConfigError(f"option {name!r} of kind {self._kind!r} is a whole number, not {value!r}") from error

    def __repr__(self) -> str:
        shown = {name: "***" if self._declared[name].secret else self[name] for name in self}
        return f"Options({self._kind!r}, {shown!r})"

    def _has(self, name: str) -> bool:
        option = self._declared[name]
        return name in self._given or option.default is not None or (option.secret and f"{name}_path" in self._given)

    def _is_path_of_secret(self, name: str) -> bool:
        option = self._declared.get(name.removesuffix("_path"))
        return name.endswith("_path") and option is not None and option.secret


@frozen(kw_only=True)
class Dial:
    """What a kind's ``dial`` receives: checked options, the transport settings, and the account of the reference.

    ``account`` is set only for references that carry one (``abfs://container@account/...``).
    """

    options: Options
    http: HttpSettings = field(factory=HttpSettings)
    account: str | None = None


def _frozen_options(options: Mapping[str, Option]) -> Mapping[str, Option]:
    return MappingProxyType(dict(options))


@frozen(kw_only=True)
class Kind:
    """One kind of location.

    ``schemes`` are those of its references, the first one canonical; ``dial`` makes a location, without a request
    where it can.  ``extra`` names the extra of the distribution that brings its client library.
    """

    name: str
    schemes: tuple[str, ...]
    dial: Callable[[Dial], Location]
    options: Mapping[str, Option] = field(factory=dict, converter=_frozen_options)
    summary: str = ""
    aliases: tuple[str, ...] = ()
    extra: str | None = None

    def check(self, given: Mapping[str, str]) -> Options:
        """The options, checked."""
        return Options(self.name, self.options, given)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the valid name most like a wrong one, and otherwise the valid ones."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"valid are {', '.join(names)}" if names else "it takes none"
