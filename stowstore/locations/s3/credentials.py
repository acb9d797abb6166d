"""Keys to sign with: those configured, or the first the environment has; found anew when they are refused."""

from __future__ import annotations

import threading
import time
from datetime import UTC
from typing import TYPE_CHECKING

import urllib3
from minio.credentials.credentials import Credentials
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    IamAwsProvider,
    Provider,
)

from datastore.errors import PermissionDenied
from stowstore.locations.base import Options
from stowstore.locations.s3.settings import Settings

if TYPE_CHECKING:
    from obstore.store import S3Credential

__all__ = ["Keys"]

#: Seconds between two searches of the environment because of refused keys: some requests are refused for good.
_PATIENCE = 10.0


class Keys(Provider):
    """Where every client of one location gets its keys from; thread-safe."""

    def __init__(self, settings: Settings, options: Options) -> None:
        self._settings = settings
        self._options = options
        self._lock = threading.Lock()
        self._known: Credentials | None = None
        self._chain: Provider | None = None
        self._looked = 0.0

    @property
    def anonymous(self) -> bool:
        """Whether requests go out unsigned."""
        return self._settings.anonymous

    def retrieve(self) -> Credentials:
        """The keys to use now.

        Raises:
            PermissionDenied: there are none.
            ConfigError: the file of a secret cannot be read.
        """
        known = self._known
        if known is not None and not known.is_expired():
            return known
        with self._lock:
            self._known = self._find()
            return self._known

    def for_obstore(self) -> S3Credential:
        """The same, as obstore asks for them; it asks again when they expire."""
        keys = self.retrieve()
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.session_token,
            "expires_at": keys.expiration and keys.expiration.replace(tzinfo=UTC),
        }

    def refresh(self) -> bool:
        """Looks for the keys again because they were refused; says whether there are other ones now."""
        if self.anonymous:
            return False
        with self._lock:
            if self._settings.ambient and time.monotonic() < self._looked + _PATIENCE:
                return False
            self._looked = time.monotonic()
            self._chain = None
            before, self._known = self._known, self._find()
            return before != self._known

    def reset_after_fork(self) -> None:
        """Makes locks and connections anew, which the parent may have held."""
        self._lock = threading.Lock()
        self._chain = None

    def _find(self) -> Credentials:
        if not self._settings.ambient:
            options = self._options
            return Credentials(options["access_key_id"], options["secret_key"], options.text("token") or None)
        if self._chain is None:
            self._chain = ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), _InstanceRole(self._settings.region)])
        try:
            return self._chain.retrieve()
        except ValueError as error:
            raise PermissionDenied(
                "no credentials for S3 were found",
                hint="set access_key_id and secret_key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
                "~/.aws/credentials, or give the machine a role; for public buckets set anonymous: true",
            ) from error


class _InstanceRole(Provider):
    """Keys of the machine, container or service account we run as."""

    def __init__(self, region: str) -> None:
        # Outside the cloud nobody answers: the search must end soon.
        timeout = urllib3.Timeout(connect=1.0, read=5.0)
        self._provider = IamAwsProvider(
            region=region, http_client=urllib3.PoolManager(timeout=timeout, retries=urllib3.Retry(1))
        )

    def retrieve(self) -> Credentials:
        try:
            return self._provider.retrieve()
        except (urllib3.exceptions.HTTPError, OSError, LookupError) as error:
            raise ValueError(f"no role: {type(error).__name__}") from error
