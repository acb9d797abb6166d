"""``stowstore demo``: the store at work, on local disk or any store, told step by step."""

from __future__ import annotations

import hashlib
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from uuid import uuid4

import click

from datastore.errors import AlreadyExists, NotSupported
from datastore.model import Cursor, Feature, SignedURLProperties, WriteOptions
from datastore.reference import DataReference
from metrics import generate_text
from stowstore.cli.opening import Opener
from stowstore.cli.output import size_text, timed
from stowstore.cli.transfers import Job, run_jobs
from stowstore.store import StowStore, open_store

__all__ = ["demo"]

_SMALL_OBJECTS = 200
_LARGE_BYTES = 32 << 20


@click.command()
@click.option(
    "--store", "store_url", metavar="URL", help="Store to work in; local disk in a temporary directory by default."
)
@click.option("--keep", is_flag=True, help="Leave what was written where it is.")
@click.option("--mount", "mounts", is_flag=True, help="Also mount a volume and work in it, where this machine can.")
@click.pass_obj
def demo(opener: Opener, store_url: str | None, keep: bool, mounts: bool) -> None:
    """Write, list, read, copy, sign and measure real objects, keep versions of a source tree, and tell what happened.

    \b
    Examples:
      stowstore demo --mount
      stowstore demo --store "s3://demo?endpoint=http://127.0.0.1:9000&access_key_id=...&secret_key_path=..."
    """
    with ExitStack() as stack, opener.limits():
        if store_url is not None:
            store = stack.enter_context(open_store(store_url))
        elif opener.configured:
            store = opener.store(None, create=True)
        else:
            directory = tempfile.mkdtemp(prefix="stowstore-demo-")
            if not keep:
                stack.callback(_remove_tree, directory)
            store = stack.enter_context(open_store(f"file://{directory}/main"))
        _run(store, keep=keep)
    if mounts:
        from stowstore.cli.demo_mount import demonstrate_mount

        demonstrate_mount()


def _run(store: StowStore, *, keep: bool) -> None:
    base = store.base_container_fqn.join(f"demo-{uuid4().hex[:8]}")
    began = perf_counter()
    _say(f"Store      {store!r}, working below {base}")
    features = ", ".join(sorted(feature.value for feature in store.capabilities().features))
    _say(f"Able to    {features}")
    try:
        for step in (_one_object, _many_objects, _large_object, _conditions, _copy, _signed_url, _volumes):
            step(store, base)
    finally:
        if not keep:
            _clean(store, base)
    _metrics()
    _say(f"Done in {perf_counter() - began:.1f} s.")


def _one_object(store: StowStore, base: DataReference) -> None:
    ref = base.join("reports", "größe & co?.txt")
    written = timed(lambda: store.write_bytes(ref, b"hello, store\n", WriteOptions(metadata=_if(store, owner="demo"))))
    _say(f"Wrote      {ref}: {written[0].size} bytes in {written[1]}")
    found = store.head(ref)
    _say(f"Head       size {found.size}, etag {found.etag}, metadata {dict(found.user_metadata)}")
    _say(f"Read       {store.read_bytes(ref)!r}; its last five bytes {store.read_bytes(ref, -6)!r}")
    _say(f"Missing    {base.join('nothing')}: exists is {store.head(base.join('nothing')).exists}")


def _many_objects(store: StowStore, base: DataReference) -> None:
    content = bytes(range(256)) * 16
    refs = [base.join("small", f"{number:05d}.bin") for number in range(_SMALL_OBJECTS)]
    jobs = (Job(str(ref), _Write(store, ref, content)) for ref in refs)
    outcome, spent = timed(lambda: run_jobs(jobs, 16, "writing"))
    if outcome.failures:
        raise outcome.failures[0][1]
    _say(f"Wrote      {outcome.done} objects of 4 KiB with 16 threads in {spent}")
    pages = 0
    found: list[DataReference] = []
    cursor = Cursor.at_start()
    while not cursor.is_at_end:
        page, cursor = store.list(base.join("small"), 50, cursor, directory=True)
        pages += 1
        found += page
    _say(f"Listed     {len(found)} of them in {pages} pages, ascending: {found == sorted(refs)}")


