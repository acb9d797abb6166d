"""References: the frozen names of objects, ``scheme://container/key``.

The text form follows upstream's (flytestdlib ``DataReference``), which is what Go's ``net/url`` makes of it, with
what upstream loses in silence refused instead: queries, fragments, opaque parts, ``.`` and ``..`` segments, keys
that are not UTF-8.  Python's own ``urlsplit`` does not decode, does not check escapes and ports, strips control
characters and lower-cases hosts, so the parser is written out here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

from datastore.errors import InvalidReference

__all__ = ["DataReference", "construct_reference"]

#: What a key shows unescaped in the canonical form; everything else becomes %XX of its UTF-8.
_KEY_SAFE = "-._~!$&'()*+,;=:@/[]"
_HOST_SAFE = "-._~!$&'()*+,;=:[]"
_ACCOUNT_SCHEMES = frozenset({"abfs", "abfss", "wasb", "wasbs"})

# The common spelling needs no parser: plain characters, single slashes, no segment that starts with a dot.
_PLAIN = re.compile(r"([a-z][a-z0-9]*)://([A-Za-z0-9_-][A-Za-z0-9._-]*)((?:/[A-Za-z0-9_~=-][A-Za-z0-9._~=-]*)*)")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_~=-][A-Za-z0-9._~=-]*(?:/[A-Za-z0-9_~=-][A-Za-z0-9._~=-]*)*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_USERINFO = re.compile(r"[A-Za-z0-9\-._:~!$&'()*+,;=%@]*")
_HOST = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:\[\]<>\"%\x80-\U0010ffff]*")

_HINTS = {
    "query": "encode '?' in a key as %3F, or use DataReference.build with the raw key",
    "fragment": "encode '#' in a key as %23, or use DataReference.build with the raw key",
    "opaque": "write scheme://container/key",
    "dot_segment": "'.' and '..' are never resolved: name the object itself",
    "bad_escape": "encode '%' in a key as %25, or use DataReference.build with the raw key",
    "empty_container": "write scheme://container/key",
    "empty_key": "name an object inside the container",
    "relative": "write scheme://container/key",
    "slash_at_edge": "strip the slash: such an object could not be addressed by text",
    "control_char": "percent-encode control characters",
    "colon_in_first_segment": "write scheme://container/key",
}


class DataReference:
    """The frozen, hashable name of one object, container or prefix.

    ``DataReference(text)`` parses the URL form and refuses what no operation could use (query, fragment, opaque part);
    `parse` is upstream's lenient reading, which remembers such a flaw in ``flaw``.  `build` and `join` take raw
    text.  ``str()`` is canonical: it holds no credentials and parses back to an equal reference.
    """

    __slots__ = ("_hash", "_text", "account", "container", "flaw", "key", "scheme")

    _text: str
    _hash: int

    #: Lower-case scheme, empty when the text had none.
    scheme: str
    #: Bucket, container or file-system name; with ``abfs`` the part before ``@``.
    container: str
    #: Decoded name in the container, without slashes at its ends; empty for the container itself.
    key: str
    #: Host of the storage account, for ``abfs`` and ``wasb`` references that carry one.
    account: str | None
    #: Why no operation can use the reference (``opaque``, ``query`` or ``fragment``), or None.
    flaw: str | None

    def __new__(cls, text: str) -> DataReference:  # noqa: PYI034 - equal texts share one frozen object
        reference = _parse(text)
        if reference.flaw:
            raise _invalid(reference.flaw, text)
        return reference

    @classmethod
    def parse(cls, text: str) -> DataReference:
        """Reads the text as upstream does.

        Raises:
            InvalidReference: ``reason`` says which rule the text breaks.
        """
        return _parse(text)

    @classmethod
    def build(cls, scheme: str, container: str, key: str = "", account: str | None = None) -> DataReference:
        """Makes a reference of raw parts; nothing in ``key`` is read as an escape.

        Raises:
            InvalidReference: a scheme that is none, a key with a slash at an end, a dot segment, or NUL.
        """
        if not _SCHEME.fullmatch(scheme):
            raise _invalid("bad_scheme", scheme)
        if _PLAIN_KEY.fullmatch(key) is None:
            if key.startswith("/") or key.endswith("/"):
                raise _invalid("slash_at_edge", key)
            _check_key(key, key)
        return _make(scheme.lower(), container, key, account)

    def join(self, *raw: str) -> DataReference:
        """A reference below this one, of raw segments: slashes at their ends are trimmed, empty ones skipped.

        The result never leaves this reference: a ``.`` or ``..`` segment is refused.
        """
        return self.with_key("/".join(part for part in (self.key, *(text.strip("/") for text in raw)) if part))

    def with_key(self, key: str) -> DataReference:
        """The reference of another object in the same container; ``key`` is raw."""
        if _PLAIN_KEY.fullmatch(key) is None:
            if key.startswith("/") or key.endswith("/"):
                raise _invalid("slash_at_edge", key)
            _check_key(key, key)
        return _make(self.scheme, self.container, key, self.account)

    @property
    def container_reference(self) -> DataReference:
        """The reference of the container this one lies in."""
        return _make(self.scheme, self.container, "", self.account)

    @property
    def name(self) -> str:
        """The last segment of the key."""
        return self.key.rpartition("/")[2]

    def split(self) -> tuple[str, str, str]:
        """Scheme, container and key, as upstream's ``Split``."""
        return self.scheme, self.container, self.key

    def require_object(self) -> None:
        """Refuses references that name no object of a container: every operation but ``list`` calls it.

        Raises:
            InvalidReference: with the first reason that applies.
        """
        if self.flaw is None and self.key and self.container and self.scheme:
            return
        raise _invalid(self.flaw or _missing_part(self), str(self))

    def require_prefix(self) -> None:
        """Refuses references that cannot even name a container or a prefix in one."""
        if self.flaw is None and self.container and self.scheme:
            return
        reason = self.flaw or _missing_part(self)
        raise _invalid(reason, str(self))

    def __str__(self) -> str:
        try:
            return self._text
        except AttributeError:
            text = _format(self)
            object.__setattr__(self, "_text", text)
            return text

    def __repr__(self) -> str:
        return f"DataReference({str(self)!r})"

    def __fspath__(self) -> str:
        raise TypeError(f"{self!r} is a reference, not a local path; read it through a store")

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not DataReference:
            return NotImplemented
        return self._identity() == other._identity()

    def __lt__(self, other: DataReference) -> bool:
        return self._order() < other._order()

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            value = hash(self._identity())
            object.__setattr__(self, "_hash", value)
            return value

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"DataReference is frozen: cannot set {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"DataReference is frozen: cannot delete {name}")

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _make, (self.scheme, self.container, self.key, self.account, self.flaw)

    def _identity(self) -> tuple[str, str, str, str | None, str | None]:
        return self.scheme, self.container, self.key, self.account, self.flaw

    def _order(self) -> tuple[str, str, str, bytes]:
        # Keys sort by their UTF-8 bytes, as every store lists them.
        return self.scheme, self.account or "", self.container, self.key.encode()


