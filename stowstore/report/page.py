"""The page: one file of HTML that needs nothing else, from facts of which no text is trusted.

Everything goes through a template that escapes it.  The policy of the page forbids whatever is not in it: no request is
ever made, and no script or style runs but the two whose hashes it names.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template
from markupsafe import Markup

from stowstore.report.charts import growth_chart, sparkline
from stowstore.report.drawing import lineage_picture
from stowstore.report.lineage import lay_out
from stowstore.report.model import RootFacts, VersionFacts, VolumeFacts
from stowstore.report.words import ago, count_text, moment_text, ratio_text, shortened, size_text, visible

__all__ = ["MAX_ROWS", "render"]

#: How many versions and directories the tables list.
MAX_ROWS: Final = 500

_LARGEST: Final = 12


def render(facts: RootFacts) -> str:
    """The page, as text to be written in UTF-8."""
    style, script = _part("page.css"), _part("page.js")
    return _template().render(
        facts=facts,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        cards=_cards(facts),
        bars=_bars(facts),
        largest=_largest(facts.volumes),
        lineage=lineage_picture(lay_out(facts)),
        growth=growth_chart(facts),
        versions=_listed(facts.versions),
        directories=sorted(facts.index.directories, key=lambda one: -one.bytes)[:MAX_ROWS] if facts.index else (),
        cost=_cost(facts),
    )


def _cards(facts: RootFacts) -> list[tuple[str, str, str]]:
    """The figures on top: what, how much, and what that means."""
    live = [volume for volume in facts.volumes if volume.head is not None]
    written = sum(1 for volume in facts.volumes if volume.holder is not None and not volume.holder.is_over)
    newest = max((version.created for version in facts.versions), default=None)
    cards = [
        ("Volumes", f"{len(live):,}", f"{written} being written now" if written else "none is being written now"),
        ("Versions", f"{len(facts.versions):,}", f"the newest {ago(newest, facts.gathered)}" if newest else "none yet"),
        ("In newest versions", size_text(facts.newest_bytes), "what all volumes hold now"),
        ("Stored", size_text(facts.packs.bytes), f"in {count_text(facts.packs.packs, 'pack')}, index included"),
    ]
    if facts.packs.bytes:
        ratio = ratio_text(facts.logical_bytes, facts.packs.bytes)
        cards.append(("Saved by sharing and compression", ratio, "all versions as full copies, to what is stored"))
    if facts.index is not None:
        garbage = facts.index.garbage_bytes
        cards.append(
            ("Garbage", size_text(garbage), "in packs that no version needs" if garbage else "every pack is needed")
        )
    elif facts.collection is not None:
        seen = facts.collection
        cards.append(("Garbage, when last looked at", size_text(seen.bytes), f"{ago(seen.written, facts.gathered)}"))
    return cards


def _bars(facts: RootFacts) -> list[tuple[str, int, float, str]]:
    """From every version as a full copy down to what is stored: what, bytes, the share of the largest, and why."""
    rows = [
        ("Every version as a full copy", facts.logical_bytes, "the sizes of all versions, added up"),
        ("Newest versions", facts.newest_bytes, "the sizes of the newest version of each volume, added up"),
    ]
    if facts.index is not None:
        content, kept = facts.index.content_bytes, facts.index.content_stored
        rows += [
            ("Each block once", content, f"equal content is shared: {ratio_text(facts.logical_bytes, content)}"),
            ("Compressed", kept, f"{facts.compression}: {ratio_text(content, kept)}"),
        ]
    rows.append(("Stored", facts.packs.bytes, _stored_text(facts)))
    most = max(*(size for _, size, _ in rows), 1)
    return [(name, size, size / most, why) for name, size, why in rows]


def _stored_text(facts: RootFacts) -> str:
    packs = facts.packs
    text = f"{size_text(packs.data_bytes)} of files in {count_text(packs.data_packs, 'pack')}, "
    return text + f"{size_text(packs.index_bytes)} of index in {count_text(packs.index_packs, 'pack')}"


def _cost(facts: RootFacts) -> str:
    asked = f"{count_text(facts.listings, 'listing')}, {count_text(facts.packs.packs, 'pack')} among what they named"
    read = f"{count_text(facts.reads, 'small object')} read"
    if facts.index is not None:
        read += f", and {count_text(facts.index.nodes, 'node')} of the index"
    return f"{asked}; {read}; no file"


def _largest(volumes: Sequence[VolumeFacts]) -> list[tuple[VolumeFacts, float]]:
    found = sorted((volume for volume in volumes if volume.used_bytes), key=lambda volume: -volume.used_bytes)
    return [(volume, volume.used_bytes / found[0].used_bytes) for volume in found[:_LARGEST]]


def _listed(versions: Sequence[VersionFacts]) -> list[VersionFacts]:
    """The newest versions, and of the others those that have a name, newest first."""
    newest = versions[-MAX_ROWS:]
    named = [version for version in versions[:-MAX_ROWS] if version.tags or version.head_of]
    return [*newest[::-1], *named[::-1][:MAX_ROWS]]


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_part),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = {
        "ago": ago,
        "counted": count_text,
        "moment": moment_text,
        "shortened": shortened,
        "size": size_text,
        "sparkline": sparkline,
        "visible": visible,
    }
    environment.filters.update(filters)
    return environment.get_template("page.html.jinja")


def _part(name: str) -> str:
    return (files("stowstore.report") / name).read_text(encoding="utf-8")
