"""Writes the tables of the documents that repeat what the code says: ``python -m docs.generate``.

A table stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; everything around it is written by hand.
``--check`` only says whether the documents are up to date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from datastore.model import Capabilities, Feature
from stowstore.locations.base import Dial, Kind, Option
from stowstore.locations.registry import known_kinds, known_schemes, load_kind

__all__ = ["generated", "main"]

_DOCUMENTS = Path(__file__).parent
_BLOCK = re.compile(r"<!-- generated: (?P<name>[a-z-]+) -->\n.*?<!-- end -->", re.DOTALL)

#: Options each kind is dialled with to ask for its capabilities; no request is made.
_EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "mem": {},
    "file": {"path": "/nowhere"},
    "s3": {"endpoint": "http://127.0.0.1:1", "access_key_id": "id", "secret_key": "key"},
    "gs": {"anonymous": "true", "hmac_access_id": "id", "hmac_secret": "key"},
    "abfs": {"account": "account", "key": "a2V5"},
    "sw": {
        "auth_url": "http://127.0.0.1:1",
        "username": "user",
        "key": "key",
        "tenant_name": "tenant",
        "temp_url_key": "key",
    },
    "redis": {"addr": "127.0.0.1:1"},
    "libcloud": {"provider": "s3", "key": "id", "secret": "key"},
}


def main(arguments: list[str]) -> int:
    """Writes the documents, or with ``--check`` names those that are not up to date; returns the exit status."""
    stale = []
    for path in sorted(_DOCUMENTS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        wanted = generated(text)
        if text != wanted:
            stale.append(path)
            if "--check" not in arguments:
                path.write_text(wanted, encoding="utf-8")
    for path in stale:
        print(f"{path}: {'not up to date; run python -m docs.generate' if '--check' in arguments else 'written'}")
    return 1 if stale and "--check" in arguments else 0


def generated(text: str) -> str:
    """A document with its tables made anew."""
    return _BLOCK.sub(
        lambda block: f"<!-- generated: {block['name']} -->\n{_TABLES[block['name']]()}\n<!-- end -->", text
    )


def _kinds() -> list[Kind]:
    kinds = {kind.name: kind for kind in map(load_kind, known_kinds())}
    return [kinds[name] for name in _EXAMPLES] + [kind for name, kind in kinds.items() if name not in _EXAMPLES]


def _kinds_table() -> str:
    schemes = known_schemes()
    rows = []
    for kind in _kinds():
        aliases = sorted(name for name in known_kinds() if name != kind.name and load_kind(name) is kind)
        found = sorted(scheme for scheme, owner in schemes.items() if owner == kind.name)
        first = [scheme for scheme in kind.schemes[:1] if scheme in found]
        listed = first + [scheme for scheme in found if scheme not in first]
        extra = f"`stowstore[{kind.extra}]`" if kind.extra else ""
        rows.append([_code([kind.name]), _code(aliases), _code(listed), kind.summary, extra])
    return _table(["kind", "other names", "schemes", "what it is", "needs"], rows)


def _options_tables() -> str:
    parts = []
    for kind in _kinds():
        parts.append(f"### {kind.name}\n")
        if not kind.options:
            parts.append("No options.\n")
            continue
        rows = [[_code([name]), _about(option), _value(option)] for name, option in kind.options.items()]
        parts.append(_table(["option", "meaning", "value"], rows) + "\n")
    return "\n".join(parts).rstrip()


def _about(option: Option) -> str:
    also = f"; also called {_code(option.aliases)}" if option.aliases else ""
    return f"{option.help}{also}"


def _value(option: Option) -> str:
    said = []
    if option.required:
        said.append("**required**")
    if option.secret:
        said.append("secret, also from a file")
    if option.choices:
        said.append(_code(option.choices))
    if option.default:
        said.append(f"default `{option.default}`")
    return "; ".join(said)


def _features_table() -> str:
    able = {name: _capabilities(name) for name in _EXAMPLES}
    rows = [
        [_code([feature.value]), *("yes" if feature in found else "" for found in able.values())] for feature in Feature
    ]
    rows.append(["largest object", *(_bytes(found.max_object_bytes) for found in able.values())])
    rows.append(["longest key", *(_bytes(found.max_key_bytes) for found in able.values())])
    return _table(["", *(_code([name]) for name in able)], rows)


def _capabilities(name: str) -> Capabilities:
    kind = load_kind(name)
    location = kind.dial(Dial(options=kind.check(_EXAMPLES[name])))
    try:
        return location.capabilities
    finally:
        location.close()


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    for unit, size in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def _code(words: list[str] | tuple[str, ...]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [
        head,
        ["---"] * len(head),
        *([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_TABLES: Mapping[str, Callable[[], str]] = {
    "kinds": _kinds_table,
    "kind-options": _options_tables,
    "kind-features": _features_table,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
