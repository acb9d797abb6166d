"""Azurite: Azure blobs with signatures, SAS, blocks and conditional puts that are really checked.

`access_key` is the account and `secret_key` its key, both Azurite's own well-known ones. `extra` has `account` and
`connection_string`. Data lie on disk, so a restart keeps them.

Not as the service does: a wrong Content-MD5 is `InvalidOperation` rather than `Md5Mismatch`; there is one account
with one key, so no stranger: sign with a wrong key, or with a SAS that allows less.
"""

import uuid
from pathlib import Path
from typing import ClassVar

from tests.servers.installing import missing_node, npm_install, runs, system_key
from tests.servers.kind import Kind
from tests.servers.model import Address, Identity, ServerFailed
from tests.servers.processes import HOST, Processes, answers, clean_environment

__all__ = ["Azurite"]

_VERSION = "3.35.0"
_PROGRAM = "node_modules/azurite/dist/src/blob/main.js"
_OWNER = Identity(
    access_key="devstoreaccount1",
    secret_key="Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
)


class Azurite(Kind):
    """Azurite's blob service."""

    name: ClassVar[str] = "azurite"
    summary: ClassVar[str] = "Azure blobs: Azurite, on disk"

    def available(self) -> str | None:
        return missing_node()

    def key(self) -> str:
        return f"{_VERSION}-{system_key()}"

    def build(self, folder: Path) -> None:
        npm_install(f"azurite@{_VERSION}", folder)

    def works(self, folder: Path) -> bool:
        # asking Azurite itself for its version takes a second
        return (folder / _PROGRAM).is_file() and runs(["node", "--version"])

    def serve(self, processes: Processes) -> None:
        command: list[str | Path] = [
            "node",
            self.folder / _PROGRAM,
            "--silent",
            "--skipApiVersionCheck",
            "--disableTelemetry",
        ]
        command += ["--blobHost", HOST, "--blobPort", str(processes.port), "--location", processes.root / "data"]
        processes.serving.append(processes.spawn("azurite", command, clean_environment()))
        processes.wait_until(lambda: answers(processes.port), "Azurite listens")

    def address(self, processes: Processes) -> Address:
        account = _OWNER.access_key
        endpoint = f"http://{HOST}:{processes.port}/{account}"
        connection = (
            f"DefaultEndpointsProtocol=http;AccountName={account};AccountKey={_OWNER.secret_key};"
            f"BlobEndpoint={endpoint};"
        )
        return Address(
            name=self.name,
            endpoint=endpoint,
            url="abfs://stowstore",
            root=processes.root,
            owner=_OWNER,
            environment={
                "AZURE_STORAGE_ACCOUNT": account,
                "AZURE_STORAGE_KEY": _OWNER.secret_key,
                "AZURE_STORAGE_CONNECTION_STRING": connection,
                "AZURE_STORAGE_ENDPOINT": endpoint,
            },
            extra={"account": account, "connection_string": connection},
        )

    def probe(self, address: Address) -> str:
        from libcloud.storage.drivers.azure_blobs import AzureBlobsStorageDriver
        from libcloud.storage.types import ContainerDoesNotExistError

        host, _, port = address.endpoint.removeprefix("http://").partition("/")[0].partition(":")
        driver = AzureBlobsStorageDriver(
            key=_OWNER.access_key, secret=_OWNER.secret_key, host=host, port=int(port), secure=False
        )
        name = address.url.removeprefix("abfs://")
        try:
            container = driver.get_container(name)
        except ContainerDoesNotExistError:
            container = driver.create_container(name)
        sent = uuid.uuid4().bytes
        blob = driver.upload_object_via_stream(iter([sent]), container, "probe")
        received = b"".join(driver.download_object_as_stream(blob))
        driver.delete_object(blob)
        if received != sent:
            raise ServerFailed(f"azurite: sent {sent!r}, received {received!r}")
        return f"put, got and deleted a blob in container {name}"
