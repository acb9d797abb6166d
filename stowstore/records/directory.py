"""Record directories on the local disk: format 1, as machinable writes them."""

from __future__ import annotations

import json
import os
import secrets
import string
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from stowstore.records.errors import InvalidRecord
from stowstore.records.identity import identity_key, predicate_key
from stowstore.records.model import Edge, RecordHeader, check_uuid
from stowstore.records.paths import check_path

__all__ = ["EDGE_LOG", "MARKER", "RecordDirectory", "RunState", "new_uuid", "parse_edges", "run_state"]

#: What makes a directory a record; it holds the uuid.
MARKER: Final = ".machinable"
#: The edges of a record, one JSON object a line; copies of a record are merged as sets of lines.
EDGE_LOG: Final = "related/metadata.jsonl"

_HEADER: Final = "id.json"
_MODEL: Final = "model.json"
_UPDATED: Final = "updated_at"
_DIGITS: Final = string.digits + string.ascii_letters
#: Bytes of a model that a manifest repeats; more is a file like any other.
_LARGEST_MODEL: Final = 256 << 10
#: A heartbeat older than this, in seconds, is one of a run that died.
_HEARTBEAT_SECONDS: Final = 90.0


class RunState(StrEnum):
    """What the markers in a run record say of the run."""

    NONE = "none"
    PENDING = "pending"
    LIVE = "live"
    DIED = "died"
    FINISHED = "finished"


def new_uuid() -> str:
    """A fresh uuid: 12 characters of base 62."""
    return "".join(secrets.choice(_DIGITS) for _ in range(12))


@frozen
class RecordDirectory:
    """A record on the local disk: where it is, and its identity."""

    path: Path = field(converter=Path)
    header: RecordHeader = field()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RecordDirectory:
        """Reads the identity of the record in a directory.

        Raises:
            InvalidRecord: it holds none, or what it holds contradicts itself.
        """
        where = Path(path)
        try:
            marker = (where / MARKER).read_text(encoding="utf-8").strip()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InvalidRecord(
                f"{where} is no record: it has no {MARKER}", hint="name the directory of one record"
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRecord(f"{where}: {MARKER} cannot be read: {error}") from error
        try:
            header = RecordHeader.from_data(_load_json(where / _HEADER))
        except InvalidRecord as error:
            raise InvalidRecord(f"{where}: {error.message}", hint=error.hint) from error
        model = _load_json(where / _MODEL)
        named = model.get("uuid") if isinstance(model, dict) else None
        if marker != header.uuid or (named is not None and named != header.uuid):
            raise InvalidRecord(
                f"{where} is corrupt: its files name different records ({marker}, {header.uuid}, {named})",
                hint="restore it from a copy",
            )
        return cls(where, header)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        module: str | None = None,
        config: Mapping[str, Any] | None = None,
        predicate: Mapping[str, Any] | None = None,
        kind: str = "Interface",
        label: str | None = None,
        parent: str | None = None,
        uuid: str | None = None,
    ) -> RecordDirectory:
        """Makes the directory of a new record, for programs that do without machinable.

        Raises:
            InvalidRecord: there is a record already.
        """
        where = Path(path)
        if (where / MARKER).exists():
            raise InvalidRecord(f"{where} is a record already", hint="open it, or choose another directory")
        header = RecordHeader(
            uuid=uuid or new_uuid(),
            kind=kind,
            identity_key=identity_key(module, config or {}),
            predicate_key=predicate_key(predicate or {}),
            parent=parent,
        )
        model: dict[str, Any] = {
            "uuid": header.uuid,
            "kind": kind,
            "module": module,
            "config": dict(config or {}),
            "version": [],
            "predicate": dict(predicate or {}),
            "inherits": [],
            "context": [],
            "created_at_ns": time.time_ns(),
            "created_by": None,
            "label": label,
        }
        where.mkdir(parents=True, exist_ok=True)
        (where / _HEADER).write_text(json.dumps(header.to_data()), encoding="utf-8")
        (where / _MODEL).write_text(json.dumps(model), encoding="utf-8")
        record = cls(where, header)
        record.touch()
        # Its presence makes the directory a record, so it comes last.
        (where / MARKER).write_text(header.uuid, encoding="utf-8")
        return record

    @property
    def uuid(self) -> str:
        return self.header.uuid

    @property
    def updated_at(self) -> str:
        """The time of the last change through an interface of the record, as it wrote it; "" without any."""
        try:
            return (self.path / _UPDATED).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def model(self) -> dict[str, Any]:
        """What ``model.json`` says; empty for a missing or very large one."""
        path = self.path / _MODEL
        if not path.is_file() or path.stat().st_size > _LARGEST_MODEL:
            return {}
        data = _load_json(path)
        return data if isinstance(data, dict) else {}

    def edges(self) -> tuple[Edge, ...]:
        """Its edge log."""
        try:
            return parse_edges((self.path / EDGE_LOG).read_bytes())
        except FileNotFoundError:
            return ()

    def place(self) -> str | None:
        """Where it lies in the directory of the record its header names as parent; None if it does not."""
        if self.header.parent is None:
            return None
        here = Path(os.path.abspath(self.path))
        for above in here.parents:
            marker = above / MARKER
            if marker.is_file():
                if marker.read_text(encoding="utf-8").strip() != self.header.parent:
                    return None
                return here.relative_to(above).as_posix()
        return None

    def relate(self, name: str, other: RecordDirectory, *, fn: str = "uses", inverse_fn: str = "used_by") -> None:
        """Adds an edge to the logs of both ends: this record ``fn`` the other one."""
        for record, function, inverse in ((self, fn, False), (other, inverse_fn, True)):
            line = {
                "name": name,
                "uuid": self.uuid,
                "related_uuid": other.uuid,
                "fn": function,
                "inverse": inverse,
                "multiple": True,
                "cached": True,
            }
            log = record.path / EDGE_LOG
            log.parent.mkdir(exist_ok=True)
            with log.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, sort_keys=True) + "\n")
            record.touch()

    def file(self, path: str) -> Path:
        """Where a file of the record lies.

        Raises:
            InvalidRecord: the path leads out of it.
        """
        return self.path / check_path(path)

    def touch(self) -> None:
        """Says that the record has changed."""
        (self.path / _UPDATED).write_text(datetime.now(UTC).isoformat(), encoding="utf-8")


