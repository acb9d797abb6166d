"""A server is there when it is said to be, and leaves nothing behind however it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers import KINDS, Kind, Server, ServerFailed, azurite, radosgw, redis
from tests.servers_test.conftest import descendants, sockets_of, wait_for_end

Provided = Callable[[Kind], Kind]


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_server_does_real_work_and_leaves_nothing(name: str, provided: Provided) -> None:
    """After a put and a get, stopping ends every process, closes every socket and removes the directory."""
    kind = provided(KINDS[name])
    with kind.start() as server:
        kind.probe(server.address)
        first = urllib.parse.urlsplit(server.endpoint).port
        ports = [first + offset for offset in kind.port_offsets] if first else []
        running = descendants(server.keeper)
        assert running
        assert sockets_of(server.root, ports)

    wait_for_end([server.keeper, *running], seconds=0)
    assert sockets_of(server.root, ports) == []
    assert not server.root.exists()
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_restart_keeps_the_place(name: str, provided: Provided) -> None:
    """A restarted server answers at the same address, with what it was given still usable."""
    kind = provided(KINDS[name])
    with kind.start() as server:
        kind.probe(server.address)
        server.restart()
        kind.probe(server.address)


def test_stopping_twice_is_stopping_once(provided: Provided) -> None:
    """Stopping a stopped server does nothing."""
    server = provided(redis).start()
    server.stop()
    server.stop()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_ends_with_its_user(number: signal.Signals, provided: Provided) -> None:
    """A server whose user is killed stops by itself and removes its directory."""
    provided(redis)
    program = (
        "import json, signal; from tests.servers import redis; server = redis.start();"
        "print(json.dumps([str(server.root), server.keeper]), flush=True); signal.pause()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        name, keeper = json.loads(user.stdout.readline())
        running = descendants(keeper)
        assert running
        user.send_signal(number)
    wait_for_end([*running, keeper])
    assert not Path(name).exists()


def test_a_server_ends_with_its_keeper(provided: Provided, tmp_path_factory: pytest.TempPathFactory) -> None:
    """When even the keeper is killed, the kernel ends the server's processes."""
    server = provided(redis).start()
    running = descendants(server.keeper)
    try:
        os.kill(server.keeper, signal.SIGKILL)
        wait_for_end(running)
    finally:
        server.stop()
        for leftover in server.root.iterdir():
            leftover.unlink()
        server.root.rmdir()


def test_a_server_that_ends_at_once_shows_its_log(provided: Provided, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that fails says which process ended, with what, and shows what it logged."""
    kind = provided(azurite)
    monkeypatch.setenv("NODE_OPTIONS", "--no-such-option")
    with pytest.raises(ServerFailed, match=r"azurite: azurite ended with 9 (.|\n)*--no-such-option"):
        Server.start(kind.name, root=None, port=None, watch=os.getpid())


def test_a_taken_port_is_refused(provided: Provided) -> None:
    """A port given that another server listens on is named in the error."""
    kind = provided(KINDS["gcs"])
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ServerFailed, match=rf"gcs: .*port {port} .*taken"):
            kind.start(port=port)


def test_a_port_is_refused_where_there_is_none(provided: Provided) -> None:
    """A port given to a server without TCP is an error rather than ignored."""
    with pytest.raises(ServerFailed, match=r"redis: .*no use for port 6379"):
        provided(redis).start(port=6379)


def test_a_given_root_stays_and_is_used_again(provided: Provided, short_path: Path) -> None:
    """A directory given is kept when the server stops, and the next server starts empty in it."""
    kind = provided(redis)
    root = short_path / "redis"
    with kind.start(root=root) as server:
        (root / "from-before").touch()
    assert server.root == root
    assert (root / "redis.log").exists()
    assert not (root / "redis.sock").exists()
    with kind.start(root=root):
        assert not (root / "from-before").exists()


def test_somebody_elses_directory_is_refused(provided: Provided, short_path: Path) -> None:
    """A directory that holds anything else is neither used nor erased."""
    (short_path / "thesis.tex").touch()
    with pytest.raises(ServerFailed, match="neither empty nor left by an earlier server"):
        provided(redis).start(root=short_path)
    assert (short_path / "thesis.tex").exists()


def test_a_root_too_long_for_sockets_is_refused(provided: Provided, tmp_path: Path) -> None:
    """A directory whose sockets would not fit the kernel's limit is refused before anything starts."""
    with pytest.raises(ServerFailed, match="at most 60 characters"):
        provided(redis).start(root=tmp_path / ("x" * 80))


def test_pause_stalls_and_resume_goes_on(provided: Provided) -> None:
    """A paused server accepts connections and says nothing; resumed, it answers what was asked meanwhile."""
    with provided(redis).start() as server, socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server.extra["socket"])
        server.pause()
        connection.sendall(b"PING\r\n")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(100)
        server.resume()
        connection.settimeout(30)
        assert connection.recv(100) == b"+PONG\r\n"


def test_a_paused_server_can_be_stopped(provided: Provided) -> None:
    """Stopping does not wait for a process that is frozen."""
    with provided(radosgw).start() as server:
        server.pause()
        running = descendants(server.keeper)
    wait_for_end(running, seconds=0)


def test_a_crashed_server_can_be_started_again(provided: Provided) -> None:
    """A server whose process died by itself is started again as one that was stopped is."""
    kind = provided(redis)
    with kind.start() as server:
        crashed = descendants(server.keeper)
        for process in crashed:
            os.kill(process, signal.SIGKILL)
        wait_for_end(crashed)
        server.start_gateway()
        assert set(descendants(server.keeper)).isdisjoint(crashed)
        kind.probe(server.address)


def test_secrets_stay_out_of_the_representation(radosgw: Server) -> None:
    """Neither a server nor its address shows a secret in an assertion's output."""
    for shown in (repr(radosgw), repr(radosgw.owner), str(radosgw.owner)):
        assert radosgw.secret_key not in shown
