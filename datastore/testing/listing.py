"""What ``list_page``, ``list`` and ``walk`` return: everything, once, in order, at every page size."""

from __future__ import annotations

import pickle

import pytest

from datastore.errors import BadCursor, InvalidReference
from datastore.model import Cursor, Feature, ListPage, ObjectEntry
from datastore.protocol import Store
from datastore.reference import DataReference
from datastore.testing.base import KitTests, names_below, needs, pages, write_all
from datastore.testing.harness import Harness, Scale
from datastore.testing.reference_model import ReferenceModel, sorted_keys

__all__ = ["ListTests"]

#: Names whose order differs between UTF-8 bytes, UTF-16, path segments, locales and case folding; no one is a folder of
#: another, so that paths can express them all.
_NAMES = sorted_keys(
    [
        "A",
        "B",
        "_",
        "a",
        "a b",
        "a!",
        "a-/b",
        "a-c",
        "a.b",
        "a0",
        "aa",
        "a~",
        "b",
        "t-/x",
        "t/1",
        "t/2",
        "t/u/1",
        "t/u/2",
        "t/u-/1",
        "t0",
        "t00/x",
        "é",
        "e\u0301",
        "ÿ",
        "Ω",
        "\uffe6",  # in UTF-16 above every astral character, in UTF-8 below
        "\ufffd",
        "\U00010000",
        "\U0001f600",
        "\U0001f600-/x",
    ]
)