def parse_edges(raw: bytes) -> tuple[Edge, ...]:
    """The edges in a log, each once, in order; lines that are none, such as a last one cut short, are left out."""
    found: dict[Edge, None] = {}
    for line in raw.splitlines():
        try:
            data = json.loads(line)
            edge = Edge(
                str(data["name"]), check_uuid(data["uuid"]), check_uuid(data["related_uuid"]), str(data.get("fn") or "")
            )
        except (ValueError, KeyError, TypeError):
            continue
        found[edge] = None
    return tuple(found)


def run_state(markers: Mapping[str, str], now: datetime | None = None) -> RunState:
    """The state of a run, of the contents of its markers ``dispatched_at``, ``started_at`` and so on."""
    if "finished_at" in markers:
        return RunState.FINISHED
    if "started_at" not in markers:
        return RunState.PENDING if "dispatched_at" in markers else RunState.NONE
    last = max(_times(markers.get(name, "") for name in ("heartbeat_at", "resumed_at", "started_at")), default=None)
    age = None if last is None else ((now or datetime.now(UTC)) - last).total_seconds()
    return RunState.LIVE if age is not None and age <= _HEARTBEAT_SECONDS else RunState.DIED


def _times(texts: Iterable[str]) -> Iterable[datetime]:
    for text in texts:
        for line in text.split("\n"):
            try:
                found = datetime.fromisoformat(line.strip())
            except ValueError:
                continue
            yield found if found.tzinfo else found.replace(tzinfo=UTC)


def _load_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidRecord(f"{path} cannot be read: {error}", hint="restore it from a copy") from error
