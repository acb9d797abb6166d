"""OpenStack Swift, over apache-libcloud's login and transport.

Swift's ``If-None-Match: *`` is looked at before the data arrive, so several of many concurrent creators can win: the
location declares `Feature.CREATE_IF_ABSENT` as a convenience and never `Feature.ATOMIC_CREATE`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from datastore.driver import Location
from datastore.errors import ConfigError, ContainerNotEmpty, InvalidReference, NoSuchContainer, StoreError
from datastore.model import Capabilities, Feature
from stowstore.locations._swift_objects import MAX_OBJECT, PAGE, SwiftContainer, parsed
from stowstore.locations.base import Dial, Kind, Option

if TYPE_CHECKING:
    from stowstore.locations._swift_session import Session

__all__ = ["KIND", "SwiftContainer", "SwiftLocation"]

_FEATURES = frozenset(
    {
        Feature.CREATE_IF_ABSENT,
        Feature.SERVER_SIDE_COPY,
        Feature.USER_METADATA,
        Feature.CONTENT_HEADERS,
        Feature.CONTAINERS,
        Feature.EMPTY_SEGMENTS,
        Feature.NESTED_KEYS,
        Feature.PERSISTENT,
    }
)
_SIGNING = {Feature.SIGN_READ, Feature.SIGN_WRITE, Feature.SIGN_HEAD, Feature.SIGN_DELETE}


class SwiftLocation:
    """One Swift account."""

    kind = "sw"
    scheme = "sw"

    def __init__(
        self,
        session: Session,
        *,
        temp_url_key: str = "",
        set_temp_url_key: bool = False,
        max_object_bytes: int = MAX_OBJECT,
    ) -> None:
        self.session = session
        #: Whether the cluster turned out to have no bulk operations.
        self.without_bulk = False
        self._temp_url_key = temp_url_key
        self._set_temp_url_key = set_temp_url_key
        signing = _SIGNING if temp_url_key or set_temp_url_key else set()
        self.capabilities = Capabilities(features=_FEATURES | signing, max_object_bytes=max_object_bytes)

    def container(self, name: str) -> SwiftContainer:
        if not name or "/" in name or name in (".", "..") or len(name.encode()) > 256:
            raise InvalidReference(
                f"{name!r} is no name of a Swift container: 1 to 256 bytes without a slash", reason="bad_container"
            )
        return SwiftContainer(self, name)

    def has_container(self, name: str) -> bool:
        response = self.session.request("HEAD", self.container(name)._path)
        if response.status_code not in (200, 204, 404):
            raise self.session.refused(response)
        self.session.finish(response)
        return response.status_code != 404

    def create_container(self, name: str) -> None:
        # Names belong to the account: what exists is ours, and private unless its owner opened it.
        response = self.session.request("PUT", self.container(name)._path)
        if response.status_code not in (201, 202):
            raise self.session.refused(response)
        self.session.finish(response)

    def delete_container(self, name: str) -> None:
        response = self.session.request("DELETE", self.container(name)._path)
        if response.status_code == 404:
            self.session.finish(response)
            raise NoSuchContainer(f"there is no container {name}")
        if response.status_code == 409:
            self.session.finish(response)
            raise ContainerNotEmpty("the container still holds objects", hint="delete them first")
        if response.status_code != 204:
            raise self.session.refused(response)
        self.session.finish(response)

    def list_containers(self, prefix: str = "") -> Iterator[str]:
        marker = ""
        while rows := self.rows("", {"prefix": prefix, "marker": marker, "limit": str(PAGE)}, ""):
            for row in rows:
                yield row["name"]
            if len(rows) < PAGE:
                return
            marker = rows[-1]["name"]

    def rows(self, path: str, params: Mapping[str, str], container: str) -> Sequence[dict[str, Any]]:
        """One page of a listing, as Swift gives it: ascending by UTF-8 bytes (SQLite's BINARY collation)."""
        given = {name: value for name, value in params.items() if value}
        response = self.session.request("GET", path, params={"format": "json", **given})
        if response.status_code == 404:
            self.session.finish(response)
            raise NoSuchContainer(f"there is no container {container}")
        if response.status_code not in (200, 204):
            raise self.session.refused(response)
        found = parsed(self.session.content(response) or b"[]")
        if not isinstance(found, list):
            raise StoreError("Swift's listing cannot be read", hint="is auth_url that of a Swift cluster?")
        return found

    def temp_url_key(self) -> str:
        """The key that signs temporary URLs: the configured one, or the account's, made when it has none."""
        if not self._temp_url_key:
            if not self._set_temp_url_key:
                raise ConfigError("no temp_url_key is configured", hint="give it, or set set_temp_url_key")
            header = "X-Account-Meta-Temp-URL-Key"
            response = self.session.request("HEAD", "")
            if response.status_code not in (200, 204):
                raise self.session.refused(response)
            self.session.finish(response)
            known = response.headers.get(header, "")
            if not known:
                known = secrets.token_hex(32)
                response = self.session.request("POST", "", headers={header: known})
                if response.status_code not in (200, 201, 202, 204):
                    raise self.session.refused(response)
                self.session.finish(response)
            self._temp_url_key = known
        return self._temp_url_key

    def close(self) -> None:
        self.session.close()

    def __repr__(self) -> str:
        return "<SwiftLocation>"


def _dial(dial: Dial) -> Location:
    from stowstore.locations._swift_session import Session, credentials_from

    options = dial.options
    return SwiftLocation(
        Session(credentials_from(options), dial.http),
        temp_url_key=options.text("temp_url_key"),
        set_temp_url_key=options.flag("set_temp_url_key"),
        max_object_bytes=options.integer("max_object_bytes", MAX_OBJECT),
    )


KIND = Kind(
    name="sw",
    schemes=("sw",),
    aliases=("swift",),
    dial=_dial,
    summary="OpenStack Swift: Keystone v2 and v3, application credentials, and Swift's own login v1",
    options={
        "auth_url": Option(help="where to log in; else $OS_AUTH_URL", aliases=("tenant_auth_url",)),
        "auth_version": Option(
            help="how to log in; by default what auth_url says",
            choices=("1.0", "2.0_password", "3.x_password", "3.x_appcred"),
        ),
        "username": Option(help="the user, or the id of an application credential; else $OS_USERNAME"),
        "key": Option(help="the password; else $OS_PASSWORD", secret=True, aliases=("password",)),
        "tenant_name": Option(help="the project; else $OS_PROJECT_NAME", aliases=("project_name", "tenant")),
        "domain": Option(help="the user's domain; else $OS_USER_DOMAIN_NAME, else Default"),
        "tenant_domain": Option(help="the id of the project's domain; else $OS_PROJECT_DOMAIN_ID, else default"),
        "region": Option(help="which of the catalogue's endpoints; else $OS_REGION_NAME"),
        "storage_url": Option(help="with token: the account's URL, so that no login is needed; else $OS_STORAGE_URL"),
        "token": Option(help="with storage_url: the token; else $OS_AUTH_TOKEN", secret=True),
        "temp_url_key": Option(help="the account's or container's key for temporary URLs", secret=True),
        "set_temp_url_key": Option(
            help="take the account's key for temporary URLs, and set one where there is none", default="false"
        ),
        "max_object_bytes": Option(help="the largest object the cluster takes in one piece (default: 5 GiB)"),
    },
)