class ListTests(KitTests):
    """A listing is every object below a prefix, ascending by the UTF-8 bytes of the keys."""

    @pytest.fixture
    def names(self, store: Store, place: DataReference) -> list[str]:
        """The names above, written in an order of no use."""
        write_all(store, [place.join(name) for name in sorted(_NAMES, key=lambda name: name[::-1])])
        return _NAMES

    def test_listing_nothing(self, store: Store, place: DataReference) -> None:
        """Where nothing is the listing is empty and at its end; that is no error."""
        for prefix in (place, place.join("deeper")):
            assert ListPage() == store.list_page(prefix)
            assert ListPage() == store.list_page(prefix, 1, directory=True, delimiter="/")
            assert ([], Cursor.at_end()) == store.list(prefix)
            assert list(store.walk(prefix)) == []

    def test_listing_a_missing_container(self, store: Store, missing_container: DataReference) -> None:
        """So it is in a container that does not exist."""
        assert ListPage() == store.list_page(missing_container)
        assert ListPage() == store.list_page(missing_container.join("a"), directory=True, delimiter="/")

    def test_the_order_is_that_of_utf8(self, store: Store, place: DataReference, names: list[str]) -> None:
        """Every name comes once, in the order of the bytes of its UTF-8."""
        assert names == names_below(store, place)

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 7, len(_NAMES) - 1, len(_NAMES), len(_NAMES) + 1, 1000])
    def test_the_order_does_not_depend_on_the_page(
        self, store: Store, place: DataReference, names: list[str], size: int
    ) -> None:
        """Pages of any size join to the same listing, and no page but the last is short of names."""
        found = pages(store, place, size)
        assert names == [entry.reference.key.removeprefix(f"{place.key}/") for page in found for entry in page.entries]
        assert all(page.entries for page in found)
        assert len(found) in (-(-len(names) // size), len(names) // size + 1)

    def test_the_prefix_is_text(self, store: Store, place: DataReference, names: list[str]) -> None:
        """A prefix matches raw text, across slashes and inside names; ``directory`` makes it a folder."""
        for prefix in ("a", "t", "t/", "t/u", "t/u-", "é", "e", "\U0001f600", "nothing", "a "):
            ref = place.join(prefix) if not prefix.endswith("/") else None
            if ref is not None:
                expected = [name for name in names if name.startswith(prefix)]
                found, cursor = store.list(ref)
                assert [place.join(name) for name in expected] == found
                assert cursor.is_at_end
            folder = prefix.rstrip("/")
            expected = [name for name in names if name.startswith(f"{folder}/")]
            assert [place.join(name) for name in expected] == store.list(place.join(folder), directory=True)[0]

    def test_a_name_that_is_a_prefix_of_another(self, store: Store, place: DataReference) -> None:
        """The object of the very name comes first, then those it is a prefix of."""
        write_all(store, [place.join(name) for name in ("foo", "foobar", "foo-bar", "fo")])
        assert names_below(store, place) == ["fo", "foo", "foo-bar", "foobar"]
        assert [place.join("foo"), place.join("foo-bar"), place.join("foobar")] == store.list(place.join("foo"))[0]
        assert store.list(place.join("foo"), directory=True)[0] == []

    @needs(Feature.NESTED_KEYS)
    def test_an_object_and_a_folder_of_one_name(self, store: Store, place: DataReference) -> None:
        """``a`` and ``a/b`` are two objects; with a delimiter the first is an entry and the second a prefix."""
        names = ["a", "a-", "a/b", "a/c/d", "a0"]
        write_all(store, [place.join(name) for name in names])
        assert names == names_below(store, place)
        assert [place.join("a/b"), place.join("a/c/d")] == store.list(place.join("a"), directory=True)[0]
        for size in (1, 2, 3, 4, 5):
            found = pages(store, place, size, delimiter="/")
            assert [place.join(name) for name in ("a", "a-", "a0")] == _entries(found)
            assert [place.join("a")] == _prefixes(found)
        assert b"a" in store.read_bytes(place.join("a"))
        store.delete(place.join("a"))
        assert names[1:] == names_below(store, place)

    @pytest.mark.parametrize("folder", ["", "t", "t/u", "a-", "\U0001f600-"])
    def test_a_delimiter_folds_what_lies_deeper(
        self, store: Store, place: DataReference, names: list[str], folder: str
    ) -> None:
        """Objects of this level come as entries, deeper ones as prefixes, each once, at every page size from 1 on."""
        where = place.join(folder)
        model = ReferenceModel()
        for name in names:
            model.write(place.join(name).key, b"")
        for size in [*range(1, 9), 20, len(names)]:
            cursor, expected = Cursor.at_start(), []
            while not cursor.is_at_end:
                page = model.page(f"{where.key}/", size, cursor, "/")
                expected.append((page.keys, page.prefixes))
                cursor = page.cursor
            found = pages(store, where, size, delimiter="/")
            assert [key for keys, _ in expected for key in keys] == [ref.key for ref in _entries(found)]
            assert [key for _, keys in expected for key in keys] == [ref.key for ref in _prefixes(found)]

    def test_a_delimiter_with_a_raw_prefix(self, store: Store, place: DataReference, names: list[str]) -> None:
        """Folding starts behind the prefix, wherever in a name that ends."""
        page = store.list_page(place.join("t"), delimiter="/")
        assert [place.join("t0")] == [entry.reference for entry in page.entries]
        assert [place.join("t-"), place.join("t"), place.join("t00")] == list(page.prefixes)
        page = store.list_page(place.join("t", "u"), delimiter="/")
        assert page.entries == ()
        assert [place.join("t", "u-"), place.join("t", "u")] == list(page.prefixes)

    def test_another_delimiter_is_refused(self, store: Store, place: DataReference) -> None:
        """Only the slash is portable."""
        for delimiter in ("-", "//", " "):
            with pytest.raises(ValueError, match="delimiter"):
                store.list_page(place, delimiter=delimiter)

    def test_entries_tell_sizes_and_times(self, store: Store, place: DataReference) -> None:
        """What a listing says of an object is what head says."""
        for size in (0, 1, 1000):
            store.write_bytes(place.join(f"{size:04}"), bytes(size))
        entries = list(store.walk(place, directory=True))
        assert [entry.size for entry in entries] == [0, 1, 1000]
        for entry in entries:
            known = store.head(entry.reference)
            assert entry.etag in ("", known.etag)
            if entry.last_modified is not None:
                assert entry.last_modified.tzinfo is not None
                assert known.last_modified is not None
                assert abs((entry.last_modified - known.last_modified).total_seconds()) < 2

    def test_results_read_back(self, store: Store, place: DataReference, names: list[str]) -> None:
        """What list returns can be given to any operation, as it is and as text."""
        found, _ = store.list(place, directory=True)
        assert len(names) == len(found)
        for ref in found:
            assert (place.scheme, place.container, place.account) == (ref.scheme, ref.container, ref.account)
            assert ref == DataReference(str(ref))
            assert ref.key.encode() == store.read_bytes(ref)
        assert found[-1].key.encode() == store.read_bytes(str(found[-1]))

    def test_prefixes_list_in_turn(self, store: Store, place: DataReference, names: list[str]) -> None:
        """Descending through the prefixes of delimiter listings reaches every object once."""
        waiting, found = [place], []
        while waiting:
            for page in pages(store, waiting.pop(), 3, delimiter="/"):
                found += [entry.reference for entry in page.entries]
                waiting += page.prefixes
        assert [place.join(name) for name in names] == sorted(found)

    @pytest.mark.parametrize("size", [None, 0])
    def test_no_page_size_means_the_stores_own(
        self, store: Store, place: DataReference, names: list[str], size: int | None
    ) -> None:
        """None and zero are the default page, which holds these names at once."""
        page = store.list_page(place, size, directory=True)
        assert names == [entry.reference.key.removeprefix(f"{place.key}/") for entry in page.entries]
        assert page.cursor.is_at_end

    def test_a_negative_page_size_is_refused(self, store: Store, place: DataReference) -> None:
        """There are no negative pages."""
        with pytest.raises(ValueError, match="max_items"):
            store.list_page(place, -1)

    def test_the_end_cursor_is_refused(self, store: Store, place: DataReference) -> None:
        """Who goes on after the end has a mistake in their loop, and is told."""
        store.write_bytes(place.join("a"), b"1")
        for prefix in (place, place.join("nothing")):
            with pytest.raises(BadCursor):
                store.list_page(prefix, 10, Cursor.at_end())
            with pytest.raises(BadCursor):
                store.list(prefix, 10, store.list(prefix)[1])

    def test_cursors_survive_as_text(self, store: Store, place: DataReference, names: list[str]) -> None:
        """A cursor written down and read again, or pickled, goes on at the same place, in another store too."""
        cursor, found = Cursor.at_start(), []
        while not cursor.is_at_end:
            page = store.list_page(place, 4, Cursor.parse(str(cursor)), directory=True)
            found += [entry.reference for entry in page.entries]
            cursor = pickle.loads(pickle.dumps(page.cursor))  # noqa: S301 - our own bytes
            assert cursor == Cursor.parse(str(cursor)) == page.cursor
        assert [place.join(name) for name in names] == found

    @pytest.mark.parametrize("text", ["", "begin", "after", "after:", "before:x", "7", "after:%ff", "AFTER:a"])
    def test_other_text_is_no_cursor(self, text: str) -> None:
        """Only what a cursor wrote is read."""
        with pytest.raises(BadCursor):
            Cursor.parse(text)

    def test_a_cursor_outlives_its_key(self, store: Store, place: DataReference) -> None:
        """Deleting what a cursor stands on, and what lies around it, loses and repeats nothing of the rest."""
        write_all(store, [place.join(f"{number:02}") for number in range(20)])
        page = store.list_page(place, 10, directory=True)
        assert place.join("09") == page.entries[-1].reference
        for name in ("00", "08", "09", "10", "15"):
            store.delete(place.join(name))
        rest = store.list_page(place, 10, page.cursor, directory=True)
        assert [place.join(f"{number}") for number in (11, 12, 13, 14, 16, 17, 18, 19)] == [
            entry.reference for entry in rest.entries
        ]
        assert rest.cursor.is_at_end

    def test_a_cursor_stands_still_under_inserts(self, store: Store, place: DataReference) -> None:
        """New names before the cursor are not seen, new names after it are, and nothing comes twice."""
        write_all(store, [place.join(f"{number:02}") for number in range(0, 20, 2)])
        page = store.list_page(place, 5, directory=True)
        write_all(store, [place.join(name) for name in ("01", "08-", "07", "09", "19", "99")])
        rest = [entry.reference for entry in _after(store, place, page.cursor)]
        expected = ["08-", "09", "10", "12", "14", "16", "18", "19", "99"]
        assert [place.join(name) for name in expected] == rest

    def test_a_delimiter_cursor_outlives_its_prefix(self, store: Store, place: DataReference) -> None:
        """A page that ended in a common prefix goes on behind it, also when the prefix is gone or has grown."""
        write_all(store, [place.join(name) for name in ("a/1", "b/1", "b0", "c/1")])
        page = store.list_page(place, 2, delimiter="/", directory=True)
        assert (place.join("a"), place.join("b")) == page.prefixes
        write_all(store, [place.join("b", "2"), place.join("b", "\U0001f600")])
        for _ in range(2):
            rest = store.list_page(place, 10, page.cursor, delimiter="/", directory=True)
            assert [place.join("b0")] == [entry.reference for entry in rest.entries]
            assert (place.join("c"),) == rest.prefixes
            for name in ("1", "2", "\U0001f600"):
                store.delete(place.join("b", name))

    def test_a_cursor_of_a_key_that_never_was(self, store: Store, place: DataReference) -> None:
        """A cursor may stand anywhere, before and behind the prefix too."""
        write_all(store, [place.join(name) for name in "abc"])
        behind = {place.join("a").key: "bc", place.join("ab").key: "bc", place.join("c").key: "", " ": "abc"}
        for key, expected in behind.items():
            page = store.list_page(place, 10, Cursor.after_key(key), directory=True)
            assert [place.join(name) for name in expected] == [entry.reference for entry in page.entries]
        assert ListPage() == store.list_page(place, 10, Cursor.after_key(f"{place.key}0"), directory=True)

    def test_listing_many_objects(self, harness: Harness, store: Store, place: DataReference) -> None:
        """More objects than a page come all, once and in order, by default pages and by small ones."""
        count = harness.scale.objects
        names = [f"{number:05}" for number in range(count)]
        write_all(store, [place.join("many", name) for name in names])
        folder = place.join("many")
        assert names == names_below(store, folder)
        assert names == names_below(store, folder, max(7, count // 10))
        assert count == sum(1 for _ in store.walk(folder, directory=True))
        if harness.scale is Scale.NORMAL:
            first = store.list_page(folder, directory=True)
            assert len(first.entries) == 1000, "the default page holds 1,000 objects"
            assert not first.cursor.is_at_end

    def test_a_page_of_exactly_the_rest(self, store: Store, place: DataReference) -> None:
        """A page that holds the last object may say so or say "more", but never loses or invents one."""
        write_all(store, [place.join(name) for name in "abcd"])
        for size in (4, 2, 1):
            assert list("abcd") == names_below(store, place, size)

    def test_listing_a_whole_container(self, store: Store, fresh_container: DataReference) -> None:
        """A container lists from its root, without and with a delimiter."""
        assert ListPage() == store.list_page(fresh_container)
        write_all(store, [fresh_container.join(name) for name in ("a", "b/c", "b/d", "e")])
        for directory in (True, False):
            found = _entries(pages(store, fresh_container, 2, directory=directory))
            assert [fresh_container.join(name) for name in ("a", "b/c", "b/d", "e")] == found
            folded = pages(store, fresh_container, 2, delimiter="/", directory=directory)
            assert [fresh_container.join("a"), fresh_container.join("e")] == _entries(folded)
            assert [fresh_container.join("b")] == _prefixes(folded)

    def test_foreign_names_are_left_out_and_counted(self, harness: Harness, store: Store, place: DataReference) -> None:
        """Names no reference can express, left by other tools, neither end a listing nor hide their neighbours."""
        write_all(store, [place.join(name) for name in ("folder/a", "folder/b", "z")])
        foreign = [(place.join("folder"), "/"), (place, "/y/")]
        made = [(ref, suffix) for ref, suffix in foreign if harness.put_foreign(ref, suffix)]
        if not made:
            pytest.skip("the harness cannot leave foreign names")
        try:
            for size in (1, 2, 3, 10):
                found = pages(store, place, size)
                assert [place.join(name) for name in ("folder/a", "folder/b", "z")] == _entries(found)
                assert len(made) == sum(page.omitted for page in found)
                found = pages(store, place.join("folder"), size, delimiter="/")
                assert [place.join("folder/a"), place.join("folder/b")] == _entries(found)
                assert made.count(foreign[0]) == sum(page.omitted for page in found)
        finally:
            for ref, suffix in made:
                harness.remove_foreign(ref, suffix)

    def test_listing_needs_a_container(self, store: Store) -> None:
        """Text that is no reference is refused, not listed as nothing."""
        for text in ("://container/a", "s3://b/%zz", "s3://b/k?x=1"):
            with pytest.raises(InvalidReference):
                store.list_page(text)


def _entries(found: list[ListPage]) -> list[DataReference]:
    return [entry.reference for page in found for entry in page.entries]


def _prefixes(found: list[ListPage]) -> list[DataReference]:
    return [prefix for page in found for prefix in page.prefixes]


def _after(store: Store, place: DataReference, cursor: Cursor) -> list[ObjectEntry]:
    found: list[ObjectEntry] = []
    while not cursor.is_at_end:
        page = store.list_page(place, 3, cursor, directory=True)
        found += page.entries
        cursor = page.cursor
    return found
