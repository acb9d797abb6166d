"""Which store a command talks to, from its options, the environment and the references it is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING

import click
from attrs import define, evolve, field

from datastore.context import deadline
from datastore.errors import ConfigError

# What opens stores is imported when one is: half of the commands, and every job, need none.
if TYPE_CHECKING:
    from datastore.reference import DataReference
    from stowstore.config import StoreConfig
    from stowstore.store import StowStore

__all__ = ["Opener", "kind_options", "option_pairs"]

#: ``--option`` of every command that opens a store; read by `option_pairs`.
kind_options = click.option(
    "-o",
    "--option",
    "options",
    metavar="NAME=VALUE",
    multiple=True,
    help="One option of the store's kind (may be repeated).",
)


def option_pairs(texts: Iterable[str]) -> dict[str, str]:
    """The options of a kind, as ``--option NAME=VALUE`` gives them."""
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"--option takes NAME=VALUE, not {text.partition('=')[0]!r} alone")
        pairs[name] = value
    return pairs


@define
class Opener:
    """Opens the store of this invocation once, and resolves what users type to references of it.

    Commands never create containers on their own: a mistyped name must not become a bucket.
    """

    _base: StoreConfig | None
    _options: dict[str, str]
    _seconds: float | None
    _store: StowStore | None = field(default=None, init=False)

    @classmethod
    def of(
        cls, *, store_url: str | None, config_path: str | None, options: tuple[str, ...], timeout: str | None
    ) -> Opener:
        """Reads the global options."""
        given = option_pairs(options)
        return cls(_configured(store_url, config_path, given), given, _seconds(timeout))

    @property
    def configured(self) -> bool:
        """Whether a store was given by option or environment."""
        return self._base is not None

    @property
    def options(self) -> Mapping[str, str]:
        """What ``--option`` has given, for stores that are opened aside."""
        return self._options

    def reference(self, text: str) -> DataReference:
        """The reference a user means: whole, or a key of the configured store."""
        if "://" in text:
            from datastore.reference import DataReference
            from stowstore.locations.base import nearest
            from stowstore.locations.registry import known_schemes

            reference = DataReference(text)
            if not known_schemes(reference.scheme):
                raise ConfigError(
                    f"no kind serves the scheme {reference.scheme!r}", hint=nearest(reference.scheme, known_schemes())
                )
            return reference
        if self._base is None:
            raise click.UsageError(
                f"{text!r} is no reference (scheme://container/key), and no --store is given whose key it could be"
            )
        if not self._base.container:
            raise click.UsageError(f"the configured store has no base container: write a whole reference for {text!r}")
        base = self.store(None).base_container_fqn
        return base.join(text) if text.strip("/") else base

    def store(self, reference: DataReference | None, *, create: bool = False) -> StowStore:
        """The store for a reference, the same one for the whole invocation."""
        if self._store is None:
            from stowstore.config import ContainerPolicy, Measuring
            from stowstore.store import StowStore

            policy = ContainerPolicy.IF_MISSING if create else ContainerPolicy.NEVER
            config = evolve(self._config(reference), create_container=policy, measuring=Measuring.IF_HEARD)
            self._store = StowStore(config)
        return self._store

    @contextmanager
    def limits(self, default: float | None = None) -> Iterator[None]:
        """The deadline of --timeout, or one of so many seconds where none is given."""
        seconds = default if self._seconds is None else self._seconds
        with deadline(seconds) if seconds is not None else nullcontext():
            yield

    def close(self) -> None:
        if self._store is not None:
            self._store.close()

    def _config(self, reference: DataReference | None) -> StoreConfig:
        if self._base is not None:
            return self._base
        if reference is None:
            raise click.UsageError("no store is given: use --store URL, --config FILE, or set STOWSTORE_URL")
        from stowstore.config import StoreConfig
        from stowstore.locations.registry import known_schemes

        kind = known_schemes(reference.scheme)[reference.scheme]
        if kind == "file" and "path" not in self._options:
            raise ConfigError(
                "which directory holds the containers of file:// references?",
                hint="use --store file:///directory/container and plain keys, or --option path=/directory",
            )
        options = dict(self._options)
        if kind == "redis":
            options.setdefault("addr", reference.container)
        return StoreConfig(
            kind=reference.scheme if kind == "libcloud" else kind,
            options=options,
            enable_multicontainer=True,
            account=reference.account,
        )


def _configured(url: str | None, path: str | None, options: Mapping[str, str]) -> StoreConfig | None:
    if not url and not path:
        return None
    from stowstore.config import StoreConfig

    if url:
        return StoreConfig.from_url(url, options=options)
    assert path
    base = StoreConfig.from_yaml(path)
    return evolve(base, options={**base.options, **options})


def _seconds(timeout: str | None) -> float | None:
    if not timeout:
        return None
    from stowstore.durations import parse_duration

    return parse_duration(timeout) / 1e9
