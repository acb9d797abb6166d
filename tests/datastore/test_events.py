"""Events: silent until somebody listens, structured, and without secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import structlog
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