def construct_reference(base: DataReference | str, *keys: str) -> str:
    """Appends URL text to a reference and returns the canonical text, as upstream's URL-path constructor.

    Escapes in ``keys`` are kept, everything else outside the safe set is encoded; slashes at their ends are
    trimmed, empty keys and ``.`` segments dropped.  A base without scheme yields a leading slash.

    Raises:
        InvalidReference: a base with query, fragment, opaque part or dot segment, a broken escape, or a decoded
            ``..`` segment: the result is always below the base.
    """
    parent = base if isinstance(base, DataReference) else _parse(base)
    if parent.flaw:
        raise _invalid(f"base_{parent.flaw}", str(base))
    parts: list[str] = []
    for key in keys:
        if _CONTROL.search(key):
            raise _invalid("control_char", key)
        if _BAD_ESCAPE.search(key):
            raise _invalid("bad_escape", key)
        text = _drop_single_dots(key).strip("/")
        if text:
            _check_key(_decode(text, key), key)
            parts.append(quote(text, safe=_KEY_SAFE + "%"))
    root = str(parent)
    if not parent.scheme and not parent.container:
        root = "/" + root.strip("/")
    elif parent.scheme and not parent.container:
        root = f"{parent.scheme}:///{quote(parent.key, safe=_KEY_SAFE)}"
    return "/".join([root.rstrip("/") if parts else root, *parts])


@lru_cache(maxsize=4096)
def _parse(text: str) -> DataReference:
    plain = _PLAIN.fullmatch(text)
    if plain is not None and plain[1] not in _ACCOUNT_SCHEMES:
        return _make(plain[1], plain[2], plain[3][1:])
    return _parse_url(text)


def _parse_url(text: str) -> DataReference:
    if _CONTROL.search(text):
        raise _invalid("control_char", text)
    rest, has_fragment, fragment = text.partition("#")
    if _BAD_ESCAPE.search(fragment):
        raise _invalid("bad_escape", text)
    scheme, rest = _cut_scheme(rest, text)
    rest, has_query, _ = rest.partition("?")
    flaw = "query" if has_query else "fragment" if has_fragment else None
    if not rest.startswith("/"):
        if scheme and rest:
            return _make(scheme, "", "", None, "opaque")
        if ":" in rest.partition("/")[0]:
            raise _invalid("colon_in_first_segment", text)
    container, account = "", None
    if rest.startswith("//") and (scheme or not rest.startswith("///")):
        authority, _, rest = rest[2:].partition("/")
        container, account = _read_authority(scheme, authority, text)
    if _BAD_ESCAPE.search(rest):
        raise _invalid("bad_escape", text)
    key = _decode(rest, text).strip("/")
    _check_key(key, text)
    return _make(scheme, container, key, account, flaw)


