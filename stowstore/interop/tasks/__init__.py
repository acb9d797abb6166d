"""Volumes as arguments and results of tasks: what a framework that runs functions elsewhere calls around them.

    with running("nightly/train"):                      # who makes the versions; closes what the task opens
        arguments = from_wire(data, dict[str, Volume])  # plain data to typed values
        result = train(**arguments)
        data = to_wire(result)                          # every `RWVolume` in it is published

Nothing here knows a framework.  `task` is the same as a decorator.
"""

from stowstore.interop.tasks.publishing import published
from stowstore.interop.tasks.scope import Leftovers, TaskScope, running, task
from stowstore.interop.tasks.wire import Role, from_wire, to_data, to_wire, volume_field

__all__ = [
    "Leftovers",
    "Role",
    "TaskScope",
    "from_wire",
    "published",
    "running",
    "task",
    "to_data",
    "to_wire",
    "volume_field",
]
