"""Real servers for tests, benchmarks and demonstrations, provided by the project itself.

    from tests.servers import radosgw

    with radosgw.start() as server:
        server.endpoint, server.access_key, server.secret_key

Nothing here needs root, a container or a configured service: packages from Debian, PyPI and npm are unpacked into
`$STOWSTORE_SERVERS` (default `~/.cache/stowstore/servers`), each server runs in a directory of its own with free
ports on 127.0.0.1, and ends with the process that started it. On a command line: `python -m tests.servers --help`.
"""

from tests.servers.azure import Azurite
from tests.servers.browser import Chromium
from tests.servers.ceph import RadosGateway
from tests.servers.flyte_sdk import FlyteSdk
from tests.servers.google import StorageEmulator
from tests.servers.kind import Kind, quiet
from tests.servers.model import Address, Identity, ServerError, ServerFailed, ServerUnavailable
from tests.servers.openstack import Swift
from tests.servers.programs import Bubblewrap, PostgreSQL, Tools
from tests.servers.prometheus_server import Prometheus, Promtool
from tests.servers.provided import Provided
from tests.servers.redis_server import RedisServer
from tests.servers.server import Server

__all__ = [
    "KINDS",
    "PROVIDED",
    "Address",
    "Chromium",
    "Identity",
    "Kind",
    "Provided",
    "Server",
    "ServerError",
    "ServerFailed",
    "ServerUnavailable",
    "Tools",
    "azurite",
    "bubblewrap",
    "chromium",
    "flyte",
    "gcs",
    "postgresql",
    "prometheus",
    "promtool",
    "quiet",
    "radosgw",
    "redis",
    "swift",
    "tools",
]

radosgw = RadosGateway()
azurite = Azurite()
swift = Swift()
redis = RedisServer()
gcs = StorageEmulator()
prometheus = Prometheus()
promtool = Promtool(prometheus)
bubblewrap = Bubblewrap()
postgresql = PostgreSQL()
tools = Tools()
chromium = Chromium()
flyte = FlyteSdk()

#: Every kind of server by its name.
KINDS: dict[str, Kind] = {kind.name: kind for kind in (radosgw, azurite, swift, redis, gcs, prometheus)}

#: The same and what else is installed for tests, by name.
PROVIDED: dict[str, Provided] = {
    **KINDS,
    **{one.name: one for one in (bubblewrap, chromium, flyte, postgresql, tools)},
}
