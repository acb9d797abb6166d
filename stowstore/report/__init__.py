"""A picture of a root for a person: what is known without reading files, laid out and drawn as one page of HTML."""

from stowstore.report.gathering import gather
from stowstore.report.model import RootFacts
from stowstore.report.page import render

__all__ = ["RootFacts", "gather", "render"]
