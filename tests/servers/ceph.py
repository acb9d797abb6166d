"""Ceph's object gateway: the S3 API in full, with races, signatures and errors as they should be.

One monitor, one object store in memory and the gateway, from unpacked Debian packages: no root, no systemd, no
keyrings, no manager daemon. Stopping the gateway alone keeps the data. `extra` has `region`.

Not as the service does: a quoted ETag in `If-Match` never matches on writes, a SHA-256 checksum is accepted and not
returned, creating one's own bucket again is a success. Lifecycle rules are accepted and not carried out. A request to
delete many that names one key twice may end the gateway with a segmentation fault.
"""

import io
import textwrap
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from tests.servers.installing import missing_debian, runs, system_key, unpack_debian
from tests.servers.kind import Kind
from tests.servers.model import Address, Identity, ServerFailed
from tests.servers.processes import HOST, Processes, answers, unpacked_environment

__all__ = ["RadosGateway"]

_PACKAGES = ("radosgw", "ceph-mon", "ceph-osd", "ceph-common")
_OWNER = Identity(access_key="testkey", secret_key="testsecret")
_STRANGER = Identity(access_key="strangerkey", secret_key="strangersecret")
#: Bytes of object data the store may hold; memory is taken as it fills.
_CAPACITY = 8 << 30
#: A monitor refuses some clients (EPERM) in its first second.
_ATTEMPTS = 5


class RadosGateway(Kind):
    """Ceph radosgw over one in-memory OSD."""

    name: ClassVar[str] = "radosgw"
    summary: ClassVar[str] = "S3: Ceph's object gateway over an object store in memory"
    port_offsets: ClassVar[tuple[int, ...]] = (0, 10)
    # a gateway that is killed instead is waited for by its successor's first new bucket, see the configuration
    patience: ClassVar[float] = 20

    def available(self) -> str | None:
        return missing_debian()

    def key(self) -> str:
        return system_key()

    def build(self, folder: Path) -> None:
        unpack_debian(_PACKAGES, folder)

    def works(self, folder: Path) -> bool:
        programs = [folder / "usr/bin" / name for name in ("radosgw", "ceph-mon", "ceph-osd")]
        return all(runs([program, "--version"], unpacked_environment(folder, "ceph")) for program in programs)

    def prepare(self, processes: Processes) -> None:
        root = processes.root
        for folder in ("mon", "osd", "rgw", "run"):
            (root / folder).mkdir()
        (root / "keyring").touch()
        cluster = str(uuid.uuid4())
        (root / "ceph.conf").write_text(_configuration(self.folder, processes, cluster))
        self._start_monitor(processes, cluster)
        self._start_osd(processes)

    def serve(self, processes: Processes) -> None:
        gateway = processes.spawn(
            "rgw", [self._program("radosgw"), "-f", "-n", "client.rgw"], self._environment(processes)
        )
        processes.serving.append(gateway)
        processes.wait_until(lambda: answers(processes.port), "the gateway listens")
        if not (processes.root / "users").exists():
            self._create_users(processes)

    def address(self, processes: Processes) -> Address:
        endpoint = f"http://{HOST}:{processes.port}"
        return Address(
            name=self.name,
            endpoint=endpoint,
            url="s3://stowstore",
            root=processes.root,
            owner=_OWNER,
            stranger=_STRANGER,
            environment={
                "AWS_ACCESS_KEY_ID": _OWNER.access_key,
                "AWS_SECRET_ACCESS_KEY": _OWNER.secret_key,
                "AWS_ENDPOINT_URL": endpoint,
                "AWS_REGION": "us-east-1",
                "AWS_ALLOW_HTTP": "true",
            },
            extra={"region": "us-east-1"},
        )

    def probe(self, address: Address) -> str:
        from minio import Minio

        client = Minio(
            address.endpoint.removeprefix("http://"),
            access_key=_OWNER.access_key,
            secret_key=_OWNER.secret_key,
            region=address.extra["region"],
            secure=False,
        )
        bucket = address.url.removeprefix("s3://")
        if not client.bucket_exists(bucket):
            client.make_bucket(bucket)
        sent = uuid.uuid4().bytes
        client.put_object(bucket, "probe", io.BytesIO(sent), len(sent))
        response = client.get_object(bucket, "probe")
        try:
            received = response.read()
        finally:
            response.close()
            response.release_conn()
        client.remove_object(bucket, "probe")
        if received != sent:
            raise ServerFailed(f"radosgw: sent {sent!r}, received {received!r}")
        return f"put, got and deleted an object in bucket {bucket}"

    def _start_monitor(self, processes: Processes, cluster: str) -> None:
        environment = self._environment(processes)
        root = processes.root
        monitor = f"[v1:{HOST}:{processes.ports[1]}]"
        map_ = root / "monmap"
        processes.run(
            [self._program("monmaptool"), "--create", "--addv", "a", monitor, "--fsid", cluster, map_],
            environment=environment,
        )
        processes.run(
            [self._program("ceph-mon"), "--mkfs", "-i", "a", "--monmap", map_, "--keyring", root / "keyring"],
            environment=environment,
        )
        processes.background.append(processes.spawn("mon", [self._program("ceph-mon"), "-i", "a", "-f"], environment))

    def _start_osd(self, processes: Processes) -> None:
        environment = self._environment(processes)
        identity = str(uuid.uuid4())
        program = self._program("ceph-osd")
        _insist(lambda: processes.run([*self._ceph(), "osd", "new", identity], environment=environment))
        processes.run(
            [program, "-i", "0", "--mkfs", "--osd-uuid", identity, "--no-mon-config"], environment=environment
        )

        def start() -> None:
            osd = processes.spawn("osd", [program, "-i", "0", "-f"], environment)
            processes.background.append(osd)
            try:
                processes.wait_until(lambda: self._osd_is_up(processes), "the object store is up", limit=20)
            except ServerFailed:
                processes.end(osd)
                raise

        _insist(start)

    def _osd_is_up(self, processes: Processes) -> bool:
        status = processes.output([*self._ceph(), "osd", "stat", "-f", "json"], self._environment(processes))
        return b'"num_up_osds":1' in status

    def _create_users(self, processes: Processes) -> None:
        create: list[str | Path] = [self._program("radosgw-admin"), "user", "create"]
        processes.run(
            [*create, "--uid=owner", "--display-name=owner", *_keys(_OWNER)],
            # a user whose quota of buckets is negative may not make any
            [*create, "--uid=stranger", "--display-name=stranger", "--max-buckets=-1", *_keys(_STRANGER)],
            environment=self._environment(processes),
        )
        (processes.root / "users").touch()

    def _program(self, name: str) -> Path:
        return self.folder / "usr/bin" / name

    def _ceph(self) -> list[str | Path]:
        # Debian's own interpreter, for which the unpacked bindings are built; unpacked too where the system has none
        unpacked = self._program("python3")
        python = unpacked if unpacked.exists() else Path("/usr/bin/python3")
        return [python, self._program("ceph"), "--connect-timeout=30"]

    def _environment(self, processes: Processes) -> dict[str, str]:
        return {**unpacked_environment(self.folder, "ceph"), "CEPH_CONF": str(processes.root / "ceph.conf")}


