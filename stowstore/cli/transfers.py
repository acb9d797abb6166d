"""Many transfers at once: a bounded pool of threads, progress on standard error, and every failure told."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import click
from attrs import define, field

from datastore.errors import StoreError
from stowstore.cli.output import size_text

__all__ = ["Job", "Outcome", "parallel_option", "run_jobs", "status_line", "step_line"]

parallel_option = click.option(
    "-j", "--parallel", type=click.IntRange(1, 256), default=16, show_default=True, help="Transfers at the same time."
)


@define
class Job:
    """One transfer: what it is called, and what does it and returns how many bytes it moved."""

    name: str
    act: Callable[[], int]


@define
class Outcome:
    """What a run of jobs did."""

    done: int = 0
    moved: int = 0
    failures: list[tuple[str, BaseException]] = field(factory=list)

    def finish(self, verb: str, *, as_json: bool) -> None:
        """Tells the result on standard error or as JSON; leaves with status 1 if one of several failed.

        What was asked for alone fails with its own error, and so with the status of that.
        """
        if not self.done and len(self.failures) == 1:
            raise self.failures[0][1]
        if as_json:
            from stowstore.cli.output import echo_json

            errors = [{"name": name, "error": str(error)} for name, error in self.failures]
            echo_json({"done": self.done, "bytes": self.moved, "failed": errors})
        else:
            for name, error in self.failures:
                click.echo(f"stowstore: {name}: {error}", err=True)
            click.echo(f"{verb} {self.done} objects, {size_text(self.moved)}", err=True)
        if self.failures:
            if not as_json:
                click.echo(f"{len(self.failures)} failed", err=True)
            raise SystemExit(1)


def run_jobs(jobs: Iterable[Job], parallel: int, verb: str) -> Outcome:
    """Runs jobs as they come, ``parallel`` at a time; one that fails does not stop the others.

    No more than twice as many as run are taken from the iterator ahead, so a listing of millions stays a stream.
    """
    outcome = Outcome()
    with _progress(verb) as advance, ThreadPoolExecutor(parallel, thread_name_prefix="stow-transfer") as pool:
        waiting: dict[Future[int], Job] = {}
        try:
            for job in jobs:
                if len(waiting) >= 2 * parallel:
                    _collect(waiting, outcome, advance)
                waiting[pool.submit(contextvars.copy_context().run, job.act)] = job
            while waiting:
                _collect(waiting, outcome, advance)
        except BaseException:
            # What has not begun never will: an interrupted command must not go on for minutes.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return outcome


def _collect(waiting: dict[Future[int], Job], outcome: Outcome, advance: Callable[[int, int], None]) -> None:
    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
        job = waiting.pop(future)
        try:
            outcome.moved += future.result()
            outcome.done += 1
        except (StoreError, OSError, ValueError) as error:
            outcome.failures.append((job.name, error))
        advance(outcome.done, outcome.moved)


@contextmanager
def status_line(first: str) -> Iterator[Callable[[str], None]]:
    """A line of text that changes while something runs, where somebody sees it; gone when it ends."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(first)
        yield lambda text: bar.update(task, description=text)


@contextmanager
def _progress(verb: str) -> Iterator[Callable[[int, int], None]]:
    """A line that shows how far a run is."""
    with status_line(verb) as say:
        yield lambda done, moved: say(f"{verb}: {done} objects, {size_text(moved)}")


@contextmanager
def step_line(first: str) -> Iterator[Callable[[str, int, int], None]]:
    """Shows the steps of long work."""
    with status_line(first) as say:
        yield lambda step, done, total: say(f"{step}: {done} of {total}")