def _cut_scheme(rest: str, text: str) -> tuple[str, str]:
    if rest.startswith(":"):
        raise _invalid("missing_scheme", text)
    match = _SCHEME.match(rest)
    if match and rest[match.end() : match.end() + 1] == ":":
        return match[0].lower(), rest[match.end() + 1 :]
    return "", rest


def _read_authority(scheme: str, authority: str, text: str) -> tuple[str, str | None]:
    userinfo, at, host = authority.rpartition("@")
    if at and not _USERINFO.fullmatch(userinfo):
        raise _invalid("bad_userinfo", text)
    if _BAD_ESCAPE.search(authority):
        raise _invalid("bad_escape", text)
    _check_host(host, text)
    decoded = _decode(host, text)
    if scheme in _ACCOUNT_SCHEMES and at:
        user = _decode(userinfo.partition(":")[0], text)
        if user:
            return user, decoded
    return decoded, None


def _check_host(host: str, text: str) -> None:
    if not _HOST.fullmatch(host):
        raise _invalid("bad_host", text)
    if re.search(r"%[0-7]", host):
        raise _invalid("bad_escape", text)
    if host.startswith("["):
        bracket = host.rfind("]")
        if bracket < 0:
            raise _invalid("bad_host", text)
        tail = host[bracket + 1 :]
        if tail and not re.fullmatch(r":[0-9]*", tail):
            raise _invalid("bad_port", text)
        return
    before, colon, port = host.rpartition(":")
    if colon and not re.fullmatch(r"[0-9]*", port):
        raise _invalid("bad_port", text)
    if ":" in before:
        raise _invalid("bad_host", text)


def _decode(escaped: str, text: str) -> str:
    if "%" not in escaped:
        return escaped
    try:
        return unquote_to_bytes(escaped).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _invalid("not_utf8", text) from error


def _check_key(key: str, text: str) -> None:
    if "\0" in key:
        raise _invalid("nul_in_key", text)
    if "." in key and any(segment in (".", "..") for segment in key.split("/")):
        raise _invalid("dot_segment", text)
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise _invalid("not_utf8", text) from error


def _drop_single_dots(key: str) -> str:
    if "." not in key and "%2" not in key:
        return key
    segments: Iterable[str] = key.split("/")
    return "/".join(segment for segment in segments if segment.replace("%2e", ".").replace("%2E", ".") != ".")


def _missing_part(reference: DataReference) -> str:
    if not reference.scheme:
        return "relative"
    return "empty_key" if reference.container else "empty_container"


def _format(reference: DataReference) -> str:
    key = quote(reference.key, safe=_KEY_SAFE)
    container = reference.container
    if reference.account is not None:
        authority = f"{quote(container, safe='-._~')}@{quote(reference.account, safe=_HOST_SAFE)}"
    else:
        authority = quote(container, safe=_HOST_SAFE)
    if not reference.scheme:
        if authority:
            return f"//{authority}/{key}" if key else f"//{authority}"
        # A colon in the first segment would read as a scheme.
        return f"/{key}" if ":" in key.partition("/")[0] else key
    if not key:
        return f"{reference.scheme}://{authority}"
    return f"{reference.scheme}://{authority}/{key}"


def _make(scheme: str, container: str, key: str, account: str | None = None, flaw: str | None = None) -> DataReference:
    made = _Unfrozen()
    made.scheme = scheme
    made.container = container
    made.key = key
    made.account = account
    made.flaw = flaw
    made.__class__ = DataReference  # type: ignore[assignment]
    return made  # type: ignore[return-value]


class _Unfrozen:
    """A reference whose fields may still be set, directly and not by a call each: listings make many."""

    __slots__ = DataReference.__slots__

    account: str | None
    container: str
    flaw: str | None
    key: str
    scheme: str


def _invalid(reason: str, text: str) -> InvalidReference:
    shown = _without_credentials(text)
    hint = _HINTS.get(reason.removeprefix("base_"))
    return InvalidReference(f"Reference is of an invalid format [{shown}]: {reason}", reason=reason, hint=hint)


def _without_credentials(text: str) -> str:
    """The text without userinfo: what stands before an ``@`` in the authority may be a secret."""
    head, slashes, rest = text.partition("//")
    if not slashes:
        return text
    authority, slash, tail = rest.partition("/")
    if "@" not in authority or head.lower().removesuffix(":") in _ACCOUNT_SCHEMES:
        user, at, host = authority.rpartition("@")
        authority = f"{user.partition(':')[0]}{at}{host}"
    else:
        authority = authority.rpartition("@")[2]
    return f"{head}{slashes}{authority}{slash}{tail}"