def _insist(attempt: Callable[[], None]) -> None:
    """Tries what a young monitor may refuse until it works, raising the last failure."""
    for _number in range(_ATTEMPTS - 1):
        try:
            return attempt()
        except ServerFailed:
            time.sleep(0.2)
    return attempt()


def _keys(identity: Identity) -> list[str]:
    return [f"--access-key={identity.access_key}", f"--secret-key={identity.secret_key}"]


def _configuration(tree: Path, processes: Processes, cluster: str) -> str:
    root = processes.root
    (libraries,) = (tree / "usr/lib").glob("*-linux-gnu")
    return textwrap.dedent(f"""\
        [global]
        fsid = {cluster}
        mon_host = v1:{HOST}:{processes.ports[1]}
        public_addr = {HOST}
        cluster_addr = {HOST}
        ms_bind_msgr2 = false
        auth_cluster_required = none
        auth_service_required = none
        auth_client_required = none
        keyring = {root}/keyring

        # One replica and one placement group: a start is bound by the epochs of the map.
        osd_pool_default_size = 1
        osd_pool_default_min_size = 1
        mon_allow_pool_size_one = true
        osd_pool_default_pg_num = 1
        osd_pool_default_pgp_num = 1
        osd_pool_default_pg_autoscale_mode = off
        osd_crush_chooseleaf_type = 0
        mon_max_pg_per_osd = 1000

        # The default interval of a second makes a start take 12 s instead of 2.
        paxos_propose_interval = 0.05
        paxos_min_wait = 0.01
        mon_tick_interval = 1
        mon_cluster_log_to_file = false

        # A new bucket is announced to every gateway, also to one that was killed until it has been silent this long.
        osd_client_watch_timeout = 3
        client_notify_timeout = 3

        osd_objectstore = memstore
        memstore_device_bytes = {_CAPACITY}
        osd_class_update_on_start = false
        osd_class_load_list = *
        osd_class_default_list = *

        # The packages are unpacked, not installed.
        erasure_code_dir = {libraries}/ceph/erasure-code
        plugin_dir = {libraries}/ceph
        osd_class_dir = {libraries}/rados-classes
        run_dir = {root}/run
        admin_socket = {root}/run/$cluster-$name.asok
        log_file = {root}/$name.ceph.log
        pid_file = {root}/$name.pid
        crash_dir = {root}
        mon_data = {root}/mon
        osd_data = {root}/osd
        rgw_data = {root}/rgw

        # Without tcp_nodelay a small GET waits 40 ms for a delayed acknowledgement.
        rgw_frontends = beast endpoint={HOST}:{processes.port} tcp_nodelay=1
        # Expiry rules are nobody's test here, and their thread makes a stop soon after a start wait 5 s.
        rgw_enable_lc_threads = false
        rgw_enable_usage_log = false
        rgw_s3_auth_use_keystone = false
        rgw_crypt_require_ssl = false
        """)
