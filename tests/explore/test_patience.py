"""The explorer stays at hand whatever the store does: large directories, slow answers, damage."""

from __future__ import annotations

import stat

from textual.widgets import Input

from datastore.metric_names import Operation
from datastore.wrappers.faulty import FaultyStore, Raise, Rule, Stall
from stowstore.explore.entries import EntrySource
from stowstore.explore.paged_tree import PAGE, Rows
from stowstore.explore.version import Entry
from stowstore.index.keys import ROOT_INODE, entry_key, inode_key
from stowstore.index.records import EntryRecord
from stowstore.versions.root import Root
from tests.explore.driving import CountedStore, explorer
from tests.versions.volumes import Volumes

_INDEX = "*index/*"


def _stalled(root: Root) -> tuple[Root, FaultyStore]:
    """The root over a store that can be told to answer no more."""
    store = FaultyStore(root.store)
    return Root(store, root.base, root.format, address="root"), store


async def test_a_directory_of_100_000_names_is_read_page_by_page(crowded: Root) -> None:
    """Opening it reads one page; the cursor at its end the next; a search goes to any name without those between."""
    store = CountedStore(crowded.store)
    async with explorer(Root(store, crowded.base, crowded.format, address="root")) as found:
        await found.press("down")
        many = found.tree.root.children[0]
        before = sum(store.sizes("index"))
        await found.press("enter")
        assert PAGE + 1 == len(many.children)
        first = sum(store.sizes("index")) - before
        assert first < 2 << 20
        await found.press("end")
        assert 2 * PAGE + 1 == len(many.children)
        assert found.tree.item.name.startswith(b"%06d-" % PAGE)
        await found.press("slash")
        found.app.screen.query_one(Input).value = "099998-*"
        await found.settle()
        await found.press("enter")
        assert found.tree.item.path.startswith(b"many/099998-")
        assert ["… earlier names: Enter reads from the first", "099998", "099999"] == [
            line.strip().split("-")[0] for line in found.lines[2:5]
        ]
        await found.press("up", "enter")
        assert any(line.startswith("    000000-") for line in found.lines)


async def test_sizes_of_a_large_version_are_asked_for(crowded: Root) -> None:
    """They are added up on a key only, with progress."""
    async with explorer(crowded) as found:
        assert found.lines[1].endswith("many/")
        await found.press("down")
        assert "press z" in found.text("#details")
        said = []
        say = found.app.say
        found.app.say = lambda text: (said.append(text), say(text))[1]  # type: ignore[method-assign]
        await found.press("z")
        assert "0 B in 100,000 files" in found.text("#details")
        shares = [int(text.split()[3]) for text in said if "%" in text]
        assert shares == sorted(shares)
        assert len(shares) > 10


async def test_a_store_that_does_not_answer_blocks_nothing(filled: Root) -> None:
    """While the index is waited for, keys work, the tree says that it is reading, and what comes late is shown."""
    root, store = _stalled(filled)
    store.add(Rule(Stall(), operations={Operation.READ}, keys=_INDEX))
    async with explorer(root, is_settled=False) as found:
        await found.until(lambda: found.app.version is not None or bool(store.fired))
        await found.until(lambda: bool(found.rows("#history")))
        await found.pilot.press("h")
        await found.pilot.pause()
        assert "history" == found.app.focused.id
        store.release()
        await found.settle()
        assert "  readme.txt | 8 B" in found.lines


async def test_long_work_is_stopped_by_escape(crowded: Root) -> None:
    """Sizes and a search that wait for the store end when they are told to, and the explorer goes on."""
    root, store = _stalled(crowded)
    async with explorer(root) as found:
        stall = Rule(Stall(), operations={Operation.READ}, keys=_INDEX)
        store.add(stall)
        await found.pilot.press("z")
        await found.until(lambda: bool(store.fired[stall]))
        await found.press("escape")
        assert "stopped" in found.text("#status")
        await found.pilot.press("slash")
        found.app.screen.query_one(Input).value = "012345-*"
        await found.until(lambda: store.fired[stall] > 1)
        assert "searching" in found.picture
        await found.press("escape")
        assert "stopped, " in found.picture
        store.release()
        await found.press("escape", "slash")
        found.app.screen.query_one(Input).value = "012345-*"
        await found.settle()
        assert [b"many/012345"] == [match.path.partition(b"-")[0] for match in found.app.screen.matches]


