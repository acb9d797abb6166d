"""What a test needs to know about a running server."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from attrs import asdict, field, frozen

__all__ = ["Address", "Identity", "ServerError", "ServerFailed", "ServerUnavailable"]


class ServerError(Exception):
    """A server could not do what was asked of it; the message says what to do or shows its logs."""


class ServerUnavailable(ServerError):
    """The server cannot be provided on this machine; tests that need it skip, or fail where it is required."""


class ServerFailed(ServerError):
    """The server is installed but did not start, answer or stop; always a failure."""


@frozen(kw_only=True)
class Identity:
    """The credentials of one user of a server."""

    access_key: str
    secret_key: str = field(repr=False)


@frozen(kw_only=True)
class Address:
    """Where a server listens and who may use it; the same in every process that shares it."""

    #: The server's name, as `python -m tests.servers list` shows it.
    name: str
    #: The base URL of its API.
    endpoint: str
    #: The URL of the container to try things in, which `python -m tests.servers run` creates.
    url: str
    #: The directory with its data and logs.
    root: Path
    #: May do everything.
    owner: Identity | None = None
    #: Is known to the server and may do nothing with the owner's data.
    stranger: Identity | None = None
    #: What the usual clients of this kind of server read from the environment.
    environment: Mapping[str, str] = field(factory=dict)
    #: What only this kind of server has; its module lists the names.
    extra: Mapping[str, str] = field(factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the plain form, which `from_json` reads."""
        return asdict(self, value_serializer=lambda _owner, _field, value: _plain(value))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Reads the plain form."""
        identities = {name: Identity(**data[name]) if data[name] else None for name in ("owner", "stranger")}
        return cls(**{**data, **identities, "root": Path(data["root"])})


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value
