"""Volumes as arguments and results of tasks: what travels, what is published, and what a failed task leaves."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import enum
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import pydantic
import pytest

from datastore.errors import ConfigError
from stowstore import ROVolume, RWVolume, Volume
from stowstore.interop.tasks import Leftovers, Role, from_wire, published, running, task, to_data, to_wire, volume_field
from stowstore.versions.errors import LeaseHeld
from stowstore.volumes import current_producer
from stowstore.volumes.registry import registry


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Result:
    """A result with fields of many types."""

    data: Volume
    more: list[RWVolume | ROVolume] = dataclasses.field(default_factory=list)
    named: dict[str, ROVolume] = dataclasses.field(default_factory=dict)
    maybe: ROVolume | None = None
    when: dt.date = dt.date(2026, 1, 2)
    where: Path = Path("/a")
    colour: Colour = Colour.RED


@dataclasses.dataclass
class Output:
    data: ROVolume = volume_field(ROVolume)  # noqa: RUF009 - it is a field
    more: ROVolume | None = volume_field(ROVolume, default=None, metadata={"unit": "none"})  # noqa: RUF009


@attrs.frozen(kw_only=True)
class Measured:
    data: Volume
    inner: Result


class Model(pydantic.BaseModel):
    data: Volume
    inner: Result | None = None
    deep: dict[str, list[Volume]] = {}


class Pair(NamedTuple):
    left: Volume
    right: int


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Journals of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    registry.close_all()


@pytest.fixture
def root(tmp_path: Path) -> str:
    return f"file://{tmp_path}/root"


def _written(root: str, name: str, text: str = "text") -> RWVolume:
    volume = Volume.new(name, root)
    volume.blocking.open().write_text("file", text)
    return volume


def _half(volume: RWVolume) -> None:
    volume.blocking.open().write_text("file", "half")
    raise ZeroDivisionError


def _version(root: str, name: str) -> ROVolume:
    return _written(root, name).blocking.finalize()


SHAPES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "itself": (lambda volume: volume, Volume),
    "list": (lambda volume: [volume, volume], list[Volume]),
    "tuple": (lambda volume: (volume, 3), tuple[Volume, int]),
    "mapping": (lambda volume: {"a": {"b": [volume]}}, dict[str, dict[str, list[Volume]]]),
    "named tuple": (lambda volume: Pair(volume, 4), Pair),
    "dataclass": (lambda volume: Result(data=volume, more=[volume]), Result),
    "attrs": (lambda volume: Measured(data=volume, inner=Result(data=volume)), Measured),
    "pydantic": (lambda volume: Model(data=volume, inner=Result(data=volume), deep={"a": [volume]}), Model),
    "choice": (lambda volume: [volume, None], list[RWVolume | ROVolume | None]),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_published_and_travels(root: str, shape: str) -> None:
    """A working copy anywhere in a result is published once, and the same shape comes back with the version in it."""
    build, expected = SHAPES[shape]
    with running("r1"):
        data = to_wire(build(_written(root, "data")))

    version = Volume.blocking.from_locator(str(registry.last_locator(_key(root, "data"))))
    assert build(version) == from_wire(json.loads(json.dumps(data)), expected)
    assert "r1" == version.produced_by
    assert "text" == version.files.read_text("file")
    assert 1 == len(version.blocking.log())


def _key(root: str, name: str) -> Any:
    return Volume.new(name, root)._key()


def test_what_holds_no_working_copy_is_returned_as_it_is(root: str) -> None:
    """Neither versions nor plain values are copied or changed."""
    version = _version(root, "data")
    value = {"a": [version, 1], "b": Result(data=version)}
    assert published(value) is value


def test_the_value_itself_is_left_alone(root: str) -> None:
    """Publishing makes another value: the one that was given still holds its working copy."""
    volume = _written(root, "data")
    given = Model(data=volume, deep={"a": [volume]})
    found = published(given)
    assert isinstance(found.data, ROVolume)
    assert found.data is found.deep["a"][0]
    assert given.data is volume is given.deep["a"][0]


class TestPublishing:
    """What a returned working copy becomes."""

    def test_closed_before_it_is_returned(self, root: str, tmp_path: Path) -> None:
        """What a closed volume has in its journal is published, wherever that lies."""
        volume = Volume.new("data", root)
        volume.blocking.open(meta_dir=tmp_path / "elsewhere").write_text("file", "kept")
        volume.blocking.close()
        assert "kept" == published(volume).files.read_text("file")

    def test_committed_and_unchanged(self, root: str) -> None:
        """Where nothing has changed since a commit, that version is returned, and the volume closed."""
        volume = _written(root, "data")
        committed = volume.blocking.commit("mine")
        assert committed == published(volume)
        assert registry.find(volume._key()) is None

    def test_finalized_already(self, root: str) -> None:
        """A volume that was finalized is the version it became."""
        volume = _written(root, "data")
        assert volume.blocking.finalize("mine") == published(volume)

    def test_never_opened(self, root: str) -> None:
        """A fork that nobody wrote is the version it was forked from, under its own name."""
        fork = _version(root, "data").blocking.fork("fork")
        found = published(fork)
        assert ("fork", "text") == (found.name, found.files.read_text("file"))

    def test_merged_into(self, root: str) -> None:
        """A fork that took in another one is the merge, though nobody has it open."""
        base = _version(root, "data")
        ours, theirs = base.blocking.fork("ours"), base.blocking.fork("theirs")
        for volume in (ours, theirs):
            with volume.blocking as files:
                files.write_text(volume.name, "new")
                volume.blocking.commit()
        merged = ours.blocking.merge(theirs).version
        assert merged == published(ours)
        assert merged.locator == ours.locator

    def test_open_for_reading_only(self, root: str, tmp_path: Path) -> None:
        """It is the version that was read; what this process has left in a journal before is published all the same."""
        volume = _written(root, "data")
        committed = volume.blocking.commit("mine")
        volume.blocking.close()
        volume.blocking.open(read_only=True)
        assert committed == published(volume)
        assert registry.find(volume._key()) is None

        volume.blocking.open(meta_dir=tmp_path / "meta").write_text("file", "kept")
        volume.blocking.close()
        volume.blocking.open(read_only=True)
        assert "kept" == published(volume).files.read_text("file")

    def test_never_made(self, root: str) -> None:
        """A volume that was only declared is made, empty."""
        assert [] == published(Volume.new("data", root)).files.listdir("/")

    def test_the_message(self, root: str) -> None:
        """What is published carries the message that was given."""
        assert "made by hand" == published(_written(root, "data"), "made by hand").message

    def test_what_contains_itself_is_refused_first(self, root: str) -> None:
        """A value without an end is refused before anything is published."""
        volume = _written(root, "data")
        endless: list[Any] = [volume]
        endless.append(endless)
        with pytest.raises(ConfigError, match="contains itself"):
            to_wire(endless)
        assert volume.locator is None

    def test_what_cannot_travel_is_refused_first(self, root: str) -> None:
        """A result that is no data is refused before anything is published."""
        volume = _written(root, "data")
        with pytest.raises(ConfigError, match="does not travel"):
            to_wire([volume, object()])
        assert volume.locator is None


class TestData:
    """Plain data of values, and back."""

    def test_nothing_is_published(self, root: str) -> None:
        """A declaration travels as it is, to be written where it arrives."""
        volume = Volume.new("data", root)
        assert volume == from_wire(to_data(volume), RWVolume)
        assert volume.locator is None

    def test_without_types_the_volumes_are_found(self, root: str) -> None:
        """Plain data without a type have their volumes in them."""
        version = _version(root, "data")
        assert {"a": [version, 1]} == from_wire(to_data({"a": (version, 1)}))

    @pytest.mark.parametrize(
        ("data", "expected", "message"),
        [
            ({"x": 3}, dict[str, Volume], "JSON object, not int @ value\\['x'\\]"),
            ({"data": {"name": "a"}}, Result, "'bucket' of the volume is missing @ value.data"),
            ({}, Result, "required field missing @ value.data"),
            ({"data": 4}, Model, "no Model"),
            ("text", ROVolume, "JSON object, not str"),
            (["a"], list[RWVolume | ROVolume], "JSON object, not str @ value\\[0\\]"),
            ({"data": {"name": "a", "bucket": "file:///r", "root": "x"}}, Result, "no 'root'"),
            ("nonsense", int, "no int"),
            (5, list[int], "no list"),
            ([1], Pair, "a list of 2 items"),
            (5, object, "no object"),
        ],
    )
    def test_what_is_something_else(self, data: Any, expected: Any, message: str) -> None:
        """Data of another type are an error that names the field and what is wrong with it."""
        with pytest.raises(ConfigError, match=message):
            from_wire(data, expected)

    def test_the_contract_of_the_argument(self, root: str) -> None:
        """A version is no working copy for a task that asks for one; as a result it is what the copy became."""
        data = to_wire([_written(root, "data")])
        with pytest.raises(ConfigError, match="fork a version"):
            from_wire(data, list[RWVolume])
        assert isinstance(from_wire(data, list[RWVolume], Role.RESULT)[0], ROVolume)

    @pytest.mark.parametrize("value", [float("nan"), {1, object()}, lambda: 0, b"\xff".decode("latin1").encode])
    def test_what_is_no_data(self, value: Any) -> None:
        """What JSON cannot hold is refused."""
        with pytest.raises(ConfigError, match="does not travel"):
            to_data(value)


class TestScope:
    """What becomes of the volumes of a task."""

    def test_a_failed_task_publishes_nothing_and_lets_go(self, root: str) -> None:
        """A task that fails gives its lease back, publishes nothing, and the next attempt begins afresh."""
        version = _version(root, "data")
        volume = Volume.blocking.at(f"{root}#data")
        with pytest.raises(ZeroDivisionError), running("first"):
            _half(volume)

        assert registry.find(volume._key()) is None
        with volume.blocking as files:
            assert "text" == files.read_text("file")
        assert [version] == [entry.version for entry in version.blocking.log()]

    @pytest.mark.parametrize("leftovers", Leftovers)
    def test_changes_that_were_closed(self, root: str, leftovers: Leftovers) -> None:
        """What a failed task has closed without a commit is gone with the task, or kept in its journal."""
        _version(root, "data")
        volume = Volume.blocking.at(f"{root}#data")

        def body() -> None:
            with volume.blocking:
                _half(volume)

        with pytest.raises(ZeroDivisionError), running(leftovers=leftovers):
            body()
        with volume.blocking as files:
            assert ("half" if leftovers is Leftovers.KEEP else "text") == files.read_text("file")

    def test_what_was_open_before_stays(self, root: str) -> None:
        """A volume that the caller has open is the caller's, also when the task used it."""
        volume = _written(root, "data")
        with running("inner"):
            volume.blocking.open().write_text("more", "of it")
        assert "of it" == volume.files.read_text("more")

    def test_what_is_not_returned_is_closed(self, root: str) -> None:
        """A task that succeeds without returning its volume has not published it, and holds no lease."""
        with running("r") as scope:
            volume = _written(root, "data")
        assert (volume,) == scope.volumes
        assert registry.find(volume._key()) is None
        assert volume.locator is None

    def test_the_producer(self, root: str) -> None:
        """The producer may be asked for, is that of the innermost task, and of nobody afterwards."""
        with running(lambda: {"run": "r"}):
            assert {"run": "r"} == current_producer()
            with running("inner"):
                assert "inner" == current_producer()
            with running():
                assert {"run": "r"} == current_producer()
        assert current_producer() is None

    def test_an_error_of_closing_does_not_hide_the_task_s(self, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error of the task is what its caller sees, with a note; without one, that of closing is."""

        def fail(self: Any, **how: Any) -> None:
            raise LeaseHeld("somebody has it")

        @task
        def body(name: str) -> None:
            volume = _written(root, name)
            monkeypatch.setattr(type(volume.blocking), "close", fail)
            if name == "bad":
                raise ZeroDivisionError("the task's own")

        with pytest.raises(ZeroDivisionError, match="the task's own") as caught:
            body("bad")
        assert "somebody has it" in caught.value.__notes__[0]
        with pytest.raises(LeaseHeld, match="somebody has it"):
            body("good")


class TestDecorator:
    """`task` around functions."""

    def test_a_function(self, root: str) -> None:
        """What a function returns is published, under its name."""

        @task
        def make(name: str) -> Any:
            return {"data": _written(root, name)}

        version = make("data")["data"]
        assert isinstance(version, ROVolume)
        assert version.produced_by == f"{__name__}.TestDecorator.test_a_function.<locals>.make"

    def test_coroutines_side_by_side(self, root: str) -> None:
        """Tasks of one loop keep their producers and their volumes apart, and one that fails closes its own alone."""

        async def main() -> list[Any]:
            ready = asyncio.Event()

            @task(producer=current_name, message="said")
            async def make(name: str) -> Volume:
                volume = Volume.new(name, root)
                files = await volume.open()
                files.write_text("file", name)
                if name == "bad":
                    ready.set()
                    raise ZeroDivisionError
                await ready.wait()
                return volume

            return await asyncio.gather(*(make(name) for name in ("a", "b", "bad")), return_exceptions=True)

        def current_name() -> dict[str, str]:
            task = asyncio.current_task()
            return {"task": "one" if task is None else "two"}

        first, second, failed = asyncio.run(main())
        assert [("a", "said"), ("b", "said")] == [(one.files.read_text("file"), one.message) for one in (first, second)]
        assert isinstance(failed, ZeroDivisionError)
        assert registry.find(_key(root, "bad")) is None
        with pytest.raises(FileNotFoundError):
            Volume.blocking.at(f"{root}#bad")

    def test_a_cancelled_coroutine(self, root: str) -> None:
        """A task that is cancelled gives its lease back before its caller hears of it."""

        @task
        async def make() -> Volume:
            volume = Volume.new("data", root)
            (await volume.open()).write_text("file", "half")
            await asyncio.sleep(100)
            return volume

        async def main() -> None:
            running_task = asyncio.ensure_future(make())
            while registry.find(_key(root, "data")) is None:
                await asyncio.sleep(0.01)
            running_task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running_task
            assert registry.find(_key(root, "data")) is None

        asyncio.run(main())


def test_a_field_of_a_dataclass_for_mashumaro(root: str) -> None:
    """A field says how its volume is written and read, in the words that mashumaro looks for in its metadata."""

    version = _version(root, "data")
    field, more = dataclasses.fields(Output)
    assert version == field.metadata["deserialize"](field.metadata["serialize"](version))
    assert "none" == more.metadata["unit"]
    assert Output(data=version) == from_wire(to_data(Output(data=version)), Output)
