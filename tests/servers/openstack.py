"""OpenStack Swift with its S3 API: a second S3 implementation and signer, and the `sw` kind itself.

A proxy with one account, container and object server, from PyPI packages: no memcached, no syslog, no /etc/swift.
`access_key` and `secret_key` are the S3 keys and the Swift login at `extra["auth_url"]`; `stranger` belongs to the
same account and has no rights in it. `extra` has `auth_url`, `temp_url_key`, `region`, and `other_user` with
`other_key`, who owns an account of their own. Each request costs the server milliseconds: keep suites small.

Not as other S3 servers do: creating only what does not exist is not atomic (several of 16 may win), `If-Match` on
writes is 501, another account's bucket does not exist rather than being forbidden.
"""

import json
import os
import pwd
import urllib.request
import uuid
from pathlib import Path
from typing import ClassVar

from tests.servers.installing import missing_venv, python_key, runs, venv_install
from tests.servers.kind import Kind
from tests.servers.model import Address, Identity, ServerFailed
from tests.servers.processes import HOST, Processes, answers, clean_environment

__all__ = ["Swift"]

_VERSION = "2.38.3"
_ERASURE_CODES = "1.8.0"
_TEMP_URL_KEY = "tempurlkey"
_OWNER = Identity(access_key="test:tester", secret_key="testing")
_STRANGER = Identity(access_key="test:reader", secret_key="reading")
_OTHER = Identity(access_key="test2:tester2", secret_key="testing2")
#: What runs in Swift's interpreter instead of ours; the only folder of this project that Swift sees.
_INSIDE = Path(__file__).parent / "inside_swift"
_BACKENDS = ("object", "container", "account")

_COMMON = """\
[swift-hash]
swift_hash_path_prefix = stowstore
swift_hash_path_suffix = stowstore
[storage-policy:0]
name = gold
default = yes
[swift-constraints]
max_file_size = 5368709122
"""

_BACKEND = """\
[DEFAULT]
bind_ip = {host}
bind_port = {port}
user = {user}
swift_dir = {etc}
devices = {root}/srv
mount_check = false
workers = 0
recon_cache_path = {root}/cache
disable_fallocate = true
log_level = WARNING
[pipeline:main]
pipeline = {server}-server
[app:{server}-server]
use = egg:swift#{server}
log_requests = false
"""

# tempurl has to stand before tempauth. The cache is one process's own, hence no workers.
_PROXY = """\
[DEFAULT]
bind_ip = {host}
bind_port = {port}
user = {user}
swift_dir = {etc}
workers = 0
log_level = WARNING
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats tempurl s3api tempauth bulk slo dlo \
versioned_writes symlink proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
paste.filter_factory = memory_cache:filter_factory
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:tempurl]
use = egg:swift#tempurl
methods = GET HEAD PUT POST DELETE
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = no
check_bucket_owner = no
max_upload_part_num = 10000
min_segment_size = 5242880
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {owner} .admin
user_test_reader = {stranger}
user_test2_tester2 = {other} .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
[filter:symlink]
use = egg:swift#symlink
"""


