"""Dashboards and alert rules, built from code and shipped as files beside it.

`grafana` builds dashboards, `rules` builds Prometheus rule files, `promql` reads the metric names out of
expressions, so that a test can hold dashboards, rules and the code that exposes metrics together. The
package knows nothing of what is measured; who does, builds its files with it and keeps them here as package
data.
"""

import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

__all__ = ["ship", "shipped", "shipped_names"]

_SUFFIXES = (".json", ".yml")


def shipped_names() -> tuple[str, ...]:
    """Returns the names of the dashboards (`.json`) and rule files (`.yml`) that come with the package."""
    return tuple(sorted(entry.name for entry in files(__name__).iterdir() if entry.name.endswith(_SUFFIXES)))


def shipped(name: str) -> str:
    """Returns the text of a shipped file; raises `FileNotFoundError` that names those there are."""
    if name not in shipped_names():
        raise FileNotFoundError(f"no dashboard or rule file {name!r}: there are {', '.join(shipped_names())}")
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def ship(made: Mapping[str, str]) -> None:
    """Writes files, by name, beside this one and says where: what builds them does it when its tables have changed."""
    folder = Path(__file__).parent
    for name, text in made.items():
        (folder / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{folder / name}\n")
