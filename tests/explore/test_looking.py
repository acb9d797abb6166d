"""What the explorer shows of a volume: its tree, details, previews, sizes, history and differences."""

from __future__ import annotations

import pytest
from textual.widgets import TabbedContent

from stowstore.explore.root import ExploredRoot
from stowstore.explore.searching import Match, search
from stowstore.versions.root import Root
from tests.explore.driving import CountedStore, Explorer, explorer


async def test_the_tree_shows_names_kinds_and_sizes(filled: Root) -> None:
    """Names stand in order, directories with what they hold, links with where they lead."""
    async with explorer(filled, version="v1") as found:
        top, *names = found.lines
        assert "/ | 8.0 MiB" == top
        hostile, *others = names
        assert hostile.strip().startswith("[red]odd\\x1b[31m\\nname[")
        assert ["images/", "link → readme.txt", "noise.bin", "readme.txt", "train.py"] == [
            line.strip().split(" | ")[0] for line in others
        ]
        assert "  readme.txt | 17 B" in names
        await found.go("images")
        await found.press("enter")
        assert ["    one.png | 129 B", "    two.PNG | 129 B"] == [line for line in found.lines if line[:4] == "    "]


async def test_details_tell_all_that_the_index_knows(filled: Root) -> None:
    """Mode, owner, times, links, size, extents and extended attributes of what is at the cursor."""
    async with explorer(filled, version="v1") as found:
        await found.go("noise.bin")
        told = found.text("#details")
        assert "8.0 MiB (8,388,608 bytes)" in told
        assert "-rw-r--r--  0644" in told
        assert all(word in told for word in ("owner", "links", "inode", "modified", "changed", "Extents"))
        await found.go("link")
        assert "readme.txt" in found.text("#details")
        await found.press("home", "down")
        told = found.text("#details")
        assert ("user.[b]note", "[i]value\\x1b") == tuple(told.split("Extended attributes")[1].split())


async def test_nothing_a_store_says_is_markup_or_drives_the_terminal(filled: Root) -> None:
    """Names, messages, producers and contents are shown letter by letter, escaped where they are no text."""
    async with explorer(filled) as found:
        await found.press("down")
        picture = found.picture
        assert "[red]odd\\x1b[31m\\nname[@click=app.quit]" in picture
        assert "first [red]data\\x1b[2J" in picture
        assert '{"run": "[b]7"}' in picture
        await found.go("readme.txt")
        await found.press("h", "down", "enter", "p")
        assert "hello [b]you[/b]" in found.picture
        await found.press("slash", *"odd")
        assert "[red]odd\\x1b[31m" in found.picture
        assert "\x1b" not in found.picture


async def test_only_a_preview_fetches_data(filled: Root) -> None:
    """Looking at everything reads no pack of data; a preview reads the beginning of one file."""
    store = CountedStore(filled.store)
    async with explorer(Root(store, filled.base, filled.format, address="root")) as found:
        await found.press("down", "down", "enter", "down", "down", "down", "down", "z")
        await found.press("h", "down", "d", "escape", "h", "enter", "slash", *"*.png", "escape", "v", "escape")
        assert store.sizes("index")
        assert [] == store.sizes("packs")
        await found.press("t", "home")
        await found.go("noise.bin")
        assert [] == store.sizes("packs")
        await found.press("p")
        assert "preview-tab" == found.app.query_one(TabbedContent).active
        assert "8.0 MiB more" in found.text("#preview")
        assert 0 < sum(store.sizes("packs")) < 2 << 20


async def test_another_version_is_shown_at_the_same_place(filled: Root) -> None:
    """Enter in the history shows that version; the cursor stays where it was, and the mark moves."""
    async with explorer(filled) as found:
        await found.go("readme.txt")
        assert "8 bytes" in found.text("#details")
        assert [["●", "second"], ["", "first [red]data\\x1b[2J"]] == [
            [row[0], row[-1]] for row in found.rows("#history")
        ]
        await found.press("h", "down", "enter")
        assert "17 bytes" in found.text("#details")
        assert ["", "●"] == [row[0] for row in found.rows("#history")]
        assert "v1" in found.text("#head")
        assert b"readme.txt" == found.tree.item.path


