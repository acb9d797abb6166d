"""What can be asked for, and what is refused before anything is locked or mounted."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowstore.jobs import InvalidJob, Job, Settings, VolumeRequest, parse_variable, parse_volume
from stowstore.named import Access
from stowstore.named.errors import InvalidName, InvalidSize

READ = {
    "data": ("data", None, "/volumes/data", "rw"),
    "data:ro": ("data", None, "/volumes/data", "ro"),
    "data:rw": ("data", None, "/volumes/data", "rw"),
    "data:/srv/data": ("data", None, "/srv/data", "rw"),
    "data:/srv/data/": ("data", None, "/srv/data", "rw"),
    "data:/srv/data:ro": ("data", None, "/srv/data", "ro"),
    "data:/ro": ("data", None, "/ro", "rw"),
    "data:/work/cache": ("data", None, "/work/cache", "rw"),
    "data@v1": ("data", "v1", "/volumes/data", "ro"),
    "data@v1:/old:ro": ("data", "v1", "/old", "ro"),
    "1st": ("1st", None, "/volumes/1st", "rw"),
}

NOT_READ = {
    "": "name cannot be empty",
    ":ro": "name cannot be empty",
    "@v1": "name cannot be empty",
    "../x": "invalid volume name",
    "a/b": "invalid volume name",
    "data\n": "invalid volume name",
    "x" * 64: "invalid volume name",
    "data@": "no snapshot",
    "data:srv": "not of the form",
    "data:/a:/b": "not of the form",
    "data:/a:rx": "not of the form",
    "data:": "not of the form",
    "data:/a/../b": "no '..'",
    "data@v1:rw": "a snapshot can only be read",
    "data:/": "the job's own",
    "data:/usr/lib": "the job's own",
    "data:/etc": "the job's own",
    "data:/dev/shm": "the job's own",
    "data:/proc": "the job's own",
    "data:/work": "the job's own",
    "data:/volumes": "the job's own",
    "data:/volumes/.meta/x": "the job's own",
    "data\0:ro": "null character",
}


@pytest.mark.parametrize("text", READ)
def test_a_volume_is_read_from_its_text(text: str) -> None:
    """``NAME[@SNAP][:/path][:ro]`` says which volume, which version of it, where, and how."""
    name, snapshot, path, access = READ[text]
    expected = VolumeRequest(name=name, snapshot=snapshot, path=PurePosixPath(path), access=Access(access))
    assert expected == parse_volume(text)


@pytest.mark.parametrize("text", NOT_READ)
def test_what_is_no_volume_is_refused_with_what_is_wrong(text: str) -> None:
    """Names as paths, paths of the system and half a form are errors that say which."""
    with pytest.raises((InvalidJob, InvalidName), match=NOT_READ[text]):
        parse_volume(text)


@given(st.text())
def test_any_text_is_a_volume_or_an_error_of_ours(text: str) -> None:
    """Whatever is typed is understood or refused in words; what was understood can be written and read again."""
    try:
        found = parse_volume(text)
    except (InvalidJob, InvalidName):
        return
    assert found.path.is_absolute()
    assert ".." not in found.path.parts
    if found.snapshot is None:
        assert found == parse_volume(str(found))


def test_the_same_volume_twice_counts_once() -> None:
    """A volume given twice with one path and mode is one volume."""
    job = Job(command=("true",), volumes=tuple(map(parse_volume, ("a", "b", "a:/volumes/a:rw"))))
    assert ["a", "b"] == [request.name for request in job.volumes]


@pytest.mark.parametrize(
    ("volumes", "why"),
    [
        (("a", "a:ro"), "asked for twice"),
        (("a", "a:/srv"), "asked for twice"),
        (("a", "a@v1"), "asked for twice"),
        (("a:/srv", "b:/srv"), "both to be at"),
        (("a:/srv", "b:/srv/b"), "inside volume a"),
        (("b:/srv/b/c", "x:/srv-x", "a:/srv/b"), "inside volume a"),
    ],
)
def test_volumes_that_are_in_each_others_way_are_refused(volumes: tuple[str, ...], why: str) -> None:
    """One volume in two ways, two at one place, and one inside another cannot be."""
    with pytest.raises(InvalidJob, match=why):
        Job(command=("true",), volumes=tuple(map(parse_volume, volumes)))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"command": ()}, "must specify a command"),
        ({"command": ("",)}, "must specify a command"),
        ({"command": ("a\0b",)}, "null character"),
        ({"workdir": PurePosixPath("here")}, "must be absolute"),
        ({"environment": {"A B": ""}}, "cannot name a variable"),
        ({"environment": {"A": "\0"}}, "null character"),
        ({"memory": 0}, "must be positive"),
        ({"scratch": -1}, "must be positive"),
    ],
)
def test_a_job_that_cannot_be_is_refused(wrong: dict[str, object], why: str) -> None:
    """Everything of a job is checked when it is made."""
    with pytest.raises(InvalidJob, match=why):
        Job(**{"command": ("true",), **wrong})  # type: ignore[arg-type]


def test_secrets_of_the_environment_are_not_shown() -> None:
    """The representation of a job leaves its variables out."""
    assert "hunter2" not in repr(Job(command=("true",), environment={"PASSWORD": "hunter2"}))


@pytest.mark.parametrize(
    ("text", "expected"), [("A=1", ("A", "1")), ("A=", ("A", "")), ("A=b=c", ("A", "b=c")), ("KNOWN", ("KNOWN", "x"))]
)
def test_a_variable_is_given_or_handed_on(text: str, expected: tuple[str, str]) -> None:
    """``NAME=VALUE`` sets one; ``NAME`` alone takes the value it has here."""
    assert expected == parse_variable(text, {"KNOWN": "x"})


@pytest.mark.parametrize("text", ["", "=1", "1A=2", "A-B=1", "UNKNOWN"])
def test_what_is_no_variable_is_refused(text: str) -> None:
    """A name that cannot be, or one that has no value here."""
    with pytest.raises(InvalidJob):
        parse_variable(text, {})


def test_the_operator_sets_limits_and_directories() -> None:
    """The environment says how much scratch jobs get, what they see besides, and how they are isolated."""
    found = Settings.from_environment(
        {"STOWSTORE_JOB_SCRATCH": "2MB", "STOWSTORE_JOB_SYSTEM": "/opt:/nix", "STOWSTORE_SANDBOX": "namespaces"}
    )
    expected = Settings(
        without_volumes=2 << 20, with_volumes=2 << 20, system=(Path("/opt"), Path("/nix")), sandbox="namespaces"
    )
    assert expected == found
    assert (1 << 20, None) == (Settings.from_environment({}).without_volumes, Settings.from_environment({}).sandbox)


@pytest.mark.parametrize(
    "wrong",
    [
        {"STOWSTORE_JOB_SCRATCH": "0"},
        {"STOWSTORE_JOB_SCRATCH": "much"},
        {"STOWSTORE_JOB_SYSTEM": "opt"},
        {"STOWSTORE_JOB_SYSTEM": "/opt/../root"},
        {"STOWSTORE_JOB_SYSTEM": "/"},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, str]) -> None:
    """A mistyped limit is an error, not the default."""
    with pytest.raises((InvalidJob, InvalidSize)):
        Settings.from_environment(wrong)