class Swift(Kind):
    """OpenStack Swift with one device and one replica."""

    name: ClassVar[str] = "swift"
    summary: ClassVar[str] = "Swift, and S3 over it: OpenStack Swift, on disk"
    port_offsets: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)

    def available(self) -> str | None:
        return missing_venv()

    def key(self) -> str:
        return f"{_VERSION}-pyeclib-{_ERASURE_CODES}-{python_key()}"

    def build(self, folder: Path) -> None:
        venv_install([f"swift=={_VERSION}", f"pyeclib=={_ERASURE_CODES}"], folder)

    def works(self, folder: Path) -> bool:
        return runs([folder / "bin/python", "-c", "import swift, pyeclib"], clean_environment())

    def prepare(self, processes: Processes) -> None:
        root = processes.root
        etc = root / "etc"
        for directory in (etc, root / "cache", root / "srv" / "disk"):
            directory.mkdir(parents=True)
        (etc / "swift.conf").write_text(_COMMON)
        common = {"host": HOST, "etc": etc, "root": root, "user": pwd.getpwuid(os.getuid()).pw_name}
        proxy, *backends = processes.ports
        for server, port in zip(_BACKENDS, backends, strict=True):
            (etc / f"{server}.conf").write_text(_BACKEND.format(server=server, port=port, **common))
        secrets = {"owner": _OWNER.secret_key, "stranger": _STRANGER.secret_key, "other": _OTHER.secret_key}
        (etc / "proxy.conf").write_text(_PROXY.format(port=proxy, **common, **secrets))
        rings = [f"{server}={port}" for server, port in zip(_BACKENDS, backends, strict=True)]
        python = self.folder / "bin/python"
        processes.run([python, _INSIDE / "build_rings.py", HOST, etc, *rings], environment=clean_environment())

    def serve(self, processes: Processes) -> None:
        python = self.folder / "bin/python"
        environment = clean_environment(PYTHONPATH=str(_INSIDE), PYTHONWARNINGS="ignore")
        for server in (*_BACKENDS, "proxy"):
            program = self.folder / "bin" / f"swift-{server}-server"
            command: list[str | Path] = [python, program, processes.root / "etc" / f"{server}.conf", "-v"]
            processes.serving.append(processes.spawn(server, command, environment))
        # the proxy is ready before those behind it
        processes.wait_until(lambda: all(map(answers, processes.ports)), "all four servers listen")
        if not (processes.root / "temp_url_key").exists():
            token, account = _log_in(f"http://{HOST}:{processes.port}/auth/v1.0")
            _request("POST", account, token, {"X-Account-Meta-Temp-URL-Key": _TEMP_URL_KEY})
            (processes.root / "temp_url_key").touch()

    def address(self, processes: Processes) -> Address:
        endpoint = f"http://{HOST}:{processes.port}"
        return Address(
            name=self.name,
            endpoint=endpoint,
            url="sw://stowstore",
            root=processes.root,
            owner=_OWNER,
            stranger=_STRANGER,
            environment={
                "ST_AUTH": f"{endpoint}/auth/v1.0",
                "ST_USER": _OWNER.access_key,
                "ST_KEY": _OWNER.secret_key,
            },
            extra={
                "auth_url": f"{endpoint}/auth/v1.0",
                "temp_url_key": _TEMP_URL_KEY,
                "region": "us-east-1",
                "other_user": _OTHER.access_key,
                "other_key": _OTHER.secret_key,
            },
        )

    def probe(self, address: Address) -> str:
        token, account = _log_in(address.extra["auth_url"])
        container = f"{account}/{address.url.removeprefix('sw://')}"
        _request("PUT", container, token)
        sent = json.dumps(str(uuid.uuid4())).encode()
        _request("PUT", f"{container}/probe", token, body=sent)
        received = _request("GET", f"{container}/probe", token)
        _request("DELETE", f"{container}/probe", token)
        if received != sent:
            raise ServerFailed(f"swift: sent {sent!r}, received {received!r}")
        return f"put, got and deleted an object in {container}"


def _log_in(auth_url: str) -> tuple[str, str]:
    """Returns a token and the URL of the owner's account."""
    login = {"X-Auth-User": _OWNER.access_key, "X-Auth-Key": _OWNER.secret_key}
    with urllib.request.urlopen(urllib.request.Request(auth_url, headers=login), timeout=30) as response:
        return response.headers["X-Auth-Token"], response.headers["X-Storage-Url"]


def _request(
    method: str, url: str, token: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> bytes:
    request = urllib.request.Request(url, body, {"X-Auth-Token": token, **(headers or {})}, method=method)
    with urllib.request.urlopen(request, timeout=30) as response:
        data: bytes = response.read()
    return data
