"""Structured events, silent until the application listens.

A library must not print.  Events go through structlog to the application's own configuration where there is one,
otherwise as key=value text (logfmt) to the standard logger ``stowstore``, where a null handler keeps them quiet.
Values that look like secrets, and the credentials in URLs, are masked before either sees them.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["LOGGER_NAME", "EventLogger", "get_logger", "listening", "redact"]

LOGGER_NAME: Final = "stowstore"

_SECRET_NAME = re.compile(
    r"secret|password|passphrase|token|signature|authorization|credential|connection_string|(^|_)key$", re.IGNORECASE
)
#: An object's key is a name, not a secret.
_PLAIN_NAMES = frozenset({"key", "source_key"})
_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/@\s]*:[^/@\s]*@)?(?P<rest>[^?\s]*)(?P<query>\?\S*)?", re.IGNORECASE
)

_standard = logging.getLogger(LOGGER_NAME)
_standard.addHandler(logging.NullHandler())


class EventLogger:
    """Logs events with a context bound to them; frozen, cheap to make and to keep, thread-safe.

    structlog is used where the application has loaded and configured it, and never imported for its own sake: that
    takes a tenth of a second, a third of what a daemon needs to mount a volume.
    """

    __slots__ = ("_context",)

    def __init__(self, context: Mapping[str, Any]) -> None:
        self._context = dict(context)

    def bind(self, **context: Any) -> EventLogger:
        """A logger with more context."""
        return EventLogger({**self._context, **context})

    def debug(self, event: str, **values: Any) -> None:
        self._log("debug", logging.DEBUG, event, values)

    def info(self, event: str, **values: Any) -> None:
        self._log("info", logging.INFO, event, values)

    def warning(self, event: str, **values: Any) -> None:
        self._log("warning", logging.WARNING, event, values)

    def error(self, event: str, **values: Any) -> None:
        self._log("error", logging.ERROR, event, values)

    def _log(self, method: str, level: int, event: str, values: dict[str, Any]) -> None:
        configured = _structlog_is_configured()
        if not configured and not _standard.isEnabledFor(level):
            return
        values = {**self._context, **values}
        if configured:
            import structlog

            getattr(structlog.get_logger(LOGGER_NAME), method)(event, **redact(values))
        else:
            _standard.log(level, "%s", _logfmt(redact({"event": event, **values})), stacklevel=3)


def get_logger(**context: Any) -> EventLogger:
    """A logger bound to a context."""
    return EventLogger(context)


def listening() -> bool:
    """Whether anybody hears debug events: worth asking before building many of them."""
    return _structlog_is_configured() or _standard.isEnabledFor(logging.DEBUG)


def redact(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with the values of secret names and the credentials in URLs masked."""
    return {name: _masked(name, value) for name, value in values.items()}


def _structlog_is_configured() -> bool:
    # Another thread may be importing it right now: then it is there, unfinished, and nobody has configured it.
    is_configured = getattr(sys.modules.get("structlog"), "is_configured", None)
    return is_configured is not None and bool(is_configured())


def _logfmt(values: Mapping[str, Any]) -> str:
    """Text as structlog's own renderer of this format has it (brandur.org/logfmt)."""
    return " ".join(f"{name}={_as_logfmt(value)}" for name, value in values.items())


def _as_logfmt(value: Any) -> str:
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    is_quoted = any(special in text for special in ' ="')
    if is_quoted:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    text = text.replace("\n", "\\n")
    return f'"{text}"' if is_quoted else text


def _masked(name: str, value: Any) -> Any:
    if name not in _PLAIN_NAMES and _SECRET_NAME.search(name):
        return "***"
    if isinstance(value, Mapping):
        return redact(value)
    if isinstance(value, str) and "://" in value:
        return _URL.sub(_mask_url, value)
    return value


def _mask_url(match: re.Match[str]) -> str:
    user = "***@" if match["user"] else ""
    query = "?***" if match["query"] else ""
    return f"{match['scheme']}{user}{match['rest']}{query}"