async def test_a_preview_that_does_not_come_is_stopped(filled: Root) -> None:
    """Leaving a preview ends its request."""
    root, store = _stalled(filled)
    async with explorer(root, path=b"readme.txt") as found:
        stall = Rule(Stall(), operations={Operation.READ}, keys="*packs/*")
        store.add(stall)
        await found.pilot.press("p")
        await found.until(lambda: bool(store.fired[stall]))
        assert "fetching" in found.text("#preview")
        await found.press("escape")
        assert "stopped" in found.text("#status")


async def test_leaving_ends_what_runs(filled: Root) -> None:
    """The key q ends the explorer even while the store does not answer."""
    root, store = _stalled(filled)
    stall = Rule(Stall(), operations={Operation.READ}, keys=_INDEX)
    store.add(stall)
    async with explorer(root, is_settled=False) as found:
        await found.until(lambda: bool(store.fired[stall]))
        await found.pilot.press("q")
        assert found.app.return_code == 0


async def test_errors_are_said(filled: Root) -> None:
    """A version that cannot be opened says why, letter by letter; the one before stays, and it can be tried again."""
    root, store = _stalled(filled)
    async with explorer(root) as found:
        store.add(Rule(Raise(lambda _: OSError("[b]no route[/b]")), operations={Operation.READ}))
        await found.press("h", "down", "enter")
        assert "✗ [b]no route[/b]" == found.text("#status").strip()
        assert "  readme.txt | 8 B" in found.lines
        store.clear()
        await found.press("h", "enter")
        assert "  readme.txt | 17 B" in found.lines


class _Once(EntrySource):
    """A source that fails the first time."""

    has_failed = False

    def rows(self, item: Entry, start: bytes) -> Rows[Entry]:
        if not self.has_failed:
            self.has_failed = True
            raise OSError("[b]no route[/b]")
        return super().rows(item, start)


async def test_a_page_that_cannot_be_read_says_why_in_its_place(filled: Root) -> None:
    """It is asked for again by Enter, and never by itself."""
    async with explorer(filled) as found:
        version = found.app.version
        found.tree.show(_Once(version, "/"), version.top())
        await found.settle()
        await found.press("down", "up", "down")
        assert ["  ✗ [b]no route[/b] (Enter tries again)"] == found.lines[1:]
        await found.press("enter")
        assert "  readme.txt | 8 B" in found.lines


async def test_a_damaged_index_is_shown_as_such() -> None:
    """Names of nothing, numbers that no inode has, and directories in a circle are marked, and lead nowhere."""
    with Volumes() as volumes:
        first = volumes.commit("data", {"good": b"1", "dir/inner": b"2"})
        snapshot = volumes.snapshot(volumes.root.load(first).snapshot)
        directory = volumes.ino_of(first, "dir")
        damage = {
            entry_key(ROOT_INODE, b"lost"): EntryRecord(987654, stat.S_IFREG).encode(),
            entry_key(ROOT_INODE, b"negative"): EntryRecord(-1, stat.S_IFREG).encode(),
            entry_key(directory, b"circle"): EntryRecord(ROOT_INODE, stat.S_IFDIR).encode(),
            entry_key(ROOT_INODE, b"other-kind"): EntryRecord(directory, stat.S_IFREG).encode(),
            entry_key(ROOT_INODE, b"no-record"): EntryRecord(77, stat.S_IFREG).encode(),
            inode_key(77): b"\xc1",
        }
        volumes.publish("data", snapshot, damage, first, first)
        async with explorer(volumes.root) as found:
            await found.press("down", "enter")
            assert [
                "  dir/",
                "    circle (damaged)",
                "    inner",
                "  good",
                "  lost (damaged)",
                "  negative (damaged)",
                "  no-record (damaged)",
                "  other-kind (damaged)",
            ] == [line.split(" | ")[0] for line in found.lines[1:]]
            await found.press("down", "enter")
            assert "stowstore volume check" in found.text("#details")
            await found.press("p")
            assert "Only files" in found.text("#status")
