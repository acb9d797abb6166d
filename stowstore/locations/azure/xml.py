"""The service's XML, read without ever expanding an entity."""

from __future__ import annotations

from urllib.parse import unquote
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from datastore.errors import StoreError, TransientError

__all__ = ["name_of", "parse", "text_of"]


def parse(document: bytes) -> Element:
    """The root element.

    Raises:
        StoreError: it declares a document type, which the service never does and entity bombs need.
        TransientError: it is not XML; answers cut short and error pages of proxies are not.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(document, True)
        root: Element = builder.close()
    except expat.ExpatError as error:
        raise TransientError(f"the service's answer is not XML: {error}") from error
    return root


def text_of(element: Element | None, path: str) -> str:
    """The text of a descendant, "" when it is not there."""
    return (element.findtext(path) or "") if element is not None else ""


def name_of(element: Element) -> str:
    """A blob's or prefix's name; names with characters XML cannot express come quoted.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    name = element.find("Name")
    if name is None:
        return ""
    text = name.text or ""
    return unquote(text, errors="strict") if name.get("Encoded") == "true" else text


def _refuse(*declaration: object) -> None:
    raise StoreError("the service's answer declares a document type; it is not read", hint="check the endpoint")
