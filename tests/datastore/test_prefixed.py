"""A view below a reference: keys in, keys out, and no way out of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datastore import Cursor, DataReference, Feature, MemoryStore, SignedURLProperties, WriteOptions
from datastore.errors import InvalidReference, NotFound, NotSupported
from datastore.wrappers.faulty import FaultyStore, Raise, Rule
from datastore.wrappers.prefixed import PrefixedStore

BASE = DataReference("mem://c/runs/r1")


@pytest.fixture
def memory() -> MemoryStore:
    """A store with objects below the base, and beside it."""
    store = MemoryStore()
    for key in ("runs/r1/a", "runs/r1/b/c", "runs/r1/b/d e", "runs/r10/a", "runs/r1", "other"):
        store.write_bytes(DataReference.build("mem", "c", key), key.encode())
    return store


@pytest.fixture
def view(memory: MemoryStore) -> PrefixedStore:
    """The view below the base."""
    return PrefixedStore(memory, BASE)


def test_keys_name_objects_below_the_base(view: PrefixedStore, memory: MemoryStore) -> None:
    """Reading, writing, copying and deleting reach the same objects as whole references do."""
    assert view.read_bytes("a") == b"runs/r1/a"
    assert view.head("b/d%20e").size == len("runs/r1/b/d e")
    view.write_bytes("new", b"1", WriteOptions(metadata={"k": "v"}))
    assert memory.head(BASE.join("new")).user_metadata == {"k": "v"}
    view.copy_raw("new", "copy")
    view.delete("new")
    assert [memory.exists(BASE.join(name)) for name in ("new", "copy")] == [False, True]


def test_whole_references_below_the_base_work_too(view: PrefixedStore) -> None:
    """``base_container_fqn.join(...)`` means the same in the view as outside of it."""
    assert view.base_container_fqn == BASE
    assert view.read_bytes(BASE.join("a")) == b"runs/r1/a"
    assert view.list(BASE.join("b"))[0] == [BASE.join("b", "c"), BASE.join("b", "d e")]


@pytest.mark.parametrize(
    "outside",
    ["mem://c/other", "mem://c/runs/r10/a", "mem://d/runs/r1/a", "s3://c/runs/r1/a", "//c/runs/r1/a", "mem://c"],
)
def test_what_lies_outside_is_refused(view: PrefixedStore, outside: str) -> None:
    """By every operation, with one reason."""
    for call in (
        lambda: view.head(outside),
        lambda: view.read_raw(outside),
        lambda: view.write_bytes(outside, b""),
        lambda: view.delete(outside),
        lambda: view.delete_many(["a", outside]),
        lambda: view.copy_raw("a", outside),
        lambda: view.copy_raw(outside, "a"),
        lambda: view.list(outside),
        lambda: view.create_signed_url(outside, SignedURLProperties()),
        lambda: view.capabilities(outside),
    ):
        with pytest.raises(InvalidReference, match="does not lie below mem://c/runs/r1") as caught:
            call()
        assert caught.value.reason == "outside"
    assert view.exists("a")


@pytest.mark.parametrize("escape", ["../other", "..", "b/../../other", "%2e%2e/other"])
def test_nothing_climbs_out(view: PrefixedStore, escape: str) -> None:
    """References have no dot segments, written or encoded."""
    with pytest.raises(InvalidReference):
        view.read_raw(escape)


def test_an_empty_key_names_no_object(view: PrefixedStore) -> None:
    """Not even the one that has the base's own name."""
    for nothing in ("", BASE):
        with pytest.raises(InvalidReference):
            view.read_raw(nothing)


def test_listing_everything_excludes_what_only_starts_like_the_base(view: PrefixedStore) -> None:
    """``runs/r10`` is not below ``runs/r1``."""
    keys = ["a", "b/c", "b/d e"]
    assert [ref.key for ref in view.list("")[0]] == keys
    assert view.list(BASE)[0] == [BASE.join(key) for key in keys]
    assert [str(entry.reference) for entry in view.walk("b", directory=True)] == ["b/c", "b/d%20e"]


def test_listing_with_a_delimiter(view: PrefixedStore) -> None:
    """Common prefixes are keys of the view too."""
    page = view.list_page("", delimiter="/")
    assert ([entry.reference.key for entry in page.entries], [ref.key for ref in page.prefixes]) == (["a"], ["b"])