def _large_object(store: StowStore, base: DataReference) -> None:
    block = hashlib.sha256(b"stow").digest() * 32768
    ref = base.join("large.bin")
    pieces = (block for _ in range(_LARGE_BYTES // len(block)))
    _, spent = timed(lambda: store.write_raw(ref, None, None, pieces))
    _say(f"Streamed   {size_text(_LARGE_BYTES)} of unknown size into {ref.name} in {spent}")

    def read() -> int:
        with store.read_raw(ref) as stream:
            return sum(len(piece) for piece in stream)

    size, spent = timed(read)
    _say(f"Read back  {size_text(size)} in {spent}")
    _say(f"Range      16 bytes at 1 MiB: {store.read_bytes(ref, 1 << 20, 16).hex()}")


def _conditions(store: StowStore, base: DataReference) -> None:
    if Feature.CREATE_IF_ABSENT not in store.capabilities():
        _say("Conditions this store cannot create only if absent")
        return
    ref = base.join("lock")
    store.write_bytes(ref, b"first", WriteOptions(if_absent=True))
    try:
        store.write_bytes(ref, b"second", WriteOptions(if_absent=True))
    except AlreadyExists:
        _say(f"Refused    to create {ref.name} twice; it still holds {store.read_bytes(ref)!r}")


def _copy(store: StowStore, base: DataReference) -> None:
    copied, spent = timed(lambda: store.copy_raw(base.join("large.bin"), base.join("copies", "large.bin")))
    how = "on the server" if Feature.SERVER_SIDE_COPY in store.capabilities() else "through here"
    _say(f"Copied     {size_text(copied.size)} {how} in {spent}")


def _signed_url(store: StowStore, base: DataReference) -> None:
    try:
        signed = store.create_signed_url(base.join("lock"), SignedURLProperties(expires_in=60))
    except NotSupported as error:
        _say(f"Signing    {error.message}")
        return
    if signed.url.startswith(("http://", "https://")):
        with urllib.request.urlopen(signed.url, timeout=30) as answer:
            _say(f"Signed     {signed!r}: anybody may GET it for a minute; it answered {answer.read()!r}")


def _volumes(store: StowStore, base: DataReference) -> None:
    try:
        from stowstore.cli.demo_volumes import demonstrate
    except ModuleNotFoundError as error:
        _say(f"Volumes    need the package {error.name}: pip install 'stowstore[volumes]'")
        return
    demonstrate(store, base.join("volumes"))


def _metrics() -> None:
    lines = [
        line
        for line in generate_text().splitlines()
        if line.startswith(
            ("stow_operations_total", "stow_transferred_bytes_total", "stow_operation_duration_seconds_sum")
        )
        and not line.endswith(" 0.0")
    ]
    _say("Measured   (an excerpt; `stowstore metrics` lists every name)")
    for line in lines:
        click.echo(f"           {line}")


def _clean(store: StowStore, base: DataReference) -> None:
    removed = 0
    refs = [entry.reference for entry in store.walk(base, directory=True)]
    failed = store.delete_many(refs)
    removed = len(refs) - len(failed)
    _say(f"Removed    {removed} objects")


def _if(store: StowStore, **metadata: str) -> dict[str, str]:
    return metadata if Feature.USER_METADATA in store.capabilities() else {}


class _Write:
    def __init__(self, store: StowStore, ref: DataReference, content: bytes) -> None:
        self._store, self._ref, self._content = store, ref, content

    def __call__(self) -> int:
        return self._store.write_bytes(self._ref, self._content).size


def _remove_tree(directory: str) -> None:
    import shutil

    shutil.rmtree(Path(directory))


def _say(text: str) -> None:
    click.echo(text)
