"""Structured events, silent until the application listens.

A library must not print.  Events go to structlog when the application has configured it, otherwise to the standard
logger ``stowstore`` as ``extra``-free key=value text, where a null handler keeps them quiet.  Values that look like
secrets, and the queries of URLs, are masked before either sees them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, cast

import structlog
from structlog.typing import FilteringBoundLogger

__all__ = ["LOGGER_NAME", "get_logger", "listening", "redact"]

LOGGER_NAME = "stowstore"

_SECRET_NAME = re.compile(
    r"secret|password|passphrase|token|signature|authorization|credential|connection_string|(^|_)key$", re.IGNORECASE
)
#: An object's key is a name, not a secret.
_PLAIN_NAMES = frozenset({"key", "source_key"})
_URL_SECRETS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?P<user>[^/@\s]*:[^/@\s]*@)?(?P<rest>[^?\s]*)(?P<query>\?\S*)?", re.IGNORECASE
)

logging.getLogger(LOGGER_NAME).addHandler(logging.NullHandler())


def get_logger(**context: Any) -> FilteringBoundLogger:
    """A logger bound to a context; cheap to call, safe to keep."""
    logger = structlog.wrap_logger(
        _Silent(), wrapper_class=structlog.make_filtering_bound_logger(0), processors=[_deliver], **context
    )
    return cast(FilteringBoundLogger, logger)


def listening() -> bool:
    """Whether anybody hears debug events: worth asking before building many of them."""
    return structlog.is_configured() or logging.getLogger(LOGGER_NAME).isEnabledFor(logging.DEBUG)


def redact(values: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with the values of secret names and the credentials in URLs masked."""
    return {name: _masked(name, value) for name, value in values.items()}


class _Silent:
    """What structlog hands rendered events to when a processor has dealt with them already: nobody."""


def _deliver(_: Any, method: str, event: MutableMapping[str, Any]) -> Any:
    clean = redact(event)
    text = clean.pop("event", "")
    if structlog.is_configured():
        getattr(structlog.get_logger(LOGGER_NAME), method)(text, **clean)
    else:
        level = logging.getLevelName(method.upper())
        logger = logging.getLogger(LOGGER_NAME)
        if logger.isEnabledFor(level):
            logger.log(level, "%s %s", text, " ".join(f"{name}={value!r}" for name, value in clean.items()))
    raise structlog.DropEvent


def _masked(name: str, value: Any) -> Any:
    if name not in _PLAIN_NAMES and _SECRET_NAME.search(name):
        return "***"
    if isinstance(value, Mapping):
        return redact(value)
    if isinstance(value, str) and "://" in value:
        return _URL_SECRETS.sub(_mask_url, value)
    return value


def _mask_url(match: re.Match[str]) -> str:
    user = "***@" if match["user"] else ""
    query = "?***" if match["query"] else ""
    return f"{match['scheme']}{user}{match['rest']}{query}"
