"""Google Cloud Storage on gcp-storage-emulator: buckets, lists, copies, resumable uploads.

The emulator has little of the XML API, through which the kind's data go, and ignores page sizes, conditions,
signatures and what a copy shall change: none of those is proven here.
"""

import json
import urllib.request
import uuid
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from datastore.errors import ContainerNotEmpty, NoSuchContainer
from datastore.model import WriteOptions
from datastore.source import Source
from stowstore.locations.base import Dial
from stowstore.locations.gcs import KIND
from stowstore.locations.gcs.location import GcsLocation
from tests.servers import Server


@pytest.fixture
def location(gcs_emulator: Server) -> Iterator[GcsLocation]:
    options = {"endpoint": gcs_emulator.endpoint, "anonymous": "true", "project_id": "stowstore"}
    found = GcsLocation.dial(Dial(options=KIND.check(options)))
    yield found
    found.close()


@pytest.fixture
def bucket(location: GcsLocation) -> str:
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    location.create_container(name)
    return name


def test_buckets(location: GcsLocation, bucket: str) -> None:
    """Buckets are made twice without harm, found, listed and removed."""
    assert location.has_container(bucket)
    location.create_container(bucket)
    assert bucket in list(location.list_containers("bucket-"))
    location.delete_container(bucket)
    assert not location.has_container(bucket)
    with pytest.raises(NoSuchContainer):
        location.delete_container(bucket)


def test_writing_listing_copying(gcs_emulator: Server, location: GcsLocation, bucket: str) -> None:
    """Odd names are listed in pages and folded; what was uploaded in pieces is copied with its metadata."""
    container = location.container(bucket)
    names = ["a b/x", "a b/y", "a#?%+", "ab", "b/ü"]
    for name in names:
        _upload(gcs_emulator, bucket, name)
    container.put("large", Source(iter([b"x" * (1 << 20)] * 9)), WriteOptions(if_absent=True, metadata={"k": "v"}))
    found: list[str] = []
    while True:
        page = container.list("", found[-1] if found else "", 2, "")
        found += [entry.key for entry in page.entries]
        if not page.more:
            break
    assert [*names, "large"] == found
    folded = container.list("", "", 10, "/")
    assert (["a b/", "b/"], ["a#?%+", "ab", "large"]) == (
        list(folded.prefixes),
        [entry.key for entry in folded.entries],
    )
    assert ["a#?%+", "ab"] == [entry.key for entry in container.list("", "a b/", 2, "/").entries]
    container.copy("copied", container, "large", None)
    resource = _resource(gcs_emulator, bucket, "copied")
    assert (str(9 << 20), {"k": "v"}) == (resource["size"], resource["metadata"])
    with pytest.raises(ContainerNotEmpty):
        location.delete_container(bucket)
    with pytest.raises(NoSuchContainer):
        location.container("no-such-bucket").list("", "", 1, "")


def _upload(server: Server, bucket: str, name: str) -> None:
    # The emulator does not take what obstore sends for small objects.
    url = f"{server.endpoint}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(name, safe='')}"
    urllib.request.urlopen(urllib.request.Request(url, b"12345", method="POST"), timeout=30).close()


def _resource(server: Server, bucket: str, name: str) -> dict[str, object]:
    with urllib.request.urlopen(f"{server.endpoint}/storage/v1/b/{bucket}/o/{name}", timeout=30) as answer:
        found: dict[str, object] = json.load(answer)
    return found
