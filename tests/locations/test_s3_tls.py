"""TLS: certificates are checked by both ways requests go, against the authorities that are named."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from datastore.context import cancellable, deadline
from datastore.errors import Cancelled, ConfigError, DeadlineExceeded, StoreError
from tests.faulty_http import FaultyProxy, Stall
from tests.locations.s3_buckets import dial, dial_server, fresh_bucket, get, keys_of, put
from tests.servers import Server


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 that nobody but itself vouches for, with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    leaf = ["-addext", "basicConstraints=critical,CA:FALSE"]
    outputs = ["-keyout", f"{file}.key", "-out", f"{file}.crt"]
    subprocess.run([*make.split(), *leaf, *outputs], check=True, capture_output=True)
    file.write_text(Path(f"{file}.key").read_text() + Path(f"{file}.crt").read_text())
    return file


@pytest.fixture
def proxy(radosgw: Server, certificate: Path) -> Iterator[FaultyProxy]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with FaultyProxy(radosgw.endpoint, tls=context) as found:
        yield found


@pytest.fixture
def bucket(radosgw: Server) -> Iterator[str]:
    with fresh_bucket(radosgw) as name:
        yield name


@pytest.mark.filterwarnings("ignore:Unverified HTTPS")
@pytest.mark.parametrize("way", ["ca_bundle", "insecure_tls"])
def test_a_named_authority_is_trusted(
    radosgw: Server, proxy: FaultyProxy, certificate: Path, bucket: str, way: str
) -> None:
    """Everything works over TLS, with unsigned bodies, since TLS protects them."""
    options = {"ca_bundle": f"{certificate}.crt"} if way == "ca_bundle" else {"insecure_tls": "true"}
    location = dial_server(radosgw, proxy.endpoint, **options)
    container = location.container(bucket)
    for key in ("plain", "odd//key", "large"):
        data = b"x" * (9 << 20 if key == "large" else 9)
        put(container, key, data)
        assert get(container, key) == data
    assert keys_of(container) == ["large", "odd//key", "plain"]
    assert location.has_container(bucket)
    location.close()
    digests = {request.headers["x-amz-content-sha256"] for request in proxy.requests if request.method == "PUT"}
    assert digests == {"UNSIGNED-PAYLOAD"}


def test_a_stranger_is_not_trusted(radosgw: Server, proxy: FaultyProxy, bucket: str) -> None:
    """Nothing is sent to a server whose certificate cannot be checked."""
    location = dial_server(radosgw, proxy.endpoint)
    with pytest.raises(StoreError):
        put(location.container(bucket), "plain")
    with pytest.raises(ConfigError, match="ca_bundle"):
        put(location.container(bucket), "odd//key")
    location.close()
    assert proxy.requests == []


def test_a_request_over_tls_can_be_stopped(radosgw: Server, proxy: FaultyProxy, certificate: Path, bucket: str) -> None:
    """Deadlines and tokens end a request over TLS as they do without."""
    location = dial_server(radosgw, proxy.endpoint, ca_bundle=f"{certificate}.crt")
    container = location.container(bucket)
    put(container, "k", b"x" * (1 << 20))
    for fault in (Stall(), Stall(after=1000)):
        began = time.monotonic()
        proxy.break_next(fault, fault, method="GET")
        with pytest.raises(DeadlineExceeded), deadline(1.0):
            get(container, "k")
        with cancellable() as token:
            threading.Timer(0.5, token.cancel).start()
            with pytest.raises(Cancelled):
                get(container, "k")
        assert time.monotonic() - began < 30
    location.close()


def test_a_bundle_without_certificates_is_refused(tmp_path: Path) -> None:
    """A file that is no bundle is an error when dialling, not a failed handshake later."""
    (tmp_path / "ca.pem").write_text("nothing of the kind")
    with pytest.raises(ConfigError, match="ca_bundle"):
        dial(access_key_id="a", secret_key="b", ca_bundle=str(tmp_path / "ca.pem"))
