"""The page in a real browser: complete, quiet, and of nobody's making but ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from attrs import evolve

from stowstore.chunks.store import ChunkStore
from stowstore.report import RootFacts, gather, render
from stowstore.report.indexing import read_index
from stowstore.report.model import VersionFacts
from stowstore.report.page import MAX_ROWS
from tests.report.conftest import HOSTILE, Story, write_hostile_root
from tests.servers.browser import Browser, Page

Open = Callable[[RootFacts, Page], None]


@pytest.fixture
def show(tmp_path: Path) -> Open:
    """Puts a page of facts into a file and opens that."""

    def show(facts: RootFacts, page: Page) -> None:
        path = tmp_path / "report.html"
        path.write_text(render(facts), encoding="utf-8")
        page.open(path.as_uri())

    return show


def texts(page: Page, selector: str) -> list[str]:
    """The texts of all elements that a selector finds."""
    found = page.evaluate(
        f"Array.from(document.querySelectorAll({json.dumps(selector)}), one => one.textContent.trim())"
    )
    assert isinstance(found, list)
    return found


def column(page: Page, table: str, title: str) -> list[str]:
    """The cells below a heading, from top to bottom."""
    position = [text.strip() for text in texts(page, f"{table} thead th")].index(title) + 1
    return texts(page, f"{table} tbody tr > :nth-child({position})")


def click(page: Page, table: str, title: str) -> str:
    """Clicks a heading with a real mouse; returns how the table says it is sorted."""
    position = [text.strip() for text in texts(page, f"{table} thead th")].index(title)
    button = f"document.querySelectorAll({json.dumps(table + ' thead th')})[{position}].querySelector('button')"
    page.evaluate(f"{button}.scrollIntoView({{block: 'center', inline: 'center'}})")
    box = page.evaluate(f"{button}.getBoundingClientRect().toJSON()")
    for kind in ("mousePressed", "mouseReleased"):
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    return str(page.evaluate(f"{button}.closest('th').getAttribute('aria-sort')"))


def test_the_page_is_whole_and_asks_for_nothing(story: Story, browser: Browser, show: Open) -> None:
    """Everything of a root is on its page; nothing is requested, and the browser has no complaint."""
    with ChunkStore(story.root.store, story.root.base) as chunks:
        facts = read_index(story.root, chunks, gather(story.root))
    with browser.page() as page:
        show(facts, page)
        assert story.url == page.evaluate("document.title")
        assert ["Lineage", "Volumes", "What takes room", "Growth", "Versions"] == texts(page, "h2")
        assert ["experiment", "training", "untouched"] == column(page, "#volumes table", "Volume")
        assert ["1", "4", "0"] == column(page, "#volumes table", "Versions")
        messages = column(page, "#versions table", "Message")
        assert ["higher learning rate", "epoch 2", "epoch 1", "first data"] == messages[1:]
        assert "/raw/deep" in column(page, "#room .sortable", "Directory")
        assert {"Volumes", "Versions", "Stored", "Garbage"} <= set(texts(page, ".card .what"))
        # The lineage: five versions, of which one is a merge and two are the newest, and the fork that waits.
        assert [5, 1, 2, 1] == [
            len(texts(page, f".lineage {what}"))
            for what in (":is(.place.version, .place.merge)", "path.place.merge", ".place.head", ".place.fork")
        ]
        assert [1, 2, 3] == [len(texts(page, f".lineage .edge.{kind}")) for kind in ("merge", "fork", "next")]
        titles = texts(page, ".lineage .at > title")
        assert any("epoch 1" in title and "made by action=train, run=r7" in title for title in titles)
        assert any(title.startswith("untouched") for title in titles)
        assert 2 == len(texts(page, ".growth .curve"))
        assert texts(page, "#growth .tick.y")[-1].endswith("iB")
        assert any("UTC" in title for title in texts(page, "#growth .point title"))
        drawn = page.evaluate("document.querySelector('.lineage .place.merge').getBoundingClientRect().width")
        assert drawn > 5
        assert ([], []) == (page.complaints, page.requests)


def test_tables_sort(story: Story, browser: Browser, show: Open) -> None:
    """A click on a heading sorts by numbers as numbers and by names as text, another one the other way round."""
    with browser.page() as page:
        show(gather(story.root), page)
        assert "descending" == click(page, "#volumes table", "Versions")
        assert ["4", "1", "0"] == column(page, "#volumes table", "Versions")
        assert "ascending" == click(page, "#volumes table", "Versions")
        assert ["0", "1", "4"] == column(page, "#volumes table", "Versions")
        assert "ascending" == click(page, "#volumes table", "Volume")
        assert ["experiment", "training", "untouched"] == column(page, "#volumes table", "Volume")
        assert 1 == len(texts(page, "#volumes [aria-sort]"))
        click(page, "#versions table", "Size")
        sizes = page.evaluate(
            "Array.from(document.querySelectorAll('#versions td[title$=bytes]'), c => +c.dataset.sort)"
        )
        assert sizes == sorted(sizes, reverse=True)
        assert [] == page.complaints


def test_hostile_text_is_text(story: Story, browser: Browser, show: Open) -> None:
    """Markup in names, messages, holders and keys is shown as it stands: nothing of it runs, loads or hides."""
    write_hostile_root(story.root)
    with browser.page() as page:
        show(gather(story.root), page)
        assert story.url == page.evaluate("document.title")
        assert [] == texts(page, "img, iframe, object, embed, body script ~ script")
        assert 1 == len(texts(page, "body script"))
        shown = page.evaluate("document.body.innerHTML")
        assert "{{ 7 * 7 }}" in shown
        assert not {"\u202e", "\x1b", "\x00"} & set(shown)
        messages = " ".join(column(page, "#versions table", "Message"))
        assert "<script>document.title" in messages
        everything = page.evaluate("Array.from(document.querySelectorAll('bdi'), one => one.title).join(' ')")
        assert "\\u202egnp.exe\\x1b[31m\\x00\\ud800" in everything
        assert "<script>document.title" in " ".join(column(page, "#volumes table", "Written by"))
        assert "<script>alert(1)" in " ".join(texts(page, "#problems li"))
        assert ([], []) == (page.complaints, page.requests)


def test_the_policy_stops_what_would_get_through(story: Story, browser: Browser, tmp_path: Path) -> None:
    """Were something not escaped, the policy of the page would still neither run nor load it."""
    path = tmp_path / "report.html"
    path.write_text(
        render(gather(story.root)).replace("<main>", f"<main>{HOSTILE.encode(errors='replace').decode()}", 1)
    )
    with browser.page() as page:
        page.open(path.as_uri())
        assert story.url == page.evaluate("document.title")
        assert page.complaints
        assert all("Content Security Policy" in complaint for complaint in page.complaints)


def test_without_script(story: Story, browser: Browser, show: Open) -> None:
    """Where scripts are off the page says the same, with headings that are no buttons."""
    facts = gather(story.root)
    with browser.page() as page:
        show(facts, page)
        with_script = page.evaluate("document.querySelector('main').innerText")
        page.call("Emulation.setScriptExecutionDisabled", value=True)
        show(facts, page)
        assert 0 == len(texts(page, "button"))
        assert with_script.split() == page.evaluate("document.querySelector('main').innerText").split()


def test_dark_light_and_paper(story: Story, browser: Browser, show: Open) -> None:
    """The page follows the reader's colours, and is black on white where it is printed."""
    with browser.page() as page:
        show(gather(story.root), page)
        found = {}
        for media, scheme in (("screen", "light"), ("screen", "dark"), ("print", "dark")):
            page.call(
                "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
            )
            found[media, scheme] = page.evaluate(
                "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
                ".map(colour => colour.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + +part, 0))"
            )
        assert page.pdf().startswith(b"%PDF")
    for shown, (back, text) in found.items():
        assert (back < 150 and text > 600) if shown == ("screen", "dark") else (back > 700 and text < 150)


def test_large_roots_stay_readable(story: Story, browser: Browser, show: Open) -> None:
    """Thousands of versions in a hundred volumes: what is left out is said, and the page stays small."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    versions = tuple(
        VersionFacts(
            volume=f"v{number % 100}", id=f"{number:026}", created=start + timedelta(hours=number), used_bytes=number
        )
        for number in range(10_000)
    )
    facts = gather(story.root)
    volumes = tuple(evolve(facts.volumes[0], name=f"v{number}", head=None) for number in range(100))
    facts = evolve(facts, versions=versions, volumes=volumes)
    assert len(render(facts)) < 2 << 20
    with browser.page() as page:
        show(facts, page)
        assert MAX_ROWS == len(texts(page, "#versions tbody tr"))
        assert "500 of 10,000 versions" in " ".join(texts(page, "#versions strong"))
        assert 100 == len(texts(page, ".lineage .place.run"))
        assert "10,000 versions" in " ".join(texts(page, "#lineage strong"))
        assert [] == page.complaints
