"""fsspec's own abstract tests, over stores and over volumes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.tests import abstract

from tests import servers
from tests.interop.places import s3_options


class _Joined(abstract.AbstractFixtures):
    """Paths joined by slashes, whatever the platform."""

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return lambda *parts: "/".join(parts)


class _ObjectFixtures(_Joined):
    @pytest.fixture
    def supports_empty_directories(self) -> bool:
        return False


class _DiskFixtures(_ObjectFixtures):
    """Objects on the local disk."""

    @pytest.fixture
    def fs(self, tmp_path: Path) -> Any:
        return fsspec.filesystem("stow", path=str(tmp_path))

    @pytest.fixture
    def fs_path(self) -> str:
        return "file/bucket/dir"


class _S3Fixtures(_ObjectFixtures):
    """Objects in Ceph."""

    @pytest.fixture
    def fs(self, radosgw: servers.Server) -> Any:
        return fsspec.filesystem("stow", **s3_options(radosgw))

    @pytest.fixture
    def fs_path(self, bucket: str) -> str:
        return f"s3/{bucket}"


class _VolumeFixtures(_Joined):
    """Files of a volume that is written."""

    @pytest.fixture
    def fs(self) -> Any:
        return fsspec.filesystem("stowvol", access="rw")

    @pytest.fixture
    def fs_path(self) -> str:
        return f"mem/test-{uuid.uuid4().hex}/root#data/dir"


class TestDiskCopy(_DiskFixtures, abstract.AbstractCopyTests):
    """Copies inside a store."""


class TestDiskGet(_DiskFixtures, abstract.AbstractGetTests):
    """Copies from a store to the local disk."""


class TestDiskPut(_DiskFixtures, abstract.AbstractPutTests):
    """Copies from the local disk to a store."""


class TestDiskPipe(_DiskFixtures, abstract.AbstractPipeTests):
    """Writing from memory."""


class TestDiskOpen(_DiskFixtures, abstract.AbstractOpenTests):
    """Files that are made and must not be there."""


# The rest of the suite passes over Ceph as well, in a minute; disk and S3 differ in nothing it looks at.
class TestS3Pipe(_S3Fixtures, abstract.AbstractPipeTests):
    """Writing from memory."""


class TestS3Open(_S3Fixtures, abstract.AbstractOpenTests):
    """Objects that are made and must not be there."""


class TestVolumeCopy(_VolumeFixtures, abstract.AbstractCopyTests):
    """Copies inside a volume."""


class TestVolumeGet(_VolumeFixtures, abstract.AbstractGetTests):
    """Copies from a volume to the local disk."""


class TestVolumePut(_VolumeFixtures, abstract.AbstractPutTests):
    """Copies from the local disk into a volume."""


class TestVolumePipe(_VolumeFixtures, abstract.AbstractPipeTests):
    """Writing from memory."""


class TestVolumeOpen(_VolumeFixtures, abstract.AbstractOpenTests):
    """Files that are made and must not be there."""
