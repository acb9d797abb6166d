"""Hypothesis strategies for what a store is given, and tables of the awkward cases worth trying one by one."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from datastore.model import Capabilities, Cursor, Feature
from datastore.reference import DataReference

__all__ = [
    "EMPTY_SEGMENT_KEYS",
    "ODD_KEYS",
    "TRAVERSAL_KEYS",
    "TRAVERSAL_TEXTS",
    "contents",
    "cursors",
    "keys",
    "metadata",
    "ranges",
    "references",
    "segments",
]

#: Raw keys that clients, servers and URL libraries are known to mangle, by the name of the test's id.
ODD_KEYS: dict[str, str] = {
    "space": "a b",
    "space-at-edges": " a ",
    "plus": "a+b",
    "percent": "100%",
    "percent-escape": "a%20b%2Fc",
    "percent-zz": "%zz",
    "question": "what?x=1",
    "hash": "a#b",
    "ampersand-equals": "a=b&c=d",
    "semicolon": "a;b=c",
    "colon": "12:30:00",
    "url": "http:/x.example/y",
    "at": "user@host",
    "comma": "a,b",
    "quotes": "\"double\" and 'single'",
    "angles": "<a>&amp;</a>",
    "brackets": "a[0]{1}(2)*!$|^`~",
    "backslash": "a\\b",
    "newline": "line\nfeed",
    "tab": "tab\tbed",
    "dots": "...",
    "trailing-dot": "file.",
    "trailing-dot-segment": "folder./file",
    "leading-dot": ".hidden/.file",
    "dots-inside": "a..b/..c/d..",
    "dash": "-rf",
    "glob": "a*b?c[d]",
    "upper-case": "README",
    "umlaut": "Übergrößenträger",
    "combining": "e\u0301",
    "composed": "\u00e9",
    "cjk": "数据/存储",
    "rtl": "مرحبا",
    "astral": "\U0001f600/\U00020000",
    "private-use": "\ue000",
    "sharp-s-and-dotless-i": "ß/ı/İ",  # noqa: RUF001 - that they are confused is the point
    "deep": "/".join("abcdefghijklmnop"),
}

#: Keys with empty segments: two objects where `Feature.EMPTY_SEGMENTS` is declared, refused elsewhere.
EMPTY_SEGMENT_KEYS: dict[str, str] = {"double-slash": "a//b", "triple-slash": "a///b"}

#: Raw keys that climb, or that no text could address.
TRAVERSAL_KEYS: dict[str, str] = {
    "dot-dot": "..",
    "up": "../x",
    "up-twice": "../../etc/passwd",
    "inside": "a/../b",
    "at-end": "a/..",
    "dot": ".",
    "dot-inside": "a/./b",
    "leading-slash": "/etc/passwd",
    "trailing-slash": "a/",
    "nul": "a\0b",
    "surrogate": "a\ud800b",
}

#: The same in URL text, below a base: percent-escapes and all.
TRAVERSAL_TEXTS: dict[str, str] = {
    "dot-dot": "../x",
    "encoded-dots": "%2e%2e/x",
    "half-encoded": "%2E./x",
    "encoded-slash": "a%2f..%2fb",
    "dot": "a/./b",
    "nul": "a%00b",
    "not-utf8": "a%ffb",
    "control": "a\nb",
    "bad-escape": "a%zzb",
    "query": "a?b",
    "fragment": "a#b",
}

# Control characters cannot be written in the XML that most servers list with; unassigned code points hold the
# non-characters XML forbids.
_CHARACTERS = st.characters(exclude_categories=("Cs", "Cc", "Cn"), exclude_characters="/")
_LIKELY = st.sampled_from("ab-.0~ %+?#é\U0001f600")


def segments(max_size: int = 12, *, without: str = "") -> SearchStrategy[str]:
    """Parts of keys between slashes: no slash, not empty, no dot segment, none of the characters ``without``."""
    letters = st.one_of(_LIKELY, _CHARACTERS).filter(lambda letter: letter not in without)
    texts = st.text(letters, min_size=1, max_size=max_size)
    return texts.filter(lambda text: text not in (".", "..") and len(text.encode()) <= 255)


def keys(able: Capabilities | None = None, max_segments: int = 4, *, without: str = "") -> SearchStrategy[str]:
    """Raw keys in the normal form drivers are promised; with empty segments where ``able`` declares them."""
    parts = st.lists(segments(without=without), min_size=1, max_size=max_segments)
    if able is not None and Feature.EMPTY_SEGMENTS in able:
        separators = st.sampled_from(["/", "/", "/", "//"])
        joined = st.builds(
            lambda names, marks: (
                names[0] + "".join(f"{mark}{name}" for mark, name in zip(marks, names[1:], strict=False))
            ),
            parts,
            st.lists(separators, min_size=max_segments, max_size=max_segments),
        )
    else:
        joined = parts.map("/".join)
    limit = 1024 if able is None else able.max_key_bytes
    return joined.filter(lambda key: len(key.encode()) <= limit)


def references(
    scheme: str = "mem", container: str = "container", able: Capabilities | None = None
) -> SearchStrategy[DataReference]:
    """References of objects in one container."""
    return keys(able).map(lambda key: DataReference.build(scheme, container, key))


def contents(max_size: int = 300) -> SearchStrategy[bytes]:
    """What objects hold: small, empty often enough."""
    return st.one_of(st.just(b""), st.binary(max_size=max_size))


def cursors() -> SearchStrategy[Cursor]:
    """Every kind of cursor: start, end, and after keys that need not exist."""
    return st.one_of(st.just(Cursor.at_start()), st.just(Cursor.at_end()), keys().map(Cursor.after_key))


def metadata(max_size: int = 4) -> SearchStrategy[dict[str, str]]:
    """User metadata every store must keep: names in lower case, printable ASCII without spaces at the ends."""
    names = st.from_regex(r"[a-z][a-z0-9-]{0,15}", fullmatch=True)
    values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30).map(str.strip)
    return st.dictionaries(names, values, max_size=max_size)


def ranges(size: int) -> SearchStrategy[tuple[int, int | None]]:
    """A start and a length around the edges of an object: before, inside, at and past its end."""
    return st.tuples(
        st.integers(min_value=-size - 3, max_value=size + 3),
        st.one_of(st.none(), st.integers(min_value=0, max_value=size + 3)),
    )
