"""What the documents show runs as it stands."""

from __future__ import annotations

import ast
import configparser
import json
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from stowstore import ContainerPolicy, StoreConfig, open_store
from tests import servers
from tests.documents.blocks import DOCUMENTS, ROOT, Block, Use, blocks_of, indented_code

#: Documents whose blocks other tests run, as they need more than a shell.
_ELSEWHERE = {
    Path("docs/named-volumes.md"): "tests/named/test_document.py and tests/jobs/test_guide.py",
    Path("docs/writing-a-kind.md"): "tests/conformance/test_third_party.py, and a test below",
}
_RUNNING = [
    document
    for document in DOCUMENTS
    if document not in _ELSEWHERE and any(block.use is Use.RUN for block in blocks_of(document))
]
_PARSERS: Mapping[str, Callable[[str], object]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": lambda text: list(yaml.safe_load_all(text)),
    "ini": lambda text: configparser.ConfigParser(strict=False).read_string(text),
}
_BLOCKS = [block for document in DOCUMENTS for block in blocks_of(document)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", _RUNNING, ids=str)
def test_the_blocks_of_a_document_run(document: Path, home: Path, request: pytest.FixtureRequest) -> None:
    """One after the other, without warnings, in an empty directory; outputs are those the document shows."""
    blocks = blocks_of(document)
    text = "".join(block.text for block in blocks if block.use is Use.RUN)
    if "stowstore mount" in text or "mount(" in text:
        request.getfixturevalue("fuse")
    if "stowstore run" in text:
        request.getfixturevalue("namespaces")
        request.getfixturevalue("bubblewrap")
    places = {"/tmp/stow": str(home), "/mnt/": f"{home}/mnt/", "file:///data/": f"file://{home}/data/"}
    if "s3://" in text:
        places |= _bucket(request, home)
    steps = home / "steps.json"
    steps.write_text(json.dumps(_steps(blocks, places)), encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).with_name("driver.py")), str(steps)],
        cwd=home / "work",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert 0 == done.returncode, done.stderr


@pytest.mark.parametrize(
    "block", [block for block in _BLOCKS if block.use is Use.PARSED], ids=lambda block: block.place
)
def test_a_block_of_data_is_what_it_says(block: Block) -> None:
    """JSON, TOML, YAML and INI can be parsed."""
    _PARSERS[block.language](block.text)


@pytest.mark.parametrize("block", [b for b in _BLOCKS if b.use is Use.LEFT_OUT], ids=lambda block: block.place)
def test_a_block_that_is_not_run_says_why(block: Block) -> None:
    """Its first line is ``# Not run by the tests: REASON``, for readers too; and Python compiles all the same."""
    assert block.reason is not None
    if block.language == "python":
        ast.parse(block.text)


def test_every_block_has_a_language_the_tests_know() -> None:
    """So that none is left out by its spelling."""
    known = {"python", "py", "sh", "text", *_PARSERS}
    assert [] == [block.place for block in _BLOCKS if block.language not in known]


def test_no_code_stands_outside_of_blocks() -> None:
    """Code that is indented, as Markdown allows, has no language, and would not be run."""
    assert [] == [place for document in DOCUMENTS for place in indented_code(document)]


def test_the_blocks_that_run_elsewhere_are_all_run() -> None:
    """The guide to named volumes has commands only in the sections that its tests take apart."""
    text = (ROOT / "docs" / "named-volumes.md").read_text(encoding="utf-8")
    sections = {section.partition("\n")[0] for section in text.split("\n## ")[1:] if "```sh" in section}
    assert {"Volumes", "Worked examples"} == sections


def test_the_example_of_a_kind_is_what_its_document_shows() -> None:
    """Each definition in the document is one of the distribution that the conformance kit is run over."""
    example = ROOT / "docs" / "examples" / "stow_sqlite"
    sources = [*example.glob("src/**/*.py"), *example.glob("tests/*.py")]
    there = {ast.dump(node) for path in sources for node in ast.parse(path.read_text(encoding="utf-8")).body}
    shown = blocks_of(Path("docs/writing-a-kind.md"))
    missing = [
        f"{block.place}: {ast.unparse(node)}"
        for block in shown
        if block.language == "python"
        for node in ast.parse(block.text).body
        if ast.dump(node) not in there
    ]
    assert [] == missing
    project = (example / "pyproject.toml").read_text(encoding="utf-8")
    assert all(block.text in project for block in shown if block.language == "toml")


def test_the_configuration_file_that_is_shown_is_accepted() -> None:
    """Every key of it is known."""
    (block,) = [block for block in blocks_of(Path("docs/configuration.md")) if block.language == "yaml"]
    config = StoreConfig.from_mapping(yaml.safe_load(block.text))
    assert ("s3", "main") == (config.kind, config.container)


def test_commands_of_the_readme_exist() -> None:
    """The two commands the README begins with are there and executable."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert ".ci/bootstrap demo" in text
    assert ".ci/bootstrap tests" in text
    assert (ROOT / ".ci" / "bootstrap").stat().st_mode & 0o111
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111


def _steps(blocks: list[Block], places: Mapping[str, str]) -> list[dict[str, str | None]]:
    steps: list[dict[str, str | None]] = []
    for block in blocks:
        text = block.text
        for shown, real in places.items():
            text = text.replace(shown, real)
        if block.use is Use.RUN:
            language = "sh" if block.language == "sh" else "python"
            steps.append({"place": block.place, "language": language, "text": text, "output": None})
        elif block.use is Use.OUTPUT:
            steps[-1]["output"] = text
    return steps


def _bucket(request: pytest.FixtureRequest, home: Path) -> dict[str, str]:
    """What stands in the documents for a bucket and its endpoint, and where that is in truth."""
    gateway: servers.Server = request.getfixturevalue("radosgw")
    name = f"documents-{uuid.uuid4().hex}"
    secret = home / "secret"
    secret.write_text(gateway.secret_key, encoding="utf-8")
    options = {"access_key_id": gateway.access_key, "secret_key": gateway.secret_key}
    url = f"s3://{name}?endpoint={gateway.endpoint}"
    open_store(url, options=options, create_container=ContainerPolicy.IF_MISSING).close()
    patch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    patch.setenv("AWS_ENDPOINT_URL", gateway.endpoint)
    patch.setenv("AWS_ACCESS_KEY_ID", gateway.access_key)
    patch.setenv("AWS_SECRET_ACCESS_KEY", gateway.secret_key)
    patch.setenv("AWS_REGION", "us-east-1")
    return {
        "s3://bucket": f"s3://{name}",
        "http://127.0.0.1:9000": gateway.endpoint,
        "access_key_id=user": f"access_key_id={gateway.access_key}",
        "/run/secrets/s3": str(secret),
    }