async def test_differences_are_a_tree(filled: Root) -> None:
    """Against the version at the history's cursor, oldest first, with a sign, a colour and a count each."""
    async with explorer(filled) as found:
        await found.press("h", "down", "d")
        assert [
            "/ | +1 -1 ~1",
            "  images/ | +1",
            "    + three.png | added",
            "  ~ readme.txt | content",
            "  - train.py | removed",
        ] == found.lines
        styles = {str(span.style) for node in found.tree.root.children for span in _label(found, node).spans}
        styles |= {str(_label(found, node).style) for node in found.tree.root.children}
        assert {"#f7768e", "#e0af68"} <= styles
        await found.press("down", "down", "enter")
        assert b"images/three.png" == found.tree.item.path


def _label(found: Explorer, node):  # type: ignore[no-untyped-def]
    return found.tree.source.label(node.data.item)


async def test_without_a_choice_a_version_is_compared_with_its_parent(filled: Root) -> None:
    """The key d right away tells what the newest version changed; the first has nothing to be compared with."""
    async with explorer(filled) as found:
        await found.press("d")
        assert "/ | +1 -1 ~1" == found.lines[0]
        assert "v1 → " in found.picture
    async with explorer(filled, version="v1") as found:
        await found.press("h", "down", "d")
        assert "first version" in found.text("#status")


async def test_volumes_of_the_root(filled: Root) -> None:
    """Another volume is chosen from a list; a fork shows the past it has in common."""
    async with explorer(filled) as found:
        await found.press("v")
        assert [["data", "second"], ["other", "second"]] == [[row[0], row[-1]] for row in found.rows("#volumes")]
        await found.press("down", "enter")
        assert "#other" in found.text("#head")
        assert 2 == len(found.rows("#history"))


@pytest.mark.parametrize(
    ("typed", "paths"),
    [
        ("png", {b"images/one.png", b"images/two.PNG", b"images/three.png"}),
        ("*.PNG", {b"images/two.PNG"}),
        ("images/t*", {b"images/two.PNG", b"images/three.png"}),
        ("[red]", set()),
        ("[[]red[]]*", {b"[red]odd\x1b[31m\nname[@click=app.quit]"}),
        ("images", {b"images"}),
        ("nothing", set()),
    ],
)
def test_search_by_name_and_glob(filled: Root, typed: str, paths: set[bytes]) -> None:
    """Parts of names and globs, letters of any case unless some are upper, and whole paths once there is a slash."""
    matches: list[Match] = []
    with ExploredRoot(filled) as explored:
        search(explored.version(filled.head("data")), typed, lambda found, _: matches.extend(found))
    assert paths == {match.path for match in matches}


async def test_a_search_goes_to_what_it_found(filled: Root) -> None:
    """Enter opens the directories down to a name, and puts the cursor there."""
    async with explorer(filled) as found:
        await found.press("slash", *"three", "enter")
        assert b"images/three.png" == found.tree.item.path
        assert "    three.png | 129 B" in found.lines


async def test_sizes_of_directories(filled: Root) -> None:
    """A version of few inodes has the sizes of its directories added up at once."""
    async with explorer(filled) as found:
        assert "  images/ | 387 B" in found.lines
        await found.go("images")
        assert "387 B in 3 files" in found.text("#details")


async def test_begins_at_a_path(filled: Root) -> None:
    """A path in the address is where the cursor is first."""
    async with explorer(filled, path=b"images/two.PNG") as found:
        assert b"images/two.PNG" == found.tree.item.path


async def test_the_keys_are_shown(filled: Root) -> None:
    """The last line names what can be pressed."""
    async with explorer(filled) as found:
        foot = found.picture.splitlines()[-1]
        assert all(word in foot for word in ("Open", "Preview", "Search", "Diff", "sizes", "History", "Tree", "Quit"))
