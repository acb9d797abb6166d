"""gcp-storage-emulator: the JSON API of Google Cloud Storage, as far as it goes.

It serves buckets, put, get, metadata, ranges, resumable uploads, copy, compose and delete, and refuses a wrong MD5.

What it cannot check, so that a test passing here proves nothing about it:

- conditional writes: `ifGenerationMatch=0` is ignored and the object overwritten; no generation is returned;
- signatures: any signature on a signed URL is accepted, and so are any credentials;
- paging: `maxResults` is ignored;
- the XML API beyond a plain PUT and GET. That dialect, with HMAC keys, is S3's: radosgw checks it.

Data lie on disk, so a restart keeps them. There are no users. `extra` has `project`.
"""

import json
import urllib.request
import uuid
from pathlib import Path
from typing import ClassVar

from tests.servers.installing import missing_venv, python_key, runs, venv_install
from tests.servers.kind import Kind
from tests.servers.model import Address, ServerFailed
from tests.servers.processes import HOST, Processes, answers, clean_environment

__all__ = ["StorageEmulator"]

_VERSION = "2026.7.19"


class StorageEmulator(Kind):
    """gcp-storage-emulator."""

    name: ClassVar[str] = "gcs"
    summary: ClassVar[str] = "GCS: gcp-storage-emulator, JSON API without generations, paging and signatures"

    def available(self) -> str | None:
        return missing_venv()

    def key(self) -> str:
        return f"{_VERSION}-{python_key()}"

    def build(self, folder: Path) -> None:
        venv_install([f"gcp-storage-emulator=={_VERSION}"], folder)

    def works(self, folder: Path) -> bool:
        return runs([folder / "bin/python", "-c", "import gcp_storage_emulator"], clean_environment())

    def serve(self, processes: Processes) -> None:
        command: list[str | Path] = [self.folder / "bin/python", "-m", "gcp_storage_emulator"]
        command += ["--data-dir", processes.root / "data", "start", "--host", HOST, "--port", str(processes.port)]
        processes.serving.append(processes.spawn("emulator", command, clean_environment()))
        processes.wait_until(lambda: answers(processes.port), "the emulator listens")

    def address(self, processes: Processes) -> Address:
        endpoint = f"http://{HOST}:{processes.port}"
        return Address(
            name=self.name,
            endpoint=endpoint,
            url="gs://stowstore",
            root=processes.root,
            environment={"STORAGE_EMULATOR_HOST": endpoint, "GOOGLE_CLOUD_PROJECT": "stowstore"},
            extra={"project": "stowstore"},
        )

    def probe(self, address: Address) -> str:
        name = address.url.removeprefix("gs://")
        buckets = f"{address.endpoint}/storage/v1/b"
        listed = json.loads(_request("GET", f"{buckets}?project={address.extra['project']}"))
        if name not in [bucket["name"] for bucket in listed.get("items", [])]:
            body = json.dumps({"name": name}).encode()
            _request("POST", f"{buckets}?project={address.extra['project']}", body, "application/json")
        sent = uuid.uuid4().bytes
        upload = f"{address.endpoint}/upload/storage/v1/b/{name}/o?uploadType=media&name=probe"
        _request("POST", upload, sent, "application/octet-stream")
        received = _request("GET", f"{buckets}/{name}/o/probe?alt=media")
        _request("DELETE", f"{buckets}/{name}/o/probe")
        if received != sent:
            raise ServerFailed(f"gcs: sent {sent!r}, received {received!r}")
        return f"put, got and deleted an object in bucket {name}"


def _request(method: str, url: str, body: bytes | None = None, content_type: str = "") -> bytes:
    headers = {"Content-Type": content_type} if content_type else {}
    request = urllib.request.Request(url, body, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as response:
        data: bytes = response.read()
    return data
