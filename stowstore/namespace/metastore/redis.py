"""A journal in a `redis-server` of the session's own, on a Unix socket; its snapshot and log lie in the directory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from datastore.errors import ConfigError, StoreError
from stowstore.namespace.errors import posix_error

__all__ = ["RedisMetaStore"]

_PROGRAM: Final = "redis-server"
_SNAPSHOT: Final = "journal.rdb"
_LOG: Final = "redis.log"
_RECORDS: Final = "records"
_META: Final = "meta"

#: In front of values, since a hash cannot hold "deleted".
_DELETED: Final = b"\0"
_PRESENT: Final = b"\1"

_BATCH: Final = 1000
_START_SECONDS: Final = 30.0

#: Runs the server until it ends, or until its standard input does: with the session, however that ends.  A death signal
#: of Linux would come with the thread that started it.
_KEEPER: Final = """
exec 3<&0
"$@" 3<&- </dev/null &
server=$!
( read -r _ <&3; kill -9 $server ) &
keeper=$!
exec 3<&-
wait $server
kill $keeper
"""


class RedisMetaStore:
    """Keeps records in the memory of a server that starts and ends with the session; thread-safe.

    `sync` writes a snapshot of everything, and `close` does too: what was applied since the last one is lost when the
    server dies.  Choose it for speed of large batches, and sqlite for cheap fsync.

    Raises:
        ConfigError: redis-server or its client library is missing, or another session uses the directory.
        StoreError: the server does not start; the error has its last words.
    """

    def __init__(self, directory: Path) -> None:
        program = shutil.which(_PROGRAM)
        if program is None:
            raise ConfigError("the metadata store 'redis' needs redis-server", hint="apt-get install redis-server")
        try:
            import redis
        except ImportError as error:
            raise ConfigError(
                "the metadata store 'redis' needs its client library", hint="pip install stowstore[redis]"
            ) from error
        self._redis = redis
        self._directory = directory
        self._lock = threading.Lock()
        self._dirty = False
        self._claim: int | None = _claim(directory)
        # A path of a socket has 107 bytes at most, and meta_dir may be anywhere.
        self._run = Path(tempfile.mkdtemp(prefix="stow-redis-"))
        self._socket = self._run / "s"
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = _start(program, directory, self._socket)
            self._client: Any = redis.Redis(unix_socket_path=str(self._socket), socket_timeout=600)
            self._wait_until_ready()
        except BaseException:
            self._end()
            raise

    @property
    def socket(self) -> Path:
        """Where the server listens, for its owner alone."""
        return self._socket

    @property
    def server_pid(self) -> int:
        """The process of the server."""
        with self._translated():
            found: int = self._client.info("server")["process_id"]
            return found

    def load(self) -> Iterator[tuple[bytes, bytes | None]]:
        with self._translated():
            keys = sorted(self._client.hkeys(_RECORDS))
            for at in range(0, len(keys), _BATCH):
                part = keys[at : at + _BATCH]
                for key, value in zip(part, self._client.hmget(_RECORDS, part), strict=True):
                    yield key, _decoded(value)

    def apply(self, batch: Mapping[bytes, bytes | None]) -> None:
        if batch:
            self._execute(lambda pipeline: _put(pipeline, batch))

    def replace(self, batch: Mapping[bytes, bytes | None], meta: Mapping[str, bytes]) -> None:
        def fill(pipeline: Any) -> None:
            pipeline.delete(_RECORDS)
            _put(pipeline, batch)
            if meta:
                pipeline.hset(_META, mapping=dict(meta))

        self._execute(fill)

    def sync(self) -> None:
        with self._lock, self._translated():
            if self._dirty:
                self._client.save()
                self._dirty = False

    def clear(self) -> None:
        self._execute(lambda pipeline: pipeline.delete(_RECORDS))

    def get_meta(self, name: str) -> bytes | None:
        with self._translated():
            found: bytes | None = self._client.hget(_META, name)
            return found

    def set_meta(self, name: str, value: bytes) -> None:
        self._execute(lambda pipeline: pipeline.hset(_META, name, value))

    def close(self) -> None:
        if self._process is None:
            return
        try:
            self.sync()
        finally:
            self._end()

    def destroy(self) -> None:
        self._end()
        for name in (_SNAPSHOT, _LOG, "redis.lock"):
            (self._directory / name).unlink(missing_ok=True)

    def _execute(self, fill: Callable[[Any], None]) -> None:
        """Runs commands as one transaction: the server does all of them or none."""
        with self._lock, self._translated():
            pipeline = self._client.pipeline(transaction=True)
            fill(pipeline)
            pipeline.execute()
            self._dirty = True

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise StoreError(f"redis-server does not start in {self._directory}: {self._last_words()}")
            # Busy loading is a ResponseError of its own; a missing socket a ConnectionError.
            with contextlib.suppress(self._redis.ConnectionError, self._redis.BusyLoadingError):
                self._client.ping()
                return
            time.sleep(0.01)

    def _last_words(self) -> str:
        try:
            lines = (self._directory / _LOG).read_text(errors="replace").splitlines()
        except OSError:
            return "it has written no log"
        return " / ".join(lines[-3:])

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            if (client := getattr(self, "_client", None)) is not None:
                client.close()
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
        shutil.rmtree(self._run, ignore_errors=True)
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        if self._process is None:
            raise StoreError(f"the journal {self._directory} is closed")
        try:
            yield
        except self._redis.ResponseError as error:
            # It says only that it failed; the reason, such as a full disk, is in its log.
            detail = f"redis-server with its data in {self._directory}: {error}: {self._last_words()}"
            raise posix_error(errno.EIO, detail) from error
        except self._redis.RedisError as error:
            raise StoreError(f"the redis-server of {self._directory} does not answer: {error}") from error


def _put(pipeline: Any, batch: Mapping[bytes, bytes | None]) -> None:
    items = list(batch.items())
    for at in range(0, len(items), _BATCH):
        part = {key: _DELETED if value is None else _PRESENT + value for key, value in items[at : at + _BATCH]}
        pipeline.hset(_RECORDS, mapping=part)


def _decoded(value: bytes) -> bytes | None:
    return None if value == _DELETED else value[1:]


def _start(program: str, directory: Path, socket: Path) -> subprocess.Popen[bytes]:
    settings = {
        "--port": "0",
        "--unixsocket": str(socket),
        "--unixsocketperm": "600",
        "--dir": str(directory),
        "--dbfilename": _SNAPSHOT,
        "--save": "",
        "--appendonly": "no",
        "--logfile": str(directory / _LOG),
        "--daemonize": "no",
        "--stop-writes-on-bgsave-error": "no",
    }
    return subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, "sh", program, *(word for pair in settings.items() for word in pair)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _claim(directory: Path) -> int:
    descriptor = os.open(directory / "redis.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ConfigError(
            f"the journal in {directory} is used by another session", hint="give every session its own meta_dir"
        ) from error
    return descriptor
