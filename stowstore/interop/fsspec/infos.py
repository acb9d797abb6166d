"""What fsspec is told of objects and the directories that their keys make."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datastore.model import Metadata

__all__ = ["directories_above", "directory_info", "entry_info", "name_of", "object_info"]


def directory_info(name: str) -> dict[str, Any]:
    """What fsspec is told of a directory or container."""
    return {"name": name, "size": 0, "type": "directory"}


def object_info(name: str, found: Metadata) -> dict[str, Any]:
    """What fsspec is told of an object that was asked for."""
    return {
        "name": name,
        "size": found.size,
        "type": "file",
        "ETag": found.etag,
        "LastModified": found.last_modified,
        "ContentType": found.content_type,
    }


def entry_info(name: str, entry: Any) -> dict[str, Any]:
    """What fsspec is told of an object that was listed."""
    return {
        "name": name,
        "size": entry.size,
        "type": "file",
        "ETag": entry.etag,
        "LastModified": entry.last_modified,
    }


def name_of(info: dict[str, Any]) -> str:
    """The name in what fsspec is told, by which listings are sorted."""
    name: str = info["name"]
    return name


def directories_above(name: str, top: str) -> Iterator[str]:
    """The directories between an object and the directory it was found below."""
    above = name.rpartition("/")[0]
    while len(above) > len(top):
        yield above
        above = above.rpartition("/")[0]
