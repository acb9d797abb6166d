"""How volumes are provided on a host: one module a backing, all behind one protocol."""

from stowstore.named.backings.base import Backing, Usage
from stowstore.named.backings.choosing import backing_of, choose_backing

__all__ = ["Backing", "Usage", "backing_of", "choose_backing"]