@pytest.mark.parametrize("prefix", ["", str(BASE)])
@pytest.mark.parametrize("delimiter", ["", "/"])
def test_pages_join_to_the_whole(view: PrefixedStore, prefix: str, delimiter: str) -> None:
    """Cursors can be saved, and hold keys of the form that was asked in."""
    whole = view.list_page(prefix, delimiter=delimiter)
    found: list[object] = []
    cursor = Cursor.at_start()
    while not cursor.is_at_end:
        page = view.list_page(prefix, 1, Cursor.parse(str(cursor)), delimiter=delimiter)
        found += [*page.prefixes, *page.entries]
        cursor = page.cursor
    assert found == [*whole.prefixes, *whole.entries] or set(found) == {*whole.prefixes, *whole.entries}
    assert view.list_page("", 1).cursor.after == "a"


def test_failed_deletes_are_told_in_the_callers_references(memory: MemoryStore) -> None:
    """By key where keys were given."""
    from datastore.errors import PermissionDenied, StoreError
    from datastore.wrappers.base import StoreWrapper

    class Denied(StoreWrapper):
        def delete_many(self, references):  # type: ignore[no-untyped-def]
            return {ref: PermissionDenied("no") for ref in references}

    failed: dict[DataReference, StoreError] = dict(
        PrefixedStore(Denied(memory), BASE).delete_many(["a", BASE.join("b", "c")])
    )
    assert list(failed) == [DataReference("a"), BASE.join("b", "c")]


def test_errors_name_the_whole_reference(view: PrefixedStore) -> None:
    """That is what an operator can look for."""
    with pytest.raises(NotFound, match="mem://c/runs/r1/missing"):
        view.read_raw("missing")


def test_a_container_can_be_the_base(memory: MemoryStore) -> None:
    """Then every key of it is in the view."""
    view = PrefixedStore(memory, "mem://c")
    assert len(view.list("")[0]) == 6
    assert [ref.key for ref in view.list("runs/r1")[0]] == [
        "runs/r1",
        "runs/r1/a",
        "runs/r1/b/c",
        "runs/r1/b/d e",
        "runs/r10/a",
    ]


@pytest.mark.parametrize("base", ["", "runs/r1", "s3:///x"])
def test_a_base_has_a_container(memory: MemoryStore, base: str) -> None:
    """Otherwise keys and whole references could not be told apart."""
    with pytest.raises(InvalidReference):
        PrefixedStore(memory, base)


def test_an_empty_segment_below_the_base_is_counted(memory: MemoryStore, view: PrefixedStore) -> None:
    """``base//x`` has a whole reference but no key in the view."""
    memory.write_bytes("mem://c/runs/r1//x", b"")
    page = view.list_page("")
    assert ([entry.reference.key for entry in page.entries], page.omitted) == (["a", "b/c", "b/d e"], 1)
    assert len(view.list(BASE)[0]) == 4


def test_the_base_takes_room_from_the_key(view: PrefixedStore, memory: MemoryStore) -> None:
    """The longest key of the view is as much shorter."""
    able = view.capabilities()
    assert able.max_key_bytes == memory.capabilities().max_key_bytes - len("runs/r1/")
    assert Feature.SERVER_SIDE_COPY in able
    view.write_bytes(DataReference("").with_key("k" * able.max_key_bytes), b"")
    with pytest.raises(InvalidReference):
        view.write_bytes(DataReference("").with_key("k" * (able.max_key_bytes + 1)), b"")


def test_views_nest(view: PrefixedStore) -> None:
    """A view of a view sees less."""
    inner = PrefixedStore(view, BASE.join("b"))
    assert [ref.key for ref in inner.list("")[0]] == ["c", "d e"]


def test_signing_reaches_the_backend(view: PrefixedStore) -> None:
    """Memory cannot sign, and says so of the whole reference."""
    with pytest.raises(NotSupported, match="mem://c/runs/r1/a"):
        view.create_signed_url("a", SignedURLProperties())


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20), min_size=1, max_size=4
    )
)
def test_any_key_survives_the_way_in_and_out(segments: list[str]) -> None:
    """Listing gives back a reference that reads the object."""
    try:
        ref = DataReference("").join(*segments)
    except InvalidReference:
        return
    view = PrefixedStore(FaultyStore(MemoryStore(), [Rule(Raise(), nth=10**9)]), BASE)
    view.write_bytes(ref, b"content")
    (listed,) = view.list("")[0]
    assert listed == ref
    assert view.read_bytes(str(listed)) == b"content"
