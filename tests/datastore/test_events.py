"""Events: silent until somebody listens, structured, and without secrets."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.processors import LogfmtRenderer
from structlog.testing import LogCapture

from datastore.events import get_logger, listening, redact


@pytest.fixture
def configured() -> Iterator[LogCapture]:
    """An application that has configured structlog."""
    capture = LogCapture()
    structlog.configure(processors=[capture])
    yield capture
    structlog.reset_defaults()


def test_silent_by_default(capfd: pytest.CaptureFixture[str]) -> None:
    """Without configuration nothing is printed, not even errors."""
    get_logger(location="main").error("storage.retry", attempt=1)

    assert ("", "") == capfd.readouterr()
    assert not listening()


def test_standard_logging(caplog: pytest.LogCaptureFixture) -> None:
    """The standard logger gets one line of key=value text an event, the event first."""
    caplog.set_level(logging.INFO, logger="stowstore")
    log = get_logger(location="main").bind(kind="s3")

    log.debug("storage.operation", op="read")
    log.warning("storage.retry", attempt=2)

    assert ["event=storage.retry location=main kind=s3 attempt=2"] == caplog.messages


@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text(' ="\\\\\n%aé'))
def test_values_are_written_as_structlog_writes_them(value: object) -> None:
    """Without structlog's configuration a line is what its renderer for logfmt would make of it."""
    rendered = LogfmtRenderer(key_order=["event"], bool_as_flag=False)(None, "", {"note": value, "event": "done"})
    heard: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = heard.append  # type: ignore[method-assign]
    logging.getLogger("stowstore").addHandler(handler)
    try:
        get_logger().warning("done", note=value)
    finally:
        logging.getLogger("stowstore").removeHandler(handler)

    assert [rendered] == [record.getMessage() for record in heard]


def test_structlog_is_not_loaded_for_an_event() -> None:
    """Whoever has not loaded structlog does without it: its import costs more than a command."""
    said = "import sys, logging; logging.basicConfig(); from datastore.events import get_logger"
    said += "; get_logger().error('failed', code=1); sys.exit('structlog' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=False)

    assert (0, "ERROR:stowstore:event=failed code=1\n") == (done.returncode, done.stderr)


def test_structlog_of_the_application(configured: LogCapture) -> None:
    """An application's structlog configuration gets the values themselves, with the context."""
    get_logger(location="main").info("storage.operation", size=5)

    assert listening()
    assert [{"event": "storage.operation", "log_level": "info", "location": "main", "size": 5}] == configured.entries


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("key", "a/b", "a/b"),
        ("size", 5, 5),
        ("secret_key", "hush", "***"),
        ("password", "hush", "***"),
        ("session_token", "hush", "***"),
        ("account_key", "hush", "***"),
        ("url", "https://h/k?X-Amz-Signature=hush", "https://h/k?***"),
        ("error", "GET https://user:hush@h/k?sig=hush failed", "GET https://***@h/k?*** failed"),
        ("options", {"secret_key": "hush", "region": "r"}, {"secret_key": "***", "region": "r"}),
    ],
)
def test_secrets_are_masked(configured: LogCapture, name: str, value: object, shown: object) -> None:
    """Values of secret names and credentials in URLs never leave; the rest does."""
    get_logger().info("event", **{name: value})

    assert shown == configured.entries[0][name]
    assert "hush" not in repr(redact({name: value}))


def test_an_import_under_way_in_another_thread_is_no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first lines of structlog's import and its last an event finds an unfinished module."""
    monkeypatch.setitem(sys.modules, "structlog", ModuleType("structlog"))
    assert not listening()
