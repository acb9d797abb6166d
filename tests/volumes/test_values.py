"""Volumes as values: their fields, their JSON, pickles and pydantic models."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError

from datastore.errors import ConfigError, InvalidReference
from stowstore import ROVolume, RWVolume, Volume
from stowstore.versions.errors import NotCommitted

ROOT = "s3://bucket/prefix?endpoint=http://localhost:9000"
LOCATOR = f"{ROOT}#data@01ARZ3NDEKTSV4RRFFQ69G5FAV:{'ab' * 32}"
VERSION = ROVolume(
    name="data",
    bucket=ROOT,
    region="eu-west-1",
    index=LOCATOR,
    metadata_store_type="redis",
    used_bytes=10,
    inode_count=2,
    index_bytes=300,
    message="größer",
    produced_by={"run": "r1", "tries": [1, 2]},
    parent_produced_by="r0",
)
WORKING_COPY = RWVolume(name="data", bucket="file:///data/root", metadata_store_type="sqlite")

DOCUMENTED_FIELDS = (
    "kind",
    "name",
    "bucket",
    "storage",
    "region",
    "index",
    "metadata_store_type",
    "used_bytes",
    "inode_count",
    "index_bytes",
    "message",
    "produced_by",
    "parent_produced_by",
)


@pytest.mark.parametrize("volume", [VERSION, WORKING_COPY], ids=["version", "working-copy"])
class TestRoundTrips:
    """What leaves the process comes back equal, and as what it was."""

    def test_json(self, volume: Volume) -> None:
        """JSON gives the same volume back, from its own class and from `Volume`."""
        text = volume.to_json()
        assert volume == Volume.from_json(text)
        assert volume == type(volume).from_json(text)
        assert type(volume) is type(Volume.from_json(text))

    def test_data_have_the_documented_fields(self, volume: Volume) -> None:
        """The data are the documented fields, in their order, and which access there is."""
        assert {"access", *DOCUMENTED_FIELDS} == volume.to_dict().keys()
        assert [*DOCUMENTED_FIELDS] == [name for name in volume.to_dict() if name != "access"]
        assert "flyte.volume/v1" == json.loads(volume.to_json())["kind"]

    def test_pickle(self, volume: Volume) -> None:
        """Pickling gives an equal volume of the same hash."""
        again = pickle.loads(pickle.dumps(volume))
        assert volume == again
        assert hash(volume) == hash(again)
        assert type(volume) is type(again)

    def test_it_cannot_be_changed(self, volume: Volume) -> None:
        """A volume is frozen."""
        with pytest.raises(FrozenInstanceError):
            volume.name = "other"  # type: ignore[misc]


def test_a_version_and_a_working_copy_are_never_equal() -> None:
    """The class is part of the value."""
    data = {**VERSION.to_dict()}
    data.pop("access")
    assert RWVolume.from_dict(data) != ROVolume.from_dict(data)


def test_data_without_access_are_what_the_class_or_the_index_says() -> None:
    """Data that do not say which kind they are become what is asked for; `Volume` goes by the index."""
    data = VERSION.to_dict()
    del data["access"]
    assert VERSION == Volume.from_dict(data)
    assert isinstance(RWVolume.from_dict(data), RWVolume)
    assert isinstance(Volume.from_dict({**data, "index": None}), RWVolume)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "flyte.volume/v2"}, "flyte.volume/v2"),
        ({"name": None}, "name"),
        ({"name": "a/b"}, "a/b"),
        ({"name": 7}, "name"),
        ({"bucket": None}, "bucket"),
        ({"bucket": "nowhere"}, "nowhere"),
        ({"bucket": "s3://bucket?secret_key=x"}, "secret"),
        ({"storage": "gs"}, "gs"),
        ({"region": 1}, "region"),
        ({"bucket": "file:///d/root", "storage": None, "index": None, "access": "rw"}, "region"),
        ({"index": "s3://bucket/other#data@01ARZ3NDEKTSV4RRFFQ69G5FAV:" + "ab" * 32}, "index"),
        ({"index": f"{ROOT}#data@tag"}, "index"),
        ({"index": None}, "no version"),
        ({"metadata_store_type": "sqlit"}, "sqlite"),
        ({"used_bytes": -1}, "used_bytes"),
        ({"inode_count": True}, "inode_count"),
        ({"index_bytes": "3"}, "index_bytes"),
        ({"message": 3}, "message"),
        ({"produced_by": object()}, "producer"),
        ({"access": "wr"}, "access"),
        ({"mesage": "x"}, "message"),
    ],
)
def test_bad_data_are_refused_by_name(change: dict[str, Any], words: str) -> None:
    """What cannot be part of a volume is refused, and the message says which field or value."""
    with pytest.raises((ConfigError, InvalidReference, NotCommitted), match=words):
        Volume.from_dict({**VERSION.to_dict(), **change})


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '"text"', "{"])
def test_what_is_no_json_object_is_refused(text: str) -> None:
    """Text that is no JSON object is no volume."""
    with pytest.raises(ConfigError, match="JSON"):
        Volume.from_json(text)


def test_one_kind_is_not_taken_for_the_other() -> None:
    """Data that say to be a version are no working copy, and the hint says what to do."""
    with pytest.raises(ConfigError, match="fork"):
        RWVolume.from_json(VERSION.to_json())
    with pytest.raises(ConfigError, match="commit"):
        ROVolume.from_json(WORKING_COPY.to_json())


def test_the_base_class_is_not_made() -> None:
    """`Volume` itself is none."""
    with pytest.raises(TypeError, match=r"Volume\.new"):
        Volume(name="x", bucket="file:///d/root")


@pytest.mark.parametrize(
    ("bucket", "storage"),
    [
        ("s3://b/p", "s3"),
        ("gs://b/p", "gs"),
        ("abfs://c@account.dfs.core.windows.net/p", "wasb"),
        ("abfss://c@account.dfs.core.windows.net/p", "wasb"),
        ("wasbs://c@account.blob.core.windows.net/p", "wasb"),
        ("file:///d/root", "file"),
        ("mem://c/p", "mem"),
        ("sw://c/p", "swift"),
    ],
)
def test_storage_follows_from_the_scheme(bucket: str, storage: str) -> None:
    """Nobody needs to spell the backend, and who does must spell the right one."""
    assert storage == Volume.new("x", bucket=bucket).storage
    assert storage == Volume.new("x", bucket=bucket, storage=storage).storage
    with pytest.raises(ConfigError, match="nope"):
        Volume.new("x", bucket=bucket, storage="nope")


def test_credentials_are_no_part_of_a_volume() -> None:
    """Options given for a root are in no form of the volume."""
    volume = Volume.new("x", bucket=ROOT, options={"access_key_id": "AKIA", "secret_key": "hush"})
    for text in (repr(volume), volume.to_json(), pickle.dumps(volume).decode("latin-1")):
        assert "hush" not in text
        assert "AKIA" not in text


def test_importing_stowstore_imports_no_volume() -> None:
    """The names of volumes are there without their libraries, until they are used."""
    code = (
        "import sys, stowstore; heavy = {'msgspec', 'zstandard', 'blake3', 'stowstore.volumes'};"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys();"
        "assert {'Volume', 'RWVolume', 'ROVolume'} <= set(dir(stowstore));"
        "assert stowstore.Volume.__name__ == 'Volume'; assert 'pydantic' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class TestPydantic:
    """Models that contain volumes."""

    @pytest.mark.parametrize("given", [VERSION, VERSION.to_dict(), VERSION.to_json()], ids=["value", "dict", "json"])
    def test_a_model_takes_every_form(self, given: object) -> None:
        """A volume, its data and its JSON text validate, and come back from the model's own JSON."""
        pydantic = pytest.importorskip("pydantic")
        model = pydantic.create_model("Outputs", data=(ROVolume, ...), any=(Volume, ...))
        made = model(data=given, any=given)
        assert VERSION == made.data == made.any
        assert made == model.model_validate_json(made.model_dump_json())
        assert VERSION.to_dict() == made.model_dump()["data"]

    def test_a_model_takes_a_locator(self) -> None:
        """The text of a locator becomes the version it names, without a look at the store."""
        pydantic = pytest.importorskip("pydantic")
        found = pydantic.TypeAdapter(Volume).validate_python(LOCATOR)
        assert ROVolume(name="data", bucket=ROOT, index=LOCATOR) == found

    @pytest.mark.parametrize("given", [WORKING_COPY, 7, "nonsense", {"name": "x"}, LOCATOR[:-1]])
    def test_a_model_refuses_what_is_none(self, given: object) -> None:
        """What is no version is a validation error of the field."""
        pydantic = pytest.importorskip("pydantic")
        model = pydantic.create_model("Outputs", data=(ROVolume, ...))
        with pytest.raises(pydantic.ValidationError, match="data"):
            model(data=given)

    def test_it_has_a_schema(self) -> None:
        """The JSON schema of a model names the fields."""
        pydantic = pytest.importorskip("pydantic")
        schema = pydantic.TypeAdapter(ROVolume).json_schema()
        assert set(VERSION.to_dict()) == set(schema["properties"])
        assert ["ro"] == schema["properties"]["access"]["enum"]
