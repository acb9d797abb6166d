"""What the record commands share: opened records, the local index, and how records are shown."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from attrs import frozen

from stowstore.cli.opening import Opener, kind_options, option_pairs
from stowstore.cli.output import size_text
from stowstore.cli.transfers import status_line
from stowstore.config import ContainerPolicy
from stowstore.durations import parse_duration
from stowstore.records import DigestCache, RecordIndex, RecordStore, TransferState
from stowstore.records.errors import InvalidRecord
from stowstore.records.model import check_uuid
from stowstore.records.opening import open_records
from stowstore.records.sending_spread import RecordsPlace, Spread
from stowstore.runners import Cluster

__all__ = [
    "Moment",
    "Records",
    "Uuid",
    "dry_run_option",
    "record_command",
    "related_option",
    "skip_missing_option",
    "tell",
    "uuids",
]

_Command = Callable[..., Any]

related_option = click.option(
    "--related",
    type=click.Choice(["none", "direct", "all"]),
    default="none",
    show_default=True,
    help="Which records related to these go along.",
)
skip_missing_option = click.option("--skip-missing", is_flag=True, help="Go on where a record is missing.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would be done.")


class Uuid(click.ParamType[str]):
    """The uuid of a record; what cannot be one is wrong use, not a record that is missing."""

    name = "uuid"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return check_uuid(value)
        except InvalidRecord as error:
            self.fail(f"{error.message}: {error.hint}", param, ctx)


uuids = click.argument("uuids", metavar="UUID...", nargs=-1, required=True, type=Uuid())


class Moment(click.ParamType[datetime]):
    """A moment: ISO 8601 text, or a duration before now, such as 7d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        text = str(value)
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            try:
                return datetime.now(UTC) - timedelta(microseconds=parse_duration(text) / 1e3)
            except ValueError:
                self.fail(f"{text!r} is no time; write 2026-01-31, 2026-01-31T12:00+01:00, or 7d", param, ctx)
        return found.astimezone() if found.tzinfo is None else found


@frozen
class Records:
    """Opens the records of this invocation."""

    options: dict[str, str]
    index_path: Path | None
    parallel: int

    @contextmanager
    def open(
        self,
        root: str,
        *,
        create: bool = False,
        grace: timedelta | None = None,
        indexed: bool = True,
        cluster: Cluster | None = None,
    ) -> Iterator[RecordStore]:
        """The records below a URL, with their local index; progress is shown where somebody sees it."""
        more: dict[str, Any] = {} if grace is None else {"grace": grace}
        with ExitStack() as stack:
            say = stack.enter_context(status_line("looking"))
            index = stack.enter_context(closing(self.index(root))) if indexed else None
            store = open_records(
                root,
                options=self.options,
                containers=ContainerPolicy.IF_MISSING if create and root.startswith("file:") else ContainerPolicy.NEVER,
                parallel=self.parallel,
                cache=DigestCache(),
                index=index,
                progress=lambda state: say(_state_text(state)),
                spread=None if cluster is None else Spread(cluster, RecordsPlace.of(root, self.options)),
                **more,
            )
            yield stack.enter_context(store)

    def index(self, root: str) -> RecordIndex:
        """The index of a root on this machine."""
        path = self.index_path
        if path is None:
            above = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
            name = hashlib.sha256(root.rstrip("/").encode()).hexdigest()[:16]
            path = above / "stowstore" / f"records-{name}.sqlite"
        return RecordIndex(path)


def record_command(command: _Command) -> _Command:
    """Adds what opens records, ``--option``, ``--index`` and ``--parallel``; the command gets them as `Records`."""

    @kind_options
    @click.option(
        "--index",
        "index_path",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="STOWSTORE_RECORDS_INDEX",
        help="The local index; one a root in the cache directory without it.",
    )
    @click.option(
        "-j", "--parallel", type=click.IntRange(1, 256), default=16, show_default=True, help="Files at the same time."
    )
    @click.pass_obj
    @functools.wraps(command)
    def run(
        opener: Opener, /, *args: Any, options: tuple[str, ...], index_path: Path | None, parallel: int, **more: Any
    ) -> Any:
        with opener.limits():
            return command(Records({**opener.options, **option_pairs(options)}, index_path, parallel), *args, **more)

    return run


def tell(text: str) -> None:
    """A line for whoever watches."""
    click.echo(text, err=True)
    sys.stderr.flush()


def _state_text(state: TransferState) -> str:
    return (
        f"{state.uuid}: {state.files} of {state.total_files} files, "
        f"{size_text(state.bytes)} of {size_text(state.total_bytes)}"
    )
