"""Volumes in Flyte 2: as arguments and results of tasks, published when they are returned.

`register` tells Flyte of the types; `@volumes`, below ``@env.task``, closes what a failed task leaves and publishes
what is in a dataclass or a model, which a transformer of one type never sees.
"""

from __future__ import annotations

import asyncio
import functools
import json

import flyte
from flyte.types import TypeEngine, TypeTransformer, TypeTransformerFailedError
from flyteidl2.core.literals_pb2 import Literal, Primitive, Scalar
from flyteidl2.core.types_pb2 import LiteralType, SimpleType, TypeStructure

from stowstore import ROVolume, RWVolume, Volume
from stowstore.interop.tasks import Role, from_wire, task, to_data, to_wire


class VolumeTransformer(TypeTransformer[Volume]):
    """Volumes as texts of JSON: a returned `RWVolume` is published, and comes as the `ROVolume` it has become."""

    def __init__(self, kind: type[Volume]) -> None:
        super().__init__(name=f"stowstore-{kind.__name__}", t=kind)

    def assert_type(self, t: type[Volume], v: Volume) -> None:
        """A version in the place of a working copy is what became of it."""
        if not isinstance(v, Volume) or (t is ROVolume and not isinstance(v, (ROVolume, RWVolume))):
            raise TypeTransformerFailedError(f"a {t.__name__} is expected, not {type(v).__name__}")

    def get_literal_type(self, t: type[Volume]) -> LiteralType:
        """A text, marked so that a choice of types knows it."""
        return LiteralType(simple=SimpleType.STRING, structure=TypeStructure(tag=self.name))

    async def to_literal(self, python_val: Volume, python_type: type[Volume], expected: LiteralType) -> Literal:
        """Publishes a working copy that is returned; one that is passed on as an argument travels as it is."""
        passed_on = flyte.ctx() and flyte.ctx().in_driver_literal_conversion
        data = to_data(python_val) if passed_on or not flyte.ctx() else await asyncio.to_thread(to_wire, python_val)
        return Literal(scalar=Scalar(primitive=Primitive(string_value=json.dumps(data))))

    async def to_python_value(self, lv: Literal, expected_python_type: type[Volume]) -> Volume:
        """The volume as a value; nothing is opened."""
        data = json.loads(lv.scalar.primitive.string_value)
        found: Volume = from_wire(data, expected_python_type, Role.RESULT)
        return found


def register() -> None:
    """Makes Flyte know volumes, once a process."""
    for kind in (Volume, RWVolume, ROVolume):
        TypeEngine.register(VolumeTransformer(kind))


def producer() -> dict[str, str] | None:
    """Who runs, in Flyte's words."""
    context = flyte.ctx()
    if not context:
        return None
    action = context.action
    told = {"org": action.org, "project": action.project, "domain": action.domain}
    told |= {"run": action.run_name, "action": action.name}
    return {name: value for name, value in told.items() if value is not None}


volumes = functools.partial(task, producer=producer)
